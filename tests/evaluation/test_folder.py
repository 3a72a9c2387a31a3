"""A folder as data set: JSON Lines, CSV, and what is refused, with the line named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from edgevlm.evaluation.datasets import DatasetOptions, load_dataset
from edgevlm_runtime.errors import EdgeVLMError

ROWS = [
    {"image": "a.png", "question": "Scratched?", "answer": "yes", "kind": "scratch", "choices": ["yes", "no"]},
    {"image": "b.png", "question": "Scratched?", "answer": "no", "kind": "scratch", "choices": ["yes", "no"]},
    {"image": ["a.png", "b.png"], "question": "Are they equal?", "id": "both"},
    {"image": "a.png", "question": "Colour?", "answer": "red, dark", "split": "test"},
]
CSV = """image,question,answer,kind,choices,id,split
a.png,Scratched?,yes,scratch,yes|no,,
b.png,Scratched?,no,scratch,yes|no,,
a.png|b.png,Are they equal?,,,,both,
a.png,Colour?,"red, dark",,,,test
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / f"{name}.png")
    return tmp_path


def jsonl(folder: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    return folder


def load(folder: Path, **options: object):
    return load_dataset(str(folder), DatasetOptions(**options))


def test_json_lines(folder: Path) -> None:
    dataset = load(jsonl(folder, *ROWS))
    assert len(dataset) == 4
    cases = list(dataset)
    assert [case.id for case in cases] == ["1", "4", "2", "both"], "questions about one image stand together"
    assert [case.answer for case in cases] == ["yes", "red, dark", "no", None]
    assert [case.kind for case in cases] == ["scratch", "all", "scratch", "all"]
    assert cases[0].choices == ("yes", "no")
    assert cases[3].images == (folder / "a.png", folder / "b.png")


def test_csv_says_the_same(folder: Path) -> None:
    from_lines = list(load(jsonl(folder, *ROWS)))
    (folder / "questions.jsonl").unlink()
    (folder / "questions.csv").write_text("\ufeff" + CSV, encoding="utf-8")
    from_csv = list(load(folder))
    drop = [(c.images, c.question, c.answer, c.kind, c.choices) for c in from_csv]
    assert drop == [(c.images, c.question, c.answer, c.kind, c.choices) for c in from_lines]


def test_parts_of_it(folder: Path) -> None:
    jsonl(folder, *ROWS)
    assert [case.question for case in load(folder, split="test")] == ["Colour?"]
    assert len(load(folder, n=2)) == 2
    identities = {load(folder).identity, load(folder, n=2).identity, load(folder, split="test").identity}
    jsonl(folder, *ROWS[:3])
    assert len(identities | {load(folder).identity}) == 4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no questions in"),
        (["{"], "line 1: not JSON"),
        (["[1]"], "line 1: a line must be a JSON object"),
        ([ROWS[0], {"image": "a.png"}], "line 2: no 'question'"),
        ([{"question": "x"}], "line 1: no 'image'"),
        ([{"image": "c.png", "question": "x"}], "no image .*c.png"),
        ([{"image": "a.png", "question": "x", "choices": [1]}], "'choices' must be a text or a list"),
        ([{**ROWS[0], "id": "x"}, {**ROWS[1], "id": "x"}], "two questions have the id 'x'"),
    ],
)
def test_refused(folder: Path, lines: list[object], message: str) -> None:
    with pytest.raises(EdgeVLMError, match=message) as caught:
        load(jsonl(folder, *lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("image,question\na.png\n", "line 2: more or fewer"), ("image,question\na.png,x,y\n", "line 2: more or fewer")],
)
def test_csv_refused(folder: Path, text: str, message: str) -> None:
    (folder / "questions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(EdgeVLMError, match=message):
        load(folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(EdgeVLMError, match=r"put a questions.jsonl or questions.csv there"):
        load(tmp_path)
    with pytest.raises(EdgeVLMError, match="no such data set: nowhere: pass inspection"):
        load_dataset("nowhere", DatasetOptions())
    with pytest.raises(EdgeVLMError, match="bad value for n: 0"):
        DatasetOptions(n=0)


def test_inspection_writes_what_it_asks(tmp_path: Path) -> None:
    drawn = load_dataset("inspection", DatasetOptions(n=6, split="validation", per_image=3))
    drawn.write(tmp_path)  # type: ignore[attr-defined]
    read = list(load(tmp_path))
    assert [(c.question, c.answer, c.kind) for c in read] == [(c.question, c.answer, c.kind) for c in drawn]
    pixels = [Image.open(case.images[0]).convert("RGB").tobytes() for case in read]
    assert pixels == [case.images[0].tobytes() for case in drawn]
    assert {case.choices for case in drawn if case.kind == "exists"} <= {("yes", "no")}


@pytest.mark.parametrize(
    ("options", "message"), [({"split": "tset"}, "no split 'tset'"), ({"per_image": 99}, "not 99")]
)
def test_inspection_refuses(options: dict, message: str) -> None:
    with pytest.raises(EdgeVLMError, match=message):
        load_dataset("inspection", DatasetOptions(**options))
