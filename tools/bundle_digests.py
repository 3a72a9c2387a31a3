"""Digests of the bundles that a checkout makes, and their answers: two checkouts that make the same bundles agree.

    python -m tools.bundle_digests before.json             # in the older checkout
    python -m tools.bundle_digests after.json before.json  # in the newer one: compares, exits with 1 on a difference

Weights (`*.data`, `*.npy`) of float32, int8 and int4 bundles of `inspector` and of tiny random models, and the tokens
of four answers each. Manifests differ by their versions and are left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PRECISIONS = ("fp32", "int8", "int4")
QUESTIONS = ("Is the part defective?", "Where is the defect?")
SIZES = ((96, 96), (60, 131))


def digests(folder: Path) -> dict[str, Any]:
    """By model and precision: digests of the weight files, and answers."""
    import edgevlm_runtime
    from edgevlm_export.api import ExportOptions, export
    from edgevlm_runtime.bundle.folder import file_sha256

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]
    found: dict[str, Any] = {}
    for name, model in _models(folder).items():
        for precision in PRECISIONS:
            bundle = folder / f"{name}-{precision}"
            export(ExportOptions(model, bundle, precision, certificate=False, self_test=False))
            weights = sorted(file for file in bundle.rglob("*") if file.suffix in (".data", ".npy"))
            vlm = edgevlm_runtime.load(bundle, threads=2)
            answers = [
                list(vlm.ask(picture, question, max_new_tokens=16).token_ids)
                for picture in pictures
                for question in QUESTIONS
            ]
            files = {str(file.relative_to(bundle)): file_sha256(file) for file in weights}
            found[f"{name} {precision}"] = {"files": files, "answers": answers}
    return found


def _models(folder: Path) -> dict[str, str]:
    from tests.support import checkpoints

    builders: dict[str, Callable[..., Path]] = {
        "llava": checkpoints.llava,
        "smolvlm": checkpoints.smolvlm,
        "qwen2_5_vl": checkpoints.qwen2_5_vl,
    }
    tiny = {name: str(build(folder / "checkpoints" / name)) for name, build in builders.items()}
    return {"inspector": "inspector", **tiny}


def main() -> int:
    """Write the digests; with a second file, say where the two differ."""
    with tempfile.TemporaryDirectory() as folder:
        found = digests(Path(folder))
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1), encoding="utf-8")
    if len(sys.argv) < 3:
        return 0
    before = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    differ = sorted(name for name in {*before, *found} if before.get(name) != found.get(name))
    print("\n".join(f"different: {name}" for name in differ) or f"{len(found)} bundles, all the same")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
