"""What an export calibrates with: folders as callers have them, and what is wrong with some."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from edgevlm_export import inspection
from edgevlm_export.api import ExportOptions
from edgevlm_export.streaming.material import ANY_QUESTION, ImagePrompt, Material, manual, read_folder
from edgevlm_export.streaming.samples import Prompt, assemble, fitting
from edgevlm_runtime.errors import ExportError


def test_questions_as_evaluation_reads_them(tmp_path):
    inspection.write(tmp_path, "validation", 3)
    material = read_folder(tmp_path)
    expected = list(inspection.examples("validation", 3))
    assert [(one.question, one.answer) for one in material.prompts] == [(one.question, one.answer) for one in expected]
    images = [Image.open(image).tobytes() for image in material.images(8)]
    assert images == [one.image.tobytes() for one in expected[:2]]  # the last one is to measure with
    assert material.words() == manual()  # the folder has no text of its own


def test_texts_and_images_without_questions(tmp_path):
    (tmp_path / "b.md").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first", encoding="utf-8")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.PNG")
    material = read_folder(tmp_path)
    assert material.words() == "first\n\nsecond"
    assert [one.question for one in material.questions(held_back=False)] == [ANY_QUESTION]


def test_what_ships_is_held_back_in_part():
    taken, kept = (list(islice(Material().questions(held_back), 4)) for held_back in (False, True))
    assert taken[0].images[0].tobytes() != kept[0].images[0].tobytes()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (None, "no such calibration folder"),
        ({}, "empty calibration folder"),
        ({"a.txt": b"\xff\xfe\x00"}, "pass text files in UTF-8"),
        ({"part.png": b"no picture"}, "unreadable calibration image"),
        ({"questions.jsonl": b'{"image": "gone.png", "question": "What?"}'}, "line 1: no image"),
        ({"questions.csv": b"image\npart.png"}, "no 'question'"),
    ],
)
def test_bad_folders(tmp_path, files, says):
    folder = tmp_path / "folder"
    if files is not None:
        folder.mkdir()
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    if files and "questions.csv" in files:
        Image.new("RGB", (8, 8)).save(folder / "part.png")
    with pytest.raises(ExportError, match=r"^[^\n]+$") as error:
        ExportOptions(str(tmp_path), precision="int4", calibrate=folder)
    assert says in str(error.value)


def test_half_of_the_positions_are_for_prompts_with_images():
    prompts = [Prompt(torch.zeros(length, dtype=torch.int64), ()) for length in (40, 9000, 300, 280, 290, 10)]
    found = fitting(prompts, rows=1800, context=8192)
    assert ([len(one.ids) for one in found.prompts], found.length) == ([40, 300, 280], 300)
    assert (found.texts, found.text_length) == ((1800 - 620) // 300, 300)
    found = fitting(prompts, rows=1800, context=64)
    assert ([len(one.ids) for one in found.prompts], found.length) == ([40, 10], 64)


def test_prompts_that_are_too_long_are_skipped_but_for_the_shortest():
    """And then text is not made as long as they are."""
    prompts = [Prompt(torch.arange(length) % 2, ()) for length in (4000, 3000, 500)]
    found = fitting(prompts, rows=1024, context=8192)
    assert ([len(one.ids) for one in found.prompts], found.length) == ([500], 500)
    found = fitting(prompts[:2], rows=1024, context=8192)
    assert ([len(one.ids) for one in found.prompts], found.length) == ([3000], 3000)
    assert (found.texts, found.text_length) == (1, 256)
    assert found.text_positions(image_token_id=1) == 1500 + 256
    samples = assemble(
        found.prompts,
        torch.zeros(1, 256, dtype=torch.int64),
        embed=lambda ids: torch.zeros(len(ids), 4),
        images=lambda prompt: torch.ones(1500, 4),
        image_token_id=1,
    )
    assert samples.embeddings.shape[:2].numel() == found.positions
    assert int(samples.text.sum()) == found.text_positions(1)
    assert samples.real.sum(1).tolist() == [3000, 256]


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_prompts_that_measure_are_not_those_that_calibrate(count):
    prompts = tuple(ImagePrompt((Path(f"{number}.png"),), "What?") for number in range(count))
    calibrating, measuring = (list(Material(prompts=prompts).questions(held_back)) for held_back in (False, True))
    assert [*calibrating, *measuring] == list(prompts)
    assert calibrating
    assert measuring


def test_measured_with_other_images_where_there_are_any():
    asked = tuple(ImagePrompt((Path(image),), str(number)) for number, image in enumerate("aaaabbbbbc"))
    assert [one.question for one in Material(prompts=asked).questions(held_back=True)] == ["9"]
    assert [one.question for one in Material(prompts=asked[:4]).questions(held_back=True)] == ["3"]


def test_one_prompt_is_not_measured_with(caplog):
    caplog.set_level("INFO")
    only = Material(prompts=(ImagePrompt((Path("a.png"),), "What?"),))
    assert [one.question for one in only.questions(held_back=False)] == ["What?"]
    shipped = next(Material().questions(held_back=True))
    assert next(only.questions(held_back=True)).images[0].tobytes() == shipped.images[0].tobytes()
    assert "measuring takes inspection images" in caplog.text
