"""What transformers answers, computed once in a run of the tests: many files ask one checkpoint the same.

Its own model and generate() give every answer; what is kept is found by all that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from edgevlm_export.reference import Reference, ReferenceAnswer
from tests.support import shared

_T = TypeVar("_T")


class Remembered(Reference):
    """A reference that was given no template and asks with opened pictures. `load` makes it."""

    def answer(self, question: Any, images: Sequence[Any] = (), **options: Any) -> ReferenceAnswer:
        """See `Reference.answer`."""
        return self._once(
            ["answer", question, options], images, lambda: Reference.answer(self, question, images, **options)
        )

    def prompt_logits(self, question: Any, images: Sequence[Any] = (), continuation: Sequence[int] = ()) -> Any:
        """See `Reference.prompt_logits`."""
        asked = ["logits", question, list(continuation)]
        return self._once(asked, images, lambda: Reference.prompt_logits(self, question, images, continuation))

    def _once(self, asked: list[object], images: Sequence[Image.Image], compute: Callable[[], _T]) -> _T:
        digest = hashlib.sha256(f"{self.model.dtype} {self._checkpoint} {json.dumps(asked)}".encode())
        for image in images:
            digest.update(f"{image.mode} {image.size} {image.getexif().tobytes()!r}".encode() + image.tobytes())
        made = shared.once(
            f"reference-{digest.hexdigest()[:32]}", lambda path: path.write_bytes(pickle.dumps(compute()))
        )
        return pickle.loads(made.read_bytes())  # type: ignore[no-any-return]

    @functools.cached_property
    def _checkpoint(self) -> str:
        """Of all of its files."""
        digest = hashlib.sha256()
        for file in sorted(Path(self.folder).rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(self.folder).as_posix()} ".encode() + file.read_bytes())
        return digest.hexdigest()
