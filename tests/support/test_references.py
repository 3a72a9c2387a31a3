"""Answers of transformers that are kept: the same as fresh ones, and never another question's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm_export.reference import Reference
from tests.support import checkpoints
from tests.support.references import Remembered

ASKED = ("what is in the picture", "is there a scratch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llava(tmp_path_factory.mktemp("remembered") / "tiny", seed=1, gain=1.3)


def test_what_is_kept_is_what_was_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    images = [Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(2)]
    fresh, kept = Reference.load(str(folder)), Remembered.load(str(folder))
    wanted = {
        (text, i): fresh.answer(text, [image], max_new_tokens=12) for text in ASKED for i, image in enumerate(images)
    }
    assert len({answer.token_ids for answer in wanted.values()}) == 4
    logits = fresh.prompt_logits(ASKED[0], images[:1])
    for _ in range(2):
        for (text, i), answer in wanted.items():
            assert kept.answer(text, [images[i]], max_new_tokens=12) == answer
        for found, expected in zip(kept.prompt_logits(ASKED[0], images[:1]), logits, strict=True):
            np.testing.assert_array_equal(found, expected)
        monkeypatch.setattr(Reference, "answer", None)  # the second time nobody computes
        monkeypatch.setattr(Reference, "prompt_logits", None)


def test_another_checkpoint_answers_for_itself(folder: Path, tmp_path: Path) -> None:
    other = checkpoints.llava(tmp_path / "tiny", seed=2, gain=1.3)
    answers = [Remembered.load(str(place)).answer(ASKED[0], max_new_tokens=12) for place in (folder, other)]
    assert answers[0] == Reference.load(str(folder)).answer(ASKED[0], max_new_tokens=12)
    assert answers[1] == Reference.load(str(other)).answer(ASKED[0], max_new_tokens=12)
    assert answers[0] != answers[1]
