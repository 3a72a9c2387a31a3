"""A bundle's manifest, its digest in order: the bundle is loaded and asked a question."""

from __future__ import annotations

import hashlib
from pathlib import Path

import edgevlm_runtime
from edgevlm_runtime.bundle.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME
from fuzz.mutate import mutate_json as mutate
from tests.runtime.conftest import make_bundle

__all__ = ["Surface", "mutate"]


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        self._bundle = make_bundle(folder / "bundle")

    def run(self, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        (self._bundle / MANIFEST_NAME).write_bytes(data)
        (self._bundle / MANIFEST_DIGEST_NAME).write_text(f"{digest}  {MANIFEST_NAME}\n", encoding="ascii")
        vlm = edgevlm_runtime.load(self._bundle, threads=1, verify="size")
        with vlm.session(Path(__file__).parents[1] / "corpus/image/rgb.png") as session:
            session.ask("what is this", max_new_tokens=2)
            session.choose("is this a part", ["yes", "no"])
