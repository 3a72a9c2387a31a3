"""The commented plan that `edgevlm watch init` writes: `sample.toml`, beside this file, with a folder of its own."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

from edgevlm_runtime.saving import check_file, write_atomic


def text() -> str:
    """Every table with its keys, their defaults, and examples."""
    return resources.files(__package__).joinpath("sample.toml").read_text(encoding="utf-8")


def write(file: Path) -> None:
    """Write it to `file`, which must not be there yet. Raises `EdgeVLMError`."""
    check_file(file, remedy="choose another name, or move it away: a plan is not overwritten")
    name = shlex.quote(str(file)) if str(file).isprintable() else "PLAN"
    write_atomic(file, text().replace("PLAN", name))
