"""What every reader is, and how a table's row becomes a `Row`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgevlm.bulk.readers.places import beside
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError

_DATA_URI = "data:"


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns; None takes the usual name where there is such a column."""

    image: str | None = None
    id: str | None = None
    question: str | None = None


class Reader(Protocol):
    """An input. Plain data, so that it can be sent to other machines."""

    def total(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        ...

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Every row from number `first` on. A bad one has an error; raises `EdgeVLMError` where none can be read."""
        ...


def find_columns(given: Columns, there: Sequence[str], place: str) -> Columns:
    """The columns to read. Raises `EdgeVLMError`, naming those that are there."""
    wanted = {"image": given.image, "id": given.id, "question": given.question}
    for what, name in wanted.items():
        missing = name is not None and name not in there
        if missing or (what == "image" and name is None and what not in there):
            raise EdgeVLMError(
                f"no column {name or what!r} in {place}: it has {', '.join(map(repr, there[:20])) or 'none'}: "
                f"name the right one with --{what}-column"
            )
    found = {what: name or (what if what in there else None) for what, name in wanted.items()}
    return Columns(**found)


def table_row(number: int, cells: Mapping[str, Any], columns: Columns, place: str) -> Row:
    """A row of the table at `place`; one that cannot be asked has an error."""
    assert columns.image is not None
    error, picture = None, cells.get(columns.image)
    image, data = _picture(picture)
    if image is None and data is None:
        error = f"no picture in column {columns.image!r}" if _empty(picture) else f"no picture: {str(picture)[:80]!r}"
    identity = number + 1 if columns.id is None else cells.get(columns.id)
    if _empty(identity) or isinstance(identity, (dict, list)):
        error, identity = f"no id in column {columns.id!r}", f"row {number + 1}"
    question = None if columns.question is None else cells.get(columns.question)
    if question is not None and not isinstance(question, str):
        error, question = f"no text in column {columns.question!r}", None
    where = None if image is None else beside(place, image)
    return Row(number, _text(identity), image, where, data, question or None, error)


def bad_row(number: int, error: str) -> Row:
    """A row of which nothing can be read."""
    return Row(number, f"row {number + 1}", error=error)


def _picture(cell: Any) -> tuple[str | None, bytes | None]:
    """A cell's path and bytes. Columns of pictures as Hugging Face's datasets write them have both."""
    if isinstance(cell, dict):
        path, data = cell.get("path"), cell.get("bytes")
        if isinstance(data, bytes) and data:
            return (path if isinstance(path, str) and path else None), data
        cell = path
    if isinstance(cell, bytes) and cell:
        return None, cell
    if isinstance(cell, str) and cell[: len(_DATA_URI)].lower() == _DATA_URI:
        return None, _decoded(cell)
    return (_text(cell) if isinstance(cell, str) and cell else None), None


def _decoded(uri: str) -> bytes | None:
    head, _, body = uri.partition(",")
    if not head.lower().endswith(";base64"):
        return None
    try:
        return base64.b64decode(body, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _empty(cell: Any) -> bool:
    return cell is None or cell in ("", b"")


def _text(value: Any) -> str:
    """As text that can be written as UTF-8: half a surrogate pair may stand in JSON."""
    return str(value).encode("utf-8", "replace").decode()
