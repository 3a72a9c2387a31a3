"""What names a plan: the digest of all that it says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.plan.secrets import HEADERS, is_secret, without_user
from edgevlm.watch.plan.tables import names

LEFT_OUT = ("digest", HEADERS)


def digest(plan: Plan, folder: Path) -> str:
    """sha256 of the plan as canonical JSON: keys sorted, defaults written out, passwords, tokens and headers left out.

    Of masks, golden pictures and files of questions it has the contents, since those change verdicts. Paths below
    `folder`, the plan's, are taken from there, so that a folder with a plan and its pictures may be moved.
    """
    contents = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures(plan)}
    text = json.dumps(_plain(plan, folder, contents), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def pictures(plan: Plan) -> list[Path]:
    """Masks, golden pictures, and files of questions: what is to be read again when it changes."""
    masks = [region.mask for region in plan.regions]
    options = [getattr(one.options, name) for one in plan.questions for name in names(type(one.options))]
    found = [*masks, *(plan.golden.images if plan.golden else ()), *options]
    return [path for path in found if isinstance(path, Path)]


def _plain(value: Any, folder: Path, contents: Mapping[Path, str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        kept = {str(name): item for name, item in value.items() if not is_secret(str(name)) and name not in LEFT_OUT}
        return {name: _plain(item, folder, contents) for name, item in kept.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item, folder, contents) for item in value]
        return sorted(items) if isinstance(value, set | frozenset) else items
    if isinstance(value, Path):
        return contents.get(value) or _from(folder, value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int):
        return value
    return without_user(str(value))


def _from(folder: Path, path: Path) -> str:
    """`path` as it is seen from the plan, where it is near it; else whole."""
    whole, top = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100 -- links stay as written
    return whole.relative_to(top).as_posix() if whole.is_relative_to(top) else whole.as_posix()
