"""A plot for each comparison: when the first token comes, and how much memory it takes, of every engine in one run.

    python -m benchmarks.plots        # again, from the results that are kept

`python -m benchmarks` draws them too. Bars are the medians of the tables in benchmarks/results/README.md, this
project's in colour; an engine without a first token of its own is named below the plot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.targets import row_name

RESULTS = Path(__file__).parent / "results"
FOLDER = "plots"
OURS, OTHERS = "#0b6e4f", "#b8bec4"
WIDTH, ROW_HEIGHT, MARGIN = 10.0, 0.34, 1.35  # inches
DOTS = 110
"""Dots per inch."""
FIGURES = "Figures"
"""The key in a file's metadata under which stands what it shows."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One engine's medians."""

    label: str
    first_token_ms: float
    memory_mib: float | None
    """Peak of the process; None where it was not measured."""
    ours: bool


def bars(found: dict[str, Any], name: str) -> tuple[list[Bar], list[str]]:
    """The engines of a comparison, soonest first, and the labels of those without a first token."""
    shown = [
        Bar(
            row_name(engine, name),
            engine["time_to_first_token_ms"]["p50"],
            engine["peak_rss_mib"],
            engine["name"] == "edgevlm",
        )
        for engine in found["bench"]["engines"]
    ]
    without = []
    for peer in found.get("peers", ()):
        medians = peer["medians"]
        if medians["time_to_first_token_ms"] is None:
            without.append(peer["label"])
        else:
            shown.append(Bar(peer["label"], medians["time_to_first_token_ms"], medians["peak_rss_mib"], ours=False))
    return sorted(shown, key=lambda bar: bar.first_token_ms), without


def figures(found: dict[str, Any], name: str) -> str:
    """What a plot shows, as text, to tell whether a file is of these results."""
    shown, without = bars(found, name)
    return json.dumps({"title": found["title"], "bars": [asdict(bar) for bar in shown], "without": without})


def draw(found: dict[str, Any], name: str) -> Figure:
    """First token and peak memory side by side, an engine a row, the soonest on top."""
    shown, without = bars(found, name)
    figure = Figure(figsize=(WIDTH, MARGIN + ROW_HEIGHT * len(shown)), dpi=DOTS, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _panel(left, shown, [bar.first_token_ms for bar in shown], "first token, ms")
    _panel(right, shown, [bar.memory_mib for bar in shown], "peak memory, MiB")
    left.invert_yaxis()
    processor, threads = found["bench"]["machine"]["processor"]["name"], found["bench"]["workload"]["threads"]
    turns = ", rounds taking turns" if len(shown) > 1 else ""
    said = [f"{processor}, {threads} threads; medians of one run{turns}"]
    said += [f"without a first token: {', '.join(without)}"] if without else []
    figure.suptitle(found["title"].replace("`", ""), fontsize=12)
    figure.supxlabel("\n".join(said), fontsize=8)
    return figure


def _panel(axes: Axes, shown: Sequence[Bar], lengths: Sequence[float | None], title: str) -> None:
    drawn = axes.barh(
        [bar.label for bar in shown],
        [length or 0.0 for length in lengths],
        color=[OURS if bar.ours else OTHERS for bar in shown],
    )
    labels = ["-" if length is None else f"{length:.0f}" if length >= 100 else f"{length:.1f}" for length in lengths]
    axes.bar_label(drawn, labels=labels, padding=3, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.14)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def write_plots(results: Path) -> list[Path]:
    """One PNG for each comparison of the folder `results`, below its folder `plots`."""
    folder = results / FOLDER
    folder.mkdir(exist_ok=True)
    written = []
    for file in sorted(results.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "bench" in found:
            written.append(folder / f"{file.stem}.png")
            stamp = {"Software": None, FIGURES: figures(found, file.stem)}  # None: of which matplotlib it is
            draw(found, file.stem).savefig(written[-1], metadata=stamp)
    return written


if __name__ == "__main__":
    write_plots(RESULTS)
