"""The stream of examples and the files written from it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm_export import inspection


def test_asks_every_kind_equally_often() -> None:
    kinds = Counter(example.kind for example in inspection.examples("test", 80))
    assert kinds == dict.fromkeys(inspection.KINDS, 10)


def test_starts_where_it_is_told_to() -> None:
    whole = [example.part.seed for example in inspection.examples("validation", 6)]
    assert [example.part.seed for example in inspection.examples("validation", 4, start=2)] == whole[2:]


def test_several_questions_share_one_image_and_differ_in_kind() -> None:
    some = list(inspection.examples("test", 12, questions_per_image=4))
    for first in range(0, 12, 4):
        group = some[first : first + 4]
        assert len({id(example.image) for example in group}) == 1
        assert len({example.kind for example in group}) == 4
    assert len({example.part.seed for example in some}) == 3


@pytest.mark.parametrize("number", [0, 9])
def test_refuses_an_impossible_number_of_questions(number: int) -> None:
    with pytest.raises(ValueError, match="questions_per_image must be from 1 to 8"):
        next(inspection.examples("test", 1, questions_per_image=number))


def test_refuses_more_images_than_the_split_has() -> None:
    with pytest.raises(ValueError, match="too few for 3 questions"):
        next(inspection.examples("test", 3, start=len(inspection.seeds("test")) - 2))


def test_refuses_an_unknown_split() -> None:
    with pytest.raises(ValueError, match="unknown split 'dev'; choose one of train, validation, test"):
        next(inspection.examples("dev", 1))


def test_written_files_hold_the_same_examples(tmp_path: Path) -> None:
    listing = inspection.write(tmp_path / "data", split="test", n=6, questions_per_image=2)
    rows = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    expected = list(inspection.examples("test", 6, questions_per_image=2))
    assert [set(row) for row in rows] == [{"image", "question", "answer", "kind"}] * 6
    for row, example in zip(rows, expected, strict=True):
        assert (row["question"], row["answer"], row["kind"]) == (example.question, example.answer, example.kind)
        with Image.open(listing.parent / row["image"]) as image:
            assert np.array_equal(np.asarray(image), np.asarray(example.image))
    assert len(list((tmp_path / "data" / "images").iterdir())) == 3
