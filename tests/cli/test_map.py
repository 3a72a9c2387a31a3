"""`edgevlm map` as users call it: JSON contract, bad usage in one line."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import records


def test_json_and_rows(invoke, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    table.write_text(f"file,name\n{picture},a\nnowhere.png,b\n", encoding="utf-8")
    columns = ("--image-column", "file", "--id-column", "name")
    arguments = ("--question", "what is it", "--max-new-tokens", 3, "--workers", 1, *columns)
    result = invoke("map", tiny_bundle, table, output, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("map", found)
    assert (found["rows"], found["errors"], found["processes"]) == (2, 1, 1)
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [(row["id"], row["error"] is None) for row in rows] == [("a", True), ("b", False)]


def test_bad_usage_is_one_line(invoke, refused, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    def line(*arguments: object) -> str:
        return str(refused(invoke("map", tiny_bundle, *arguments)))

    output = tmp_path / "out.jsonl"
    assert "no such input" in line(tmp_path / "nothing.txt", output, "-q", "?")
    assert "kind of output" in line(picture.parent, tmp_path / "out.xlsx", "-q", "?")
    assert "at least two choices" in line(picture.parent, output, "-q", "?", "--choices", "yes")
    assert "leave out --max-new-tokens" in line(picture.parent, output, "--choices", "a,b", "--max-new-tokens", 3)
    assert not output.exists()


def test_triton(invoke, tiny_bundle: Path, tmp_path: Path) -> None:
    result = invoke("triton", tiny_bundle, tmp_path / "models", "--name", "parts", "--threads", 1, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("triton", found)
    assert {"config.pbtxt", "1/model.py", "1/bundle/manifest.json"} <= set(found["files"])
