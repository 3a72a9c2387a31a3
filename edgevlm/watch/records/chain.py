"""Records as lines of JSON, each sealed by the digest of its own bytes and of the line before.

    {"schema":1,"number":7,...,"previous":"<sha256 of record 6>","sha256":"<of this line without this field>"}

`sha256` is the last field, so that anybody can check a line without this package:

    sed -n 7p records.jsonl | sed 's/,"sha256":"[0-9a-f]*"}$/}/' | tr -d '\\n' | sha256sum

Whoever may write the file can seal all of it again: what leaves the machine (a sink's copy of a record, a printed
digest) is what a chain is held against in the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from edgevlm.watch.records.record import SCHEMA, Record
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.reading import known

FIRST = "0" * 64
"""What the first record has for `previous`."""
LONGEST = 16 << 20
"""Bytes of a line, at most."""
_SEAL = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\n?\Z')


_T = TypeVar("_T")


class TooNew(EdgeVLMError):
    """A record of a schema that this version does not know."""


@dataclass(frozen=True, slots=True)
class Link:
    """What the chain is made of, read without the rest of the line."""

    schema: int
    number: int
    previous: str
    sha256: str


def seal(record: Record) -> tuple[Record, bytes]:
    """The record with its digest, and its line with the end of line."""
    body = _body(record)
    digest = hashlib.sha256(body).hexdigest()
    return replace(record, sha256=digest), body[:-1] + f',"sha256":"{digest}"}}\n'.encode()


def holds(line: bytes) -> bool:
    """Whether a line's digest is that of its bytes."""
    found = _SEAL.search(line)
    return found is not None and hashlib.sha256(line[: found.start()] + b"}").hexdigest().encode() == found[1]


def link(line: bytes) -> Link:
    """Raises `ValueError` for what is not a record's line, `TooNew`."""
    return _convert(line, Link)


def decode(line: bytes) -> Record:
    """A line as a record; whether it is sealed, `holds` says. Raises `ValueError` for what is none, `TooNew`."""
    return _convert(line, Record)


def _convert(line: bytes, kind: type[_T]) -> _T:
    """A record of ours whose schema alone was altered is ours: it is no longer sealed, and reads as before."""
    newer: TooNew | None = None
    try:
        found = json.loads(line)
        newer = _newer(found)
        if newer is not None and holds(line):
            raise newer
        return msgspec.convert(found, known(kind))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise newer or ValueError(one_line(error)) from error


def _newer(found: object) -> TooNew | None:
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, int) or schema <= SCHEMA:
        return None
    return TooNew(f"schema {schema} is of a newer edgevlm, this one knows {SCHEMA}: upgrade edgevlm")


def _body(record: Record) -> bytes:
    fields = msgspec.to_builtins(record, enc_hook=_plain)
    del fields["sha256"]
    try:
        return _dump(fields)
    except ValueError:  # a number that is not finite, which JSON has no word for
        for answer in fields["answers"]:
            found = answer["probabilities"]
            answer["probabilities"] = {name: value for name, value in found.items() if math.isfinite(value)}
        return _dump(_finite(fields))


def _dump(fields: Any) -> bytes:
    """In ASCII, so that any text there can be, half a surrogate pair too, comes back as it was."""
    return json.dumps(fields, separators=(",", ":"), allow_nan=False, default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's; anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
