"""JSON as every reader takes it: Python would write NaN and Infinity, which are not JSON."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

log = logging.getLogger(__name__)

SHOWN = 3


class Record(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def plain(record: Record) -> dict[str, Any]:
    """A dataclass, and those in it, as dictionaries; paths as text."""
    return asdict(record, dict_factory=_with_paths_as_text)


def json_text(payload: Mapping[str, Any], indent: int = 2) -> str:
    """`payload` as JSON, in ASCII, so that any device's locale can print it.

    A number that is not finite becomes null, and a warning says where: a result of hours is not lost for one figure.
    """
    places = list(_not_finite(payload, ""))
    if places:
        shown = ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
        log.warning("not a finite number, null in the JSON: %s", shown)
    return json.dumps(_finite(payload) if places else payload, indent=indent, allow_nan=False)


def _with_paths_as_text(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in items}


def _not_finite(value: Any, place: str) -> Iterator[str]:
    """Where in `value` the numbers are that are not finite, as a.0.b."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    for name, item in _items(value):
        yield from _not_finite(item, f"{place}.{name}" if place else str(name))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _items(value: Any) -> Iterator[tuple[Any, Any]] | Sequence[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return tuple(value.items())
    return enumerate(value) if isinstance(value, list | tuple) else ()
