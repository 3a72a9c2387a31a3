"""What an export calibrates with: text, and questions about images.

A caller's folder holds text files, or images with a questions file as `edgevlm eval` reads it (docs/eval.md), or both.
What it does not hold comes from what ships: English from Python's reference manual, and the inspection images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edgevlm_export import inspection
from edgevlm_export.streaming.samples import part
from edgevlm_runtime.checks import question_file
from edgevlm_runtime.errors import EdgeVLMError, ExportError, ImageError, reason
from edgevlm_runtime.images import load_image
from edgevlm_runtime.reading import MIB, read_text, why

logger = logging.getLogger(__name__)

TEXTS = frozenset({".txt", ".md", ".jsonl", ".json"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
LARGEST_TEXT = 64 * MIB
"""Bytes of a text file; calibration takes some ten thousand tokens."""
ANY_QUESTION = "Describe this image."
"""Asked about images that come without questions."""
SHIPPED = 64
"""Inspection images there are where the caller gives none."""


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A question about images, with its answer where it is known."""

    images: tuple[Path | Image.Image, ...]
    question: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """Sources of samples; None takes what ships."""

    text: str | None = None
    prompts: tuple[ImagePrompt, ...] | None = None

    def images(self, most: int) -> list[Path | Image.Image]:
        """The first images to calibrate with, each once."""
        found: dict[object, Path | Image.Image] = {}
        for prompt in self.questions(held_back=False):
            if len(found) >= most:
                break
            found |= {key(image): image for image in prompt.images}
        return list(found.values())[:most]

    def words(self) -> str:
        """The text to take sequences from."""
        return manual() if self.text is None else self.text

    def questions(self, held_back: bool) -> Iterator[ImagePrompt]:
        """Prompts to calibrate with, or (`held_back`) others to measure with.

        Of a caller's folder these are the last ones, about other images where there are any; of a folder with a single
        prompt, what ships.
        """
        split = "validation" if held_back else "train"
        if self.prompts is None:
            return _shipped(split)
        taken = part(self.prompts, held_back)
        if not taken:
            logger.info("one prompt is calibrated with: measuring takes inspection images")
            return _shipped(split)
        seen = {key(image) for prompt in part(self.prompts, False) for image in prompt.images} if held_back else set()
        return iter([prompt for prompt in taken if seen.isdisjoint(map(key, prompt.images))] or taken)


def key(image: object) -> object:
    """Equal for the same image."""
    return image if isinstance(image, Path) else id(image)


def manual() -> str:
    """Prose about programming, present wherever Python is."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[key] for key in sorted(topics))


def read_folder(folder: Path) -> Material:
    """Everything in a caller's folder. Raises `ExportError` when that is nothing, or something cannot be read."""
    if not folder.is_dir():
        raise ExportError(f"no such calibration folder: {folder}: pass a folder with images, questions or text files")
    questions = question_file.find(folder)
    try:
        text = _text(folder, questions)
        prompts = _asked(questions) if questions is not None else _unasked(folder)
    except OSError as error:
        raise ExportError(f"unreadable calibration folder: {folder}: {reason(error)}") from error
    if not text and not prompts:
        raise ExportError(f"empty calibration folder: {folder}: put images, a questions file or text files there")
    for image in dict.fromkeys(image for prompt in prompts for image in prompt.images):
        _check(image)
    return Material(text or None, prompts or None)


def _text(folder: Path, questions: Path | None) -> str:
    """Every text file, in order of names."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in TEXTS and path.is_file())
    texts = []
    for path in (path for path in files if path != questions):
        try:
            texts.append(read_text(path, LARGEST_TEXT))
        except OSError as error:
            raise ExportError(
                f"unreadable calibration file: {path}: {why(error)}: pass text files in UTF-8, some MiB are enough"
            ) from error
    return "\n\n".join(texts).strip()


def _asked(file: Path) -> tuple[ImagePrompt, ...]:
    try:
        rows = question_file.read(file).rows
    except EdgeVLMError as error:
        raise ExportError(str(error)) from error
    return tuple(ImagePrompt(row.images, row.question, row.answer) for row in rows)


def _unasked(folder: Path) -> tuple[ImagePrompt, ...]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    return tuple(ImagePrompt((path,), ANY_QUESTION) for path in files)


def _check(image: Path | Image.Image) -> None:
    if isinstance(image, Image.Image):
        return
    try:
        load_image(image)
    except ImageError as error:
        raise ExportError(f"unreadable calibration image: {error}: or save it with 8 bits, or remove it") from error


def _shipped(split: str) -> Iterator[ImagePrompt]:
    for example in inspection.examples(split, SHIPPED):
        yield ImagePrompt((example.image,), example.question, example.answer)
