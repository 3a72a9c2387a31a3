"""Training batches from your own pictures: a folder with ``questions.jsonl``, as ``inspection.write`` makes one.

Each line is ``{"image": "images/1.png", "question": "Is the weld closed?", "answer": "yes"}``; the image's path is
relative to the folder. Lines about the same picture belong together, and other keys are left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspector.train.batches import Turn, pack, stack
from edgevlm_export.inspector.train.saving import build_processor
from edgevlm_runtime.images import load_image

ORDER_STREAM = 5
QUESTIONS = 8
"""The most questions about a picture that are learned in one step; more become further steps with the same picture."""


def read(directory: Path) -> list[tuple[Path, list[Turn]]]:
    """Pictures and their questions with answers, at most ``QUESTIONS`` at a time."""
    listing = directory / "questions.jsonl"
    grouped: dict[Path, list[Turn]] = {}
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            turn = (str(row["question"]).strip(), str(row["answer"]).strip())
            grouped.setdefault(directory / row["image"], []).append(turn)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{listing}, line {number}: needs image, question and answer ({error!r})") from error
    if not grouped:
        raise ValueError(f"{listing} holds no questions")
    return [
        (image, turns[start : start + QUESTIONS])
        for image, turns in grouped.items()
        for start in range(0, len(turns), QUESTIONS)
    ]


class FolderBatches(Dataset[dict[str, Tensor]]):
    """Batch number ``step``: every picture once in each round, in an order that the round decides."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, size: int, directory: Path) -> None:
        self.tokenizer, self.size = tokenizer, size
        self.items = read(directory)
        self.images = build_processor(tokenizer).image_processor

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        chosen = [self._item(step * self.size + place) for place in range(self.size)]
        text = stack([pack(self.tokenizer, [[turn] for turn in turns]) for _, turns in chosen])
        return {"image": torch.stack([self._pixels(image) for image, _ in chosen]), "text": text}

    def _item(self, number: int) -> tuple[Path, list[Turn]]:
        turn, place = divmod(number, len(self.items))
        return self.items[Draws(ORDER_STREAM, turn).shuffled(range(len(self.items)))[place]]

    def _pixels(self, path: Path) -> Tensor:
        """``[96, 96, 3]`` bytes, resized and cropped by the processor that will do it at inference."""
        ready = self.images(load_image(path), do_rescale=False, do_normalize=False)["pixel_values"][0]
        return torch.from_numpy(np.asarray(ready).astype(np.uint8)).permute(1, 2, 0)
