"""The tables of docs/measured.md that benchmarks write are those of the results beside them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import camera_table, serve_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("table", "results"), [(camera_table, "camera.json"), (serve_table, "serve.json")])
def test_the_page_has_what_was_measured(table: ModuleType, results: str) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / results).read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert f"{table.BEGIN}\n{table.section(found)}\n{table.END}" in page


def test_sections_that_were_not_measured_are_left_out() -> None:
    machine = {"processor": {"name": "a processor", "usable_cores": 2}}
    assert serve_table.section({"machine": machine}) == "a processor, 2 cores, shared by server and clients."


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "serve.json"
    page.write_text(f"before\n{serve_table.BEGIN}\nold\n{serve_table.END}\nafter\n", encoding="utf-8")
    machine = {"processor": {"name": "a processor", "usable_cores": 2}}
    row = {"session_ms": 50.0, "stateless_client_ms": 55.0, "times": 1.1}
    results.write_text(json.dumps({"machine": machine, "second": {"a model": row}}), encoding="utf-8")
    serve_table.write(results, page)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "| a model | 50.0 | 55.0 | 1.10 |" in written
