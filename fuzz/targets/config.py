"""A checkpoint's JSON files, up to the point where graphs are traced: one JSON object, file name to content."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plans import choose
from fuzz.mutate import mutate_bytes, mutate_json
from tests.support import checkpoints

MAKERS = {"llava": checkpoints.llava, "smolvlm": checkpoints.smolvlm, "qwen2_5_vl": checkpoints.qwen2_5_vl}


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """One file's document, or, rarely, the whole."""
    try:
        files = json.loads(data)
        name = rng.choice(sorted(files["files"]))
        content = json.dumps(files["files"][name]).encode()
        changed = mutate_json(content, rng)
        return json.dumps({**files, "files": {**files["files"], name: json.loads(changed)}}).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return mutate_bytes(data, rng, others)


class _Enough(BaseException):
    """Planning turns every `Exception` into an error of ours."""


class Surface:
    """See `fuzz.targets`. The family's tiny checkpoint is there; the input's files take the place of its own."""

    def __init__(self, folder: Path) -> None:
        self._made = {name: make(folder / name) for name, make in MAKERS.items()}

    def run(self, data: bytes) -> None:
        try:
            given = json.loads(data)
            folder, files = self._made[given["family"]], dict(given["files"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            folder, files = self._made["llava"], {"config.json": data}
        before = {name: (folder / name).read_bytes() for name in files if _plain(name) and (folder / name).is_file()}
        try:
            for name in before:
                (folder / name).write_bytes(_bytes(files[name]))
            plan_export(folder, choose("fp32"), None, _stop_at_tracing)
        except _Enough:
            pass
        finally:
            for name, content in before.items():
                (folder / name).write_bytes(content)


def _stop_at_tracing(stage: str, done: int, total: int) -> None:
    if stage == "tracing":
        raise _Enough


def _bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode("utf-8", "surrogatepass")


def _plain(name: str) -> bool:
    """Whether it is one of the checkpoint's own small files."""
    return name.endswith(".json") and "/" not in name and "\0" not in name and len(name) < 80
