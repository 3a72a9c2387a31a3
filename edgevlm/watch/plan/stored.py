"""A plan kept beside the records that were made by it, with all that asking again needs: masks and golden pictures too.

keep(plan, records_file)                  # when a watch begins, and when its plan is exchanged
plan = find(records_file, record.plan)    # months later

records.plan-0123456789abcdef.json             the plan: JSON, passwords and tokens left out
records.plan-0123456789abcdef.89ab4567.png     a picture that it names
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.links.urls import shown
from edgevlm.watch.plan.plan import Deadline, Part, Plan, Reuse
from edgevlm.watch.plan.secrets import HEADERS, is_secret
from edgevlm.watch.records import files
from edgevlm.watch.rules import RULES
from edgevlm_runtime.errors import EdgeVLMError, one_line
from edgevlm_runtime.reading import known, read_json, why
from edgevlm_runtime.saving import write_atomic

FORMAT = 1
ASKED = ("regions", "golden", "system", "questions", "order")
"""What verdicts come from: kept to the letter, with the files it names."""
_T = TypeVar("_T")


def keep(plan: Plan, records_file: Path) -> Path:
    """Write the plan beside its records, unless it is there. Raises `EdgeVLMError` when that cannot be."""
    file = files.plan(records_file, plan.digest)
    if not file.exists():
        write_atomic(file, to_json(plan, partial(_copy, file)))
    return file


def is_kept(records_file: Path, digest: str) -> bool:
    """Whether the plan is there."""
    return files.plan(records_file, digest).is_file()


def find(records_file: Path, digest: str) -> Plan:
    """The plan that records in `records_file` name by `digest`. Raises `EdgeVLMError` where it was not kept."""
    file = files.plan(records_file, digest)
    try:
        found = read_json(file, dict[str, Any], "kept plan")
    except FileNotFoundError:
        raise EdgeVLMError(f"the plan of these records is not there: {file}: name it with --plan") from None
    if found.get("digest") != digest:
        raise EdgeVLMError(f"{file} is another plan than the records name: name theirs with --plan")
    return from_json(found, file)


def to_json(plan: Plan, copy: Callable[[Path], str]) -> str:
    """`copy` keeps a file that questions need, and gives the name to write for it."""
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    plain = {
        name: _plain(value, copy) if name in ASKED else without_secrets(_plain(value, _absolute))
        for name, value in fields.items()
    }
    return json.dumps({"format": FORMAT, **plain}, indent=1) + "\n"


def without_secrets(value: Any) -> Any:
    """Plain data without passwords, tokens and headers, and addresses in it as they are shown."""
    if isinstance(value, dict):
        return {name: without_secrets(item) for name, item in value.items() if not is_secret(name) and name != HEADERS}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _address(value) if isinstance(value, str) else value


def _address(text: str) -> str:
    return shown(text) if "://" in text else text


def from_json(data: Mapping[str, Any], file: Path) -> Plan:
    """The plan of `to_json`, kept in `file`. What it takes pictures from and sends verdicts to is left as plain data:
    the passwords are not there, and nobody opens them again.

    Raises `EdgeVLMError` for what is no plan, or one of a newer edgevlm.
    """
    if data.get("format") != FORMAT:
        raise EdgeVLMError(f"{file}: a plan in format {data.get('format')}, this edgevlm knows {FORMAT}: upgrade it")
    read = partial(_convert, file)
    try:
        return Plan(
            name=read(data["name"], str),
            bundle=read(data["bundle"], Path),
            loading=read(data["loading"], dict[str, Any]),
            source=read(data["source"], Part),
            trigger=read(data["trigger"], Part),
            sinks=read(data["sinks"], tuple[Part, ...]),
            regions=read(data["regions"], tuple[Region, ...]),
            golden=read(data["golden"], Golden | None),  # type: ignore[arg-type]
            system=read(data["system"], str | None),  # type: ignore[arg-type]
            questions=tuple(_question(one, read) for one in data["questions"]),
            order=read(data["order"], tuple[str, ...]),
            deadline=read(data["deadline"], Deadline),
            reuse=read(data["reuse"], Reuse),
            digest=read(data["digest"], str),
        )
    except (KeyError, TypeError) as error:
        raise EdgeVLMError(f"{file}: not a kept plan: {one_line(error)}") from error


def _question(data: Mapping[str, Any], read: Callable[[Any, type[Any]], Any]) -> Question:
    options = read(data["options"], RULES.get(data["kind"]).Options)
    question: Question = dataclasses.replace(read(data, Question), options=options)
    return question


def _convert(file: Path, data: Any, kind: type[_T]) -> _T:
    def path(kind: type[Any], value: Any) -> Any:
        if kind is not Path:
            raise NotImplementedError(kind)
        return file.with_name(value) if str(value).startswith(f"{file.stem}.") else Path(value)

    try:
        return msgspec.convert(data, known(kind), dec_hook=path)
    except msgspec.MsgspecError as error:
        raise EdgeVLMError(f"{file}: not a kept plan: {one_line(error)}") from error


def _plain(value: Any, copy: Callable[[Path], str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item, copy) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, copy) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item, copy) for item in value)
    if isinstance(value, Path):
        return copy(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 -- links stay as written


def _copy(file: Path, picture: Path) -> str:
    """Keep a picture beside the plan's `file`; its name there."""
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise EdgeVLMError(f"cannot read {picture}: {why(error)}") from error
    name = f"{file.stem}.{hashlib.sha256(data).hexdigest()[:8]}{picture.suffix}"
    write_atomic(file.with_name(name), data)
    return name
