"""Inputs: rows of folders and tables, bad rows among good ones."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm.bulk.readers import Columns, read
from edgevlm.bulk.readers.places import beside, is_address
from edgevlm.bulk.rows import Row
from edgevlm_runtime.errors import EdgeVLMError

PNG = b"\x89PNG not really"


def rows(place: Path | str, **columns: str) -> list[Row]:
    return list(read(str(place), Columns(**columns)).rows())


def write_csv(path: Path, lines: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def write_jsonl(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_a_folder_gives_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/.hidden.png", ".git/x.png", "notes.txt", "a0.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    reader = read(str(tmp_path), Columns())
    found = list(reader.rows())
    assert [row.id for row in found] == ["a/z.JPG", "a0.webp", "b.png"]
    assert [Path(str(row.place)) for row in found] == [tmp_path / row.id for row in found]
    assert reader.total() == 3
    assert list(reader.rows(2)) == found[2:]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeVLMError, match="no pictures"):
        read(str(tmp_path), Columns())
    with pytest.raises(EdgeVLMError, match="has no columns"):
        read(str(tmp_path), Columns(image="x"))
    with pytest.raises(EdgeVLMError, match="no such input"):
        read(str(tmp_path / "nothing"), Columns())


def test_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    (row,) = rows(write_csv(tmp_path / "t.csv", [["image"], ["x/1.png"]]))
    assert (row.id, row.image, row.place) == ("1", "x/1.png", str(tmp_path / "x/1.png"))
    assert beside("s3://bucket/in/t.csv", "a.png") == "s3://bucket/in/a.png"
    assert beside("t.csv", "s3://bucket/a.png") == "s3://bucket/a.png"
    assert not is_address("C:\\pictures\\a.png")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_missing_column_is_named_with_those_there(tmp_path: Path, kind: str) -> None:
    place = tmp_path / f"t.{kind}"
    if kind == "csv":
        write_csv(place, [["file", "n"], ["1.png", "1"]])
    elif kind == "jsonl":
        write_jsonl(place, [{"file": "1.png", "n": 1}])
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"file": ["1.png"], "n": [1]}), place)
    with pytest.raises(EdgeVLMError, match=r"no column 'image' in .*'file', 'n'.*--image-column"):
        read(str(place), Columns())
    with pytest.raises(EdgeVLMError, match="no column 'what' in"):
        read(str(place), Columns(image="file", question="what"))
    (row,) = rows(place, image="file", id="n")
    assert (row.id, row.image, row.error) == ("1", "1.png", None)


def test_bad_lines_are_bad_rows(tmp_path: Path) -> None:
    lines = ['{"image": "1.png", "id": "a"}', "{broken", "[1]", "", '{"id": "b"}', '{"image": 7, "id": "c"}']
    lines += [
        '{"image": "2.png"}',
        '{"image": "2.png", "id": "\\ud800"}',
        '{"image": "9.png", "id": "z", "question": 1}',
    ]
    place = tmp_path / "t.jsonl"
    place.write_text("\n".join(lines), encoding="utf-8")
    found = list(read(str(place), Columns()).rows())
    assert [row.number for row in found] == list(range(8))
    assert [row.error is None for row in found] == [True, *[False] * 7]
    assert "no text in column 'question'" in str(found[7].error)
    short = write_csv(
        tmp_path / "t.csv", [["image", "id"], ["1.png", "a"], ["2.png"], ["3.png", "c", "d"], [], ["4.png", "e"]]
    )
    assert [(row.id, row.error is None) for row in rows(short)] == [
        ("a", True),
        ("row 2", False),
        ("row 3", False),
        ("e", True),
    ]


def test_pictures_within_tables(tmp_path: Path) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    first, second = rows(write_jsonl(tmp_path / "t.jsonl", [{"image": uri}, {"image": "data:image/png;base64,!"}]))
    assert (first.data, first.image, first.error) == (PNG, None, None)
    assert second.error is not None
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    plain = tmp_path / "bytes.parquet"
    parquet.write_table(pyarrow.table({"image": [PNG, None]}), plain)
    assert [(row.data, row.error is None) for row in rows(plain)] == [(PNG, True), (None, False)]
    hugging_face = tmp_path / "datasets.parquet"
    cells = [{"bytes": PNG, "path": "1.png"}, {"bytes": None, "path": "2.png"}]
    parquet.write_table(pyarrow.table({"image": cells}), hugging_face)
    assert [(row.data, row.image) for row in rows(hugging_face)] == [(PNG, "1.png"), (None, "2.png")]


def test_parquet_skips_row_groups(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    place = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"image": [f"{i}.png" for i in range(50)]}), place, row_group_size=7)
    reader = read(str(place), Columns())
    every = list(reader.rows())
    assert reader.total() == len(every) == 50
    for first in (0, 6, 7, 20, 49, 50):
        assert list(reader.rows(first)) == every[first:]
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(EdgeVLMError, match="no Parquet file"):
        read(str(place), Columns())


def test_addresses_go_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bulk/t.csv", b"image\n1.png\n")
    memory.pipe("/bulk/1.png", PNG)
    (row,) = rows("memory://bulk/t.csv")
    from edgevlm.bulk.readers.places import fetch

    assert fetch(str(row.place), 100) == PNG
    with pytest.raises(EdgeVLMError, match="too large"):
        fetch(str(row.place), 5)
    with pytest.raises(EdgeVLMError):
        fetch("memory://bulk/2.png", 100)
    assert [one.id for one in rows("memory://bulk")] == ["1.png"]
    with pytest.raises(EdgeVLMError, match="cannot open"):
        read("nosuch://x/t.csv", Columns())


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_any_text_comes_back_from_csv(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]
) -> None:
    place = tmp_path_factory.mktemp("any") / "t.csv"
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("image", "id", "question"), *cells])
    place.write_bytes(written.getvalue().encode())
    good = [one for one in cells if not one[0].lower().startswith("data:")]
    found = [(row.image, row.id, row.question) for row in rows(place) if row.error is None]
    assert found == good


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_rows_or_one_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "t.csv").write_bytes(b"image,id\n" + b"\n".join(lines))
    (folder / "t.jsonl").write_bytes(b'{"image": "1.png"}\n' + b"\n".join(lines))
    for name in ("t.csv", "t.jsonl"):
        found = rows(folder / name)
        assert [row.number for row in found] == list(range(len(found)))
        assert all(row.error or row.image or row.data for row in found)
