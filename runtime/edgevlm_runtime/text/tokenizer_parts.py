"""What is known of a tokenizer from its parts alone, before a text is given to it.

`longest_growth` says how many times longer than its text anything within the tokenizer may become: a chain of harmless
replacements doubles a text forty times. `TokenCount` says how few tokens a text can have: what cannot fit the context
is refused by it, since to tokenize ten megabytes takes two gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

Part: TypeAlias = "dict[str, Any]"
_SEQUENCES = ("normalizers", "pretokenizers", "decoders", "processors")
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_ADDED = 4096
_SLICE = 1 << 20
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
UNKNOWN_CHARACTERS_A_TOKEN = 1024
"""Where a tokenizer drops or joins characters in a way not known here, a token is taken for no more than these."""


def part_of(component: Any) -> list[Part]:
    """A normalizer, pre-tokenizer, decoder or post-processor of the tokenizers library, its sequences laid flat."""
    if component is None:
        return []
    return list(_flat(json.loads(component.__getstate__())))


def _flat(part: Part) -> Iterator[Part]:
    for name in _SEQUENCES:
        if part.get("type") == "Sequence" and name in part:
            for one in part[name]:
                yield from _flat(one)
            return
    yield part


def longest_growth(parts: list[Part]) -> float:
    """How many times longer than a text what a chain of parts makes of it may be, in bytes. What parts add to any text
    counts for one time its length when it has `_ADDED` bytes."""
    times, added = 1.0, 0.0
    for part in parts:
        grow = _GROWTH.get(str(part.get("type")))
        more = 1.0 if grow is None else max(1.0, grow(part))
        times, added = times * more, added * more + _bytes_added(part)
    return times + added / _ADDED


def _bytes_added(part: Part) -> int:
    pieces = part.get("single")
    special = sum("SpecialToken" in piece for piece in pieces) if isinstance(pieces, list) else 0
    return len(part.get("prepend", "").encode()) + special


def _replaced(part: Part) -> float:
    old, new = part["pattern"].get("String", "").encode(), part["content"].encode()
    return len(new) / len(old) if old else 1.0 + len(new)  # a regular expression may match nothing, as "" does


def _precompiled(part: Part) -> float:
    """SentencePiece's table: a replacement is one of the texts in it, each of which ends with a zero."""
    try:
        table = base64.b64decode(part["precompiled_charsmap"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return 1.0
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return float(max(map(len, texts.split(b"\0"))))


def _templated(part: Part) -> float:
    return float(sum("Sequence" in piece for piece in part["single"]))


_GROWTH: dict[str, Callable[[Part], float]] = {
    "BertNormalizer": lambda part: 6.0,
    "ByteLevel": lambda part: 2.0,
    "Lowercase": lambda part: 1.5,
    "Metaspace": lambda part: 3.0,
    "NFC": lambda part: 3.0,
    "NFD": lambda part: 4.0,
    "NFKC": lambda part: 11.0,
    "NFKD": lambda part: 11.0,
    "Precompiled": _precompiled,
    "Replace": _replaced,
    "TemplateProcessing": _templated,
}
"""Type of a part to how many times longer it makes a text, at most; others do not make it longer."""


class TokenCount:
    """How few tokens a text can have: each token stands for so many characters at most. Safe from any thread."""

    def __init__(self, backend: Any) -> None:
        """`backend`: a tokenizer of the tokenizers library."""
        normalizers, splitters = part_of(backend.normalizer), part_of(backend.pre_tokenizer)
        self._steps = [_step(part) for part in (*normalizers, *splitters)]
        added = list(backend.get_added_tokens_decoder().values())
        self._spaces_vanish = any(part.get("type") in _SPACE_EATERS for part in (*normalizers, *splitters)) or any(
            token.lstrip or token.rstrip for token in added
        )
        self._bytes = any(part.get("type") == "ByteLevel" for part in (*normalizers, *splitters))
        vocabulary = backend.get_vocab(with_added_tokens=True)
        whole = vocabulary.keys() >= set(_ALPHABET) if self._bytes else _falls_back_to_bytes(backend.model, vocabulary)
        self.known = whole and all(step is not None for step in self._steps)
        """Whether every character of a text is part of some token."""
        self._longest: Counter[str] = Counter()
        if self.known:
            begun = "".join(part.get("prepend", "") for part in normalizers)  # before an added token's content too
            contents = {text for token in added for text in (token.content, begun + self._stepped(token.content))}
            contents |= {self._stepped(begun + token.content) for token in added}
            for token in {*vocabulary, *contents, *(_as_bytes(text) for text in contents if self._bytes)}:
                for character in set(token):
                    self._longest[character] = max(self._longest[character], len(token))

    def least(self, text: str) -> int:
        """Tokens that `text` has at least, special ones that the tokenizer adds apart."""
        if not self.known:
            return len(text) // UNKNOWN_CHARACTERS_A_TOKEN
        text = self._stepped(text)
        counts = _count_bytes(text) if self._bytes else Counter(text)
        return int(
            sum(
                count / max(1, self._longest[character])
                for character, count in counts.items()
                if not (self._spaces_vanish and _is_space(character, self._bytes))
            )
        )

    def _stepped(self, text: str) -> str:
        for step in self._steps:
            text = text if step is None else step(text)
        return text


def _same(text: str) -> str:
    return text


def _normalize(form: str) -> Callable[[str], str]:
    def normalized(text: str) -> str:
        return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)  # type: ignore[arg-type]

    return normalized


def _step(part: Part) -> Callable[[str], str] | None:
    """What a part does to the characters of a text, additions left out; None where that is not known."""
    kind = part.get("type")
    if kind in _FORMS:
        return _normalize(str(kind))
    if kind == "Metaspace":
        return lambda text: text.replace(" ", part["replacement"])
    if kind == "Replace":
        old, new = part["pattern"].get("String"), part["content"]
        return (lambda text: text.replace(old, new)) if old and new else None
    keeps = kind in _KEEPERS and part.get("behavior") != "Removed"
    return _same if keeps or kind in _SPACE_EATERS else None


_KEEPERS = frozenset(("ByteLevel", "Digits", "FixedLength", "Prepend", "Punctuation", "Split", "UnicodeScripts"))
_SPACE_EATERS = frozenset(("Strip", "Whitespace", "WhitespaceSplit"))


def _falls_back_to_bytes(model: Any, vocabulary: dict[str, int]) -> bool:
    """Whether characters that the vocabulary does not have are written in bytes, rather than joined or dropped."""
    told = getattr(model, "byte_fallback", None)
    if told is None:  # Unigram does not tell
        told = json.loads(model.__getstate__()).get("byte_fallback", False)
    return bool(told) and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))


