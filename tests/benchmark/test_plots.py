"""Plots show the rows of the tables, and every comparison that is kept has its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from benchmarks import plots

KEPT = [file for file in sorted(plots.RESULTS.glob("*.json")) if "bench" in json.loads(file.read_text())]


def engine(label: str, first: float, memory: float, name: str = "edgevlm") -> dict[str, object]:
    return {"label": label, "name": name, "time_to_first_token_ms": {"p50": first}, "peak_rss_mib": memory}


def peer(label: str, first: float | None, memory: float | None) -> dict[str, object]:
    return {"label": label, "medians": {"time_to_first_token_ms": first, "peak_rss_mib": memory}}


FOUND = {
    "title": "A shape",
    "bench": {
        "engines": [engine("tiny-int8", 30.0, 50.0), engine("PyTorch float32", 90.0, 400.0, "pytorch")],
        "machine": {"processor": {"name": "A processor"}},
        "workload": {"threads": 2},
    },
    "peers": [peer("other", 20.0, None), peer("decoder alone", None, 10.0)],
}


def widths(axes: Axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_soonest_first_and_who_has_no_first_token_is_named() -> None:
    shown, without = plots.bars(FOUND, "tiny")
    assert [(bar.first_token_ms, bar.memory_mib, bar.ours) for bar in shown] == [
        (20.0, None, False),
        (30.0, 50.0, True),
        (90.0, 400.0, False),
    ]
    assert without == ["decoder alone"]


def test_a_bar_for_each_engine_in_both_panels() -> None:
    figure = plots.draw(FOUND, "tiny")
    first, memory = figure.axes
    assert widths(first) == [20.0, 30.0, 90.0]
    assert widths(memory) == [0.0, 50.0, 400.0]
    assert [text.get_text() for text in memory.texts] == ["-", "50.0", "400"]
    assert "decoder alone" in figure.get_supxlabel()


def test_one_file_for_each_comparison(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(FOUND))
    (tmp_path / "no-comparison.json").write_text("{}")
    (written,) = plots.write_plots(tmp_path)
    assert written == tmp_path / "plots" / "tiny.png"
    before = written.read_bytes()
    plots.write_plots(tmp_path)
    assert written.read_bytes() == before, "the same figures give the same file"
    with Image.open(written) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_what_is_kept_has_its_plot_on_the_page(file: Path) -> None:
    with Image.open(plots.RESULTS / plots.FOLDER / f"{file.stem}.png") as picture:
        assert picture.info[plots.FIGURES] == plots.figures(json.loads(file.read_text()), file.stem), "drawn from these"
    assert f"({plots.FOLDER}/{file.stem}.png)" in (plots.RESULTS / "README.md").read_text()
