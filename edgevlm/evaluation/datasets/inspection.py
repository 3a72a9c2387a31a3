"""The inspection data set that ships with the exporter: drawn parts, questions, exact answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevlm.evaluation.datasets.base import Case, DatasetOptions
from edgevlm_runtime.errors import EdgeVLMError

QUESTIONS = 500
CHOICES = {"exists": ("yes", "no")}
"""Kinds of question whose answers are a few fixed words."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """`n` questions of one split; with `per_image` 1 the same ones as `python -m edgevlm_export.inspector.evaluate`."""

    n: int
    split: str
    per_image: int

    @property
    def name(self) -> str:
        return f"inspection, {self.split} split"

    @property
    def identity(self) -> str:
        return f"inspection {self.split} {self.n} {self.per_image}"

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Case]:
        from edgevlm_export import inspection

        drawn = inspection.examples(self.split, self.n, questions_per_image=self.per_image)
        for number, example in enumerate(drawn):
            name = str(example.part.seed)
            yield Case(
                id=f"{number:05d}-{name}-{example.kind}",
                images=(example.image,),
                image_name=name,
                question=example.question,
                answer=example.answer,
                kind=example.kind,
                choices=CHOICES.get(example.kind, ()),
            )

    def write(self, folder: Path) -> Path:
        """Save images and questions as a folder that any tool, and `--dataset FOLDER`, can read."""
        from edgevlm_export import inspection

        return inspection.write(folder, self.split, self.n, questions_per_image=self.per_image)


def load(name: str, options: DatasetOptions) -> Inspection:
    """The data set, checked. Raises `EdgeVLMError`, and `ModuleNotFoundError` where the exporter is not installed."""
    from edgevlm_export import inspection

    split = options.split or "test"
    if split not in inspection.SPLITS:
        raise EdgeVLMError(f"{name} has no split {split!r}: choose one of {', '.join(inspection.SPLITS)}")
    if options.per_image > len(inspection.KINDS):
        raise EdgeVLMError(f"{name} has {len(inspection.KINDS)} questions about an image, not {options.per_image}")
    dataset = Inspection(options.n or QUESTIONS, split, options.per_image)
    images = -(-dataset.n // dataset.per_image)
    if images > len(inspection.seeds(split)):
        raise EdgeVLMError(f"the {split} split of {name} has {len(inspection.seeds(split))} images: too few")
    return dataset
