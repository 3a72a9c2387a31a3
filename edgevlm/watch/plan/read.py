"""A plan from its TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevlm.watch.plan.build import build
from edgevlm.watch.plan.faults import Fault
from edgevlm.watch.plan.lines import line_of
from edgevlm.watch.plan.plan import Plan
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.reading import read_text, why

LARGEST = 1 << 20
"""Bytes of a plan, at most."""


def read(file: Path, overriding: Mapping[str, Any] | None = None) -> Plan:
    """The plan in `file`; relative paths in it are those of its folder.

    `overriding`: what goes before the file's own, as a plan's data; tables are joined, key by key.

    Raises `EdgeVLMError` in one line: file, line, key, what is wrong and what is allowed.
    """
    text = _text(file)
    data = _data(file, text)
    try:
        return build(_joined(data, overriding or {}), file.parent)
    except Fault as fault:
        line = line_of(text, fault.place)
        where = f"{file}: line {line}" if line else f"{file}"
        raise EdgeVLMError(f"{where}: {fault}") from None


def _joined(data: dict[str, Any], overriding: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(data)
    for key, value in overriding.items():
        both = isinstance(value, dict) and isinstance(own := data.get(key, {}), dict)
        joined[key] = {**own, **value} if both else value
    return joined


def _text(file: Path) -> str:
    try:
        return read_text(file, LARGEST).removeprefix("\ufeff").replace("\r\n", "\n")
    except FileNotFoundError:
        advice = f"edgevlm watch init {file} writes an example"
        raise EdgeVLMError(f"no such plan: {file}: {advice}") from None
    except OSError as error:
        raise EdgeVLMError(f"cannot read the plan {file}: {why(error)}") from None


def _data(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise EdgeVLMError(f"{file}: not a plan: it is nested too deeply") from None
    except ValueError as error:  # `TOMLDecodeError`, and numbers of more digits than Python reads
        raise EdgeVLMError(f"{file}: not TOML: {one_line(error)}") from None
