"""Chat templates by name: how published checkpoints write a conversation, for those that bring no template.

One `.jinja` file per template, its name the key it is found by. They take content as a list of parts.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from edgevlm_runtime.errors import ExportError

SUFFIX = ".jinja"
NAMES = tuple(
    sorted(file.name.removesuffix(SUFFIX) for file in files(__name__).iterdir() if file.name.endswith(SUFFIX))
)
LARGEST = 1 << 20
"""Bytes of a template of the user's."""
_CONTROL = re.compile(r"<[|\w]+>")


@cache
def named(name: str) -> str:
    """The template of this name, which is one of `NAMES`."""
    return files(__name__).joinpath(name + SUFFIX).read_text(encoding="utf-8")


def control_tokens(name: str) -> frozenset[str]:
    """Control tokens that the template of this name writes: a tokenizer that lacks one belongs to other models."""
    return frozenset(_CONTROL.findall(re.sub(r"{#.*?#}", "", named(name), flags=re.DOTALL)))


def resolve(given: str) -> str:
    """The template that a user means: one of `NAMES`, or a file. Raises `ExportError`."""
    if given in NAMES:
        return named(given)
    path = Path(given).expanduser()
    choices = f"pass a file, or one of {', '.join(NAMES)}"
    try:
        if not path.is_file():
            raise ExportError(f"no such chat template: {given}: {choices}")
        if path.stat().st_size > LARGEST:
            raise ExportError(f"not a chat template: {given} has more than {LARGEST} bytes: {choices}")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read the chat template: {given}: {error}: {choices}") from error
    if not text.strip():
        raise ExportError(f"not a chat template: {given} is empty: {choices}")
    return text
