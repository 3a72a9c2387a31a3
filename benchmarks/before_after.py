"""Two states of this repository on the same bundle, taking turns: is anything slower?

    python -m benchmarks.before_after OTHER_CHECKOUT BUNDLE... --rounds 5 --out benchmarks/results/NAME.json

OTHER_CHECKOUT is a clone at another commit with its own `.venv` (`make venv`); BUNDLE is one that both can load, so
made by the older. Every round runs `edgevlm bench` of each state once, the order changing; the table shows medians
of the rounds, and the median of their ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import click

from edgevlm.benchmark.run import describe_machine
from edgevlm.json_text import plain
from edgevlm_runtime.saving import write_atomic

HERE = Path(__file__).parents[1]
MEASURES = ("load_ms", "vision_ms", "projector_ms", "prefill_ms", "time_to_first_token_ms", "repeat_question_ttft_ms")
MEASURES += ("decode_ms_per_token", "peak_rss_mib")
"""As `edgevlm bench --json` calls them; lower is better in all."""


@click.command()
@click.argument("other", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--repeats", type=int, default=5, show_default=True, help="Of `edgevlm bench`, within a round.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
def main(other: Path, bundles: tuple[Path, ...], rounds: int, repeats: int, out: Path) -> None:
    """Measure both states, and print a table."""
    states = {"before": other.resolve(), "after": HERE}
    found: dict[str, Any] = {
        "machine": plain(describe_machine()),
        "commits": {n: _commit(p) for n, p in states.items()},
    }
    found["rows"] = []
    for bundle in bundles:
        for number in range(rounds):
            for name in list(states)[:: 1 if number % 2 else -1]:
                row = {"bundle": bundle.name, "state": name, "round": number, **_bench(states[name], bundle, repeats)}
                found["rows"].append(row)
                write_atomic(out, json.dumps(found, indent=1) + "\n")
    click.echo(table(found["rows"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown. The ratio is the median of the rounds' ratios: a round's two runs share the machine's mood."""
    lines = ["| bundle | measure | before | after | after / before |", "| --- | --- | ---: | ---: | ---: |"]
    for bundle in dict.fromkeys(row["bundle"] for row in rows):
        for key in MEASURES:
            old, new = (
                [row[key] for row in rows if (row["bundle"], row["state"]) == (bundle, state)]
                for state in ("before", "after")
            )
            ratio = statistics.median(after / before for before, after in zip(old, new, strict=True))
            lines.append(
                f"| {bundle} | {key} | {statistics.median(old):.2f} | {statistics.median(new):.2f} | {ratio:.3f} |"
            )
    return "\n".join(lines)


def _commit(checkout: Path) -> str:
    done = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _bench(checkout: Path, bundle: Path, repeats: int) -> dict[str, float]:
    command = [checkout / ".venv" / "bin" / "edgevlm", "bench", bundle.resolve(), "--repeats", str(repeats), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout)
    (engine,) = json.loads(done.stdout)["engines"]
    return {key: engine[key]["p50"] if isinstance(engine[key], dict) else engine[key] for key in MEASURES}


if __name__ == "__main__":
    main()
