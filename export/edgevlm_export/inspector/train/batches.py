"""Training batches: pictures, auxiliary truth and all questions of a picture packed behind it.

The decoder reads a picture once for eight questions and its record. They form conversations of one to four turns; a
conversation sees the picture and itself, never another one, and its positions start where the picture ends: exactly
what it meets at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from edgevlm_export.inspection import Part, ask, ask_record, draw, part, seeds
from edgevlm_export.inspection.draws import Draws
from edgevlm_export.inspector.train.model import GRID
from edgevlm_export.inspector.train.targets import targets
from edgevlm_export.inspector.train.vocabulary import ASSISTANT, EOS, USER

PREFIX = 2 + GRID * GRID
"""``<s><|user|>`` and the picture."""
TEXT = 320
"""Room for the questions and answers of one picture, tokens."""
CONVERSATIONS = ((1, 1, 1, 1, 1, 1, 2), (1, 1, 1, 1, 2, 2), (1, 1, 1, 2, 3))
"""How eight questions are split into conversations."""
SPLIT_STREAM, PLACE_STREAM = 4, 7
IGNORED = -100

Turn = tuple[str, str]
"""A question and its answer."""


def pack(tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[Turn]]) -> npt.NDArray[np.int64]:
    """``[4, TEXT]``: token ids, what each should predict, position and conversation number (0 beyond the end)."""
    columns: list[tuple[int, int, int, int]] = []
    for number, turns in enumerate(conversations, start=1):
        position = PREFIX
        for turn, (question, answer) in enumerate(turns):
            lead = (USER if turn else "") + question + ASSISTANT
            prompt = tokenizer.encode(lead, add_special_tokens=False)
            reply = tokenizer.encode(answer + EOS, add_special_tokens=False)
            expected = [IGNORED] * (len(prompt) - 1) + reply + [IGNORED]
            for token, target in zip(prompt + reply, expected, strict=True):
                columns.append((token, target, position, number))
                position += 1
    if len(columns) > TEXT:
        raise ValueError(f"the questions of one picture are {len(columns)} tokens; at most {TEXT} fit: {conversations}")
    rows = np.zeros((4, TEXT), dtype=np.int64)
    rows[1] = IGNORED
    rows[:, : len(columns)] = np.array(columns).T
    return rows


def stack(packed: Sequence[npt.NDArray[np.int64]]) -> Tensor:
    """``[B, 4, T]``, cut to the longest of them, rounded up to 16."""
    text = torch.from_numpy(np.stack(packed))
    longest = int((text[:, 3] > 0).sum(dim=1).max())
    return text[..., : -(-longest // 16) * 16]


def conversations(subject: Part) -> list[list[Turn]]:
    """The eight questions about a part in conversations of one to three turns."""
    asked = iter(ask(subject))
    lengths = Draws(SPLIT_STREAM, subject.seed).choice(CONVERSATIONS)
    return [[(question.text, question.answer(subject)) for question in islice(asked, turns)] for turns in lengths]


def with_record(subject: Part, talks: list[list[Turn]], percent: int = 100) -> list[list[Turn]]:
    """The same conversations and, for ``percent`` of all parts, the record: mostly in one of its own, for a quarter
    of the parts before or after other questions."""
    draws = Draws(PLACE_STREAM, subject.seed)
    if not draws.chance(percent):
        return talks
    question = ask_record(subject)
    turn = (question.text, question.answer(subject))
    if draws.chance(75):
        return [*talks, [turn]]
    joined = [turn, *talks[-1]] if draws.chance(50) else [*talks[-1], turn]
    return [*talks[:-1], joined]


class Batches(Dataset[dict[str, Tensor]]):
    """Batch number ``step``: always the same pictures, so a training that resumes continues as it would have."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        size: int,
        *,
        first_seed: int = 0,
        records: int = 100,
        with_truth: bool = True,
    ) -> None:
        """``first_seed``: the first picture of batch 0; ``records``: for how many pictures in a hundred the record is
        asked; ``with_truth``: whether the auxiliary heads learn too."""
        self.tokenizer, self.size, self.first_seed = tokenizer, size, first_seed
        self.records, self.with_truth = records, with_truth

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        first = self.first_seed + step * self.size
        subjects = [part(seed) for seed in seeds("train")[first : first + self.size]]
        batch: dict[str, Tensor] = {}
        if self.with_truth:
            truths = [targets(subject) for subject in subjects]
            batch = {name: torch.from_numpy(np.stack([truth[name] for truth in truths])) for name in truths[0]}
        batch["image"] = torch.from_numpy(np.stack([np.asarray(draw(subject)) for subject in subjects]))
        talks = [with_record(subject, conversations(subject), self.records) for subject in subjects]
        batch["text"] = stack([pack(self.tokenizer, talk) for talk in talks])
        return batch