def _byte_alphabet() -> list[str]:
    """The characters that stand for bytes in byte-level vocabularies, as GPT-2 chose them."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


_ALPHABET = _byte_alphabet()


def _as_bytes(text: str) -> str:
    return "".join(_ALPHABET[byte] for byte in text.encode())


def _count_bytes(text: str) -> dict[str, int]:
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    counts = np.zeros(256, np.int64)
    for start in range(0, data.size, _SLICE):  # numpy counts wider numbers
        counts += np.bincount(data[start : start + _SLICE], minlength=256)
    return {_ALPHABET[byte]: int(count) for byte, count in enumerate(counts) if count}


def _is_space(character: str, in_bytes: bool) -> bool:
    """In bytes, any that could be part of a space."""
    if in_bytes:
        byte = _ALPHABET.index(character)
        return byte >= 0x80 or chr(byte).isspace()
    return character.isspace() or character == _SPACE


def _alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes as: what prints stands for itself, others are moved up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(0x100) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(moved)}


_LETTERS = _alphabet()


def bytes_of(token: str) -> bytes | None:
    """The bytes of a token of a byte-level tokenizer; None where it is another's."""
    found = [_LETTERS.get(letter) for letter in token]
    return None if None in found else bytes(byte for byte in found if byte is not None)
