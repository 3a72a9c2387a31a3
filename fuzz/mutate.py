"""Changes that keep most of an input as it was: of bytes, of JSON documents, of text, of lists of words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Random = random.Random

_WHOLE = (0, 1, 2, 7, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30)
_REAL = (0.0, -0.0, 0.5, 1e-300, 1e308, float("nan"), float("inf"))
NUMBERS: tuple[Any, ...] = (*_WHOLE, *(-number for number in _WHOLE), *_REAL, *(-number for number in _REAL))
TEXTS: tuple[str, ...] = (
    *("", " ", "\0", "\n", "../../x", "/dev/zero", "x" * 5000, "a" * 300 + ".json", "<image>", "</s>", "{{ 7 * 7 }}"),
    *("e\u0301\u202e", "\ud800", "\U0010ffff", "%s%n", "nan", "null", "-1", "1e999"),
)
BYTES: tuple[bytes, ...] = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
)


def mutate_bytes(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes: bits, bytes, blocks cut out, doubled or put in from another input, a cut at the end."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        if rng.random() < 0.5:  # headers decide the most
            place = min(place, rng.randrange(64))
        length = rng.choice((1, 1, 2, 4, 8, rng.randint(1, 64), rng.randint(1, 4096)))
        other = rng.choice(others) if others else data
        match rng.randrange(8):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                chosen = rng.choice(BYTES)
                changed[place : place + len(chosen)] = chosen
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                start = rng.randrange(len(other) + 1)
                changed[place : place + length] = other[start : start + length]
            case 5:
                del changed[max(1, place) :]
            case 6:
                changed[place:place] = rng.randbytes(min(length, 16))
            case _:
                number = rng.choice((0, 1, rng.getrandbits(8), rng.getrandbits(16), rng.getrandbits(32), 2**32 - 1))
                changed[place : place + 4] = number.to_bytes(4, rng.choice(("little", "big")))
    return bytes(changed)


def mutate_json(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change values, keys and structure of a document; now and then its text."""
    if rng.random() < 0.1:
        return mutate_bytes(data, rng, others)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng, others)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = mutate_value(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.02:
        text = text.replace("{", rng.choice(('{"a":' * 3000, "[" * 50_000, "{")), 1)
    return text.encode("utf-8", "surrogatepass")


def mutate_value(value: Any, rng: Random) -> Any:
    """The document with one node changed, each node as likely as any other."""
    nodes = list(_nodes(value))
    if not nodes:
        return _instead(value, rng)
    holder, key = rng.choice(nodes)
    match rng.randrange(8):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 0:
            holder.insert(key, holder[key])
        case 1 if isinstance(holder, dict):
            holder[rng.choice((f"{key}x", "", *map(str, holder)))] = holder.pop(key)
        case 2:
            other_holder, other = rng.choice(nodes)
            if not _inside(holder, other_holder[other]):
                holder[key] = other_holder[other]
        case _:
            holder[key] = _instead(holder[key], rng)
    return value


def _nodes(value: Any) -> Any:
    """(container, key) of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in list(items):
        yield value, key
        yield from _nodes(inside)


def _inside(holder: Any, value: Any) -> bool:
    return value is holder or any(container is holder for container, _ in _nodes(value))


def _instead(value: Any, rng: Random) -> Any:
    """Something else in its place, most often of its own type."""
    if isinstance(value, str) and rng.random() < 0.6:
        return mutate_text(value, rng, TEXTS)
    if isinstance(value, (int, float)) and rng.random() < 0.7:
        return rng.choice((*NUMBERS, value + 1, value - 1, value * 2, -value, value * 1000))
    things: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(TEXTS),
        lambda: rng.choice((None, True, False, [], {}, [[]], {"": None})),
        lambda: [value] * rng.choice((1, 2, 1000)),
        lambda: {"x": value},
    )
    return rng.choice(things)()


def mutate_text(text: str, rng: Random, words: Sequence[str]) -> str:
    """Words put in, parts cut out, doubled, or repeated."""
    place = rng.randrange(len(text) + 1)
    end = min(len(text), place + rng.choice((0, 1, 3, 10, 50)))
    match rng.randrange(5):
        case 0:
            return text[:place] + text[end:]
        case 1:
            return text[:end] + text[place:end] * rng.choice((1, 2, 100)) + text[end:]
        case 2:
            return (
                text[:place]
                + chr(rng.choice((rng.randrange(128), rng.randrange(0xD800), 0xD800, 0x1F600)))
                + text[end:]
            )
        case _:
            return text[:place] + rng.choice(words) + text[end:]


def mutate_words(words: list[str], rng: Random, known: Sequence[str]) -> list[str]:
    """A command line with words more, fewer, doubled, exchanged or misspelt."""
    changed = list(words)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                del changed[place : place + 1]
            case 1:
                changed.insert(place, rng.choice(changed or [""]))
            case 2 if place < len(changed):
                changed[place] = mutate_text(changed[place], rng, TEXTS)
            case _:
                changed[place : place + rng.randrange(2)] = [rng.choice(known)]
    return changed


def as_text(data: bytes) -> str:
    """What a file of text may hold, half surrogates included."""
    return (
        data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace")
        if _decodes(data)
        else data.decode("latin-1")
    )


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
