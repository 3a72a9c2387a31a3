"""The evaluation counts what it says it counts."""

from __future__ import annotations

import json
import subprocess
import sys

from PIL import Image

from edgevlm_export import inspection
from edgevlm_export.inspection.splits import held_out
from edgevlm_export.inspector.evaluate import IMAGES, Result, follow_up, opening, table


def test_table_counts_by_kind() -> None:
    examples = list(inspection.examples("test", 16))
    results = [Result(example, example.answer if index < 8 else "?") for index, example in enumerate(examples)]
    counts = table(results)
    assert all(counts[kind] == (2, 1) for kind in inspection.KINDS)
    assert counts["all"] == (16, 8)


def test_records_have_a_table_of_their_own() -> None:
    asked = list(inspection.records("test", 400))
    results = [Result(example, example.answer if index % 4 else "{}") for index, example in enumerate(asked)]
    counts = table(results)
    assert list(counts) == ["record", "code, unseen", "all"]
    assert counts["record"] == counts["all"] == (400, 300)
    assert counts["code, unseen"][0] == sum(bool(one.part.code and held_out(one.part.code)) for one in asked) > 0


def test_unseen_codes_are_printed_and_held_out() -> None:
    asked = [Result(example, example.answer) for example in inspection.examples("test", 800)]
    codes = [result.example.answer for result in asked if result.example.kind == "code"]
    unseen = sum(code != "none" and held_out(code) for code in codes)
    assert unseen > 0
    assert table(asked)["code, unseen"] == (unseen, unseen)


def test_wrong_pictures_are_wrong() -> None:
    images = [example.image for example in inspection.examples("test", 4)]
    shuffled, blank = IMAGES["shuffled"](images), IMAGES["blank"](images)
    assert sorted(map(id, shuffled)) == sorted(map(id, images))
    assert not any(one is other for one, other in zip(images, shuffled, strict=True))
    assert {image.getextrema() for image in blank} == {((128, 128),) * 3}


def test_follow_up_leaves_the_first_chat_as_it_was() -> None:
    first = opening(Image.new("RGB", (96, 96)), "Count the holes.")
    longer = follow_up(first, "2", "Name the defect.")
    assert [message["role"] for message in longer] == ["user", "assistant", "user"]
    assert len(first) == 1


def test_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "edgevlm_export.inspector.evaluate", "--n", "8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["all"]["n"] == 8
