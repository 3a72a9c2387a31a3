"""Bundles of tiny models, exported once in a run of the tests."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.support import shared

SAID_BY_OTHERS = ("model", "output", "force")
"""Options whose words say nothing about the bundle: the checkpoint's files do."""


def exported(options: Any) -> Path:
    """The bundle that `options` ask for, a copy of its own. What is given to every test shall not depend on a test:
    one that changes how the exporter works exports by itself.
    """
    from edgevlm_export.api import export

    def make(folder: Path) -> None:
        export(type(options)(**{**_given(options), "output": folder}))

    return Path(shutil.copytree(shared.once(f"bundle-{_key(options)}", make), options.folder))


def _given(options: Any) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(options)}


def _key(options: Any) -> str:
    """The checkpoint's files, those to calibrate with, and what is asked for."""
    asked = {name: value for name, value in _given(options).items() if name not in SAID_BY_OTHERS}
    digest = hashlib.sha256(repr([options.name, asked, options.plan]).encode())
    for folder in filter(None, (Path(options.model), options.calibrate)):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(folder).as_posix()} ".encode() + file.read_bytes())
    return digest.hexdigest()[:32]
