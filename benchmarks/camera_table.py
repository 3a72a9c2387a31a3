"""benchmarks/results/camera.json as the section "A camera" of docs/measured.md, between two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import kept

BEGIN, END = kept.marks("camera")
Figures = dict[str, Any]


def write(results: Path, page: Path) -> None:
    """Replace what stands between the marks of `page`."""
    kept.write_section(page, BEGIN, END, section(json.loads(results.read_text(encoding="utf-8"))))


def section(found: Figures) -> str:
    """What was measured, as Markdown."""
    live, steady = found.get("live", {}).items(), found.get("steady", {}).items()
    machine = found["machine"]["processor"]
    where = f"{machine['name']}, {machine['usable_cores']} cores."
    return "\n\n".join([*filter(None, [_judging(found), *map(_live, live), *map(_steady, steady)]), where])


def _judging(found: Figures) -> str:
    lines = []
    for name, one in found.get("judging", {}).items():
        times = [one["questions"][count]["ms"] for count in ("1", "2", "4")]
        rates = one["questions"]["1"]["frames_per_second"]
        unchanged, golden = one["unchanged_taken_over"]["ms"], found.get("golden", {}).get(name, {}).get("kept", {})
        cells = [name, *times, rates, f"{one['four_times_one']:.2f}", unchanged, golden.get("ms", "-")]
        lines.append(cells)
    if not lines:
        return ""
    header = (
        "ms a frame, int8",
        "1 question",
        "2 questions",
        "4 questions",
        "frames/s, 1 question",
        "4 questions, times 1",
        "unchanged scene",
        "1 question, golden picture before it",
    )
    return kept.table(header, lines)


def _live(named: tuple[str, Figures]) -> str:
    name, one = named
    older = one["older_than_one_interval_when_begun"]["since received"]
    begun, sent, judged = one["received_begun_ms"], one["sent_begun_ms"], one["judging_ms"]
    return "\n".join(
        [
            f"An RTSP camera of {one['camera_fps']} frames a second is faster than `{name}`, which takes",
            f"{judged['median']:.0f} ms for a frame. Of {one['frames']} answered frames {older} were older than the",
            f"{one['interval_ms']:.0f} ms between two frames when judging began: {begun['median']:.0f} ms, at most",
            f"{begun['most']:.0f}, since the watch had received them; {sent['median']:.0f} ms, at most",
            f"{sent['most']:.0f}, since the camera had sent them.",
        ]
    )


def _steady(named: tuple[str, Figures]) -> str:
    name, one = named
    return "\n".join(
        [
            f"{one['frames']} different frames of 640x480 through `edgevlm watch` with `{name}`, with records, kept",
            f"pictures and an open page: {one['frames_per_second']:.0f} frames a second. After the first",
            f"{one['warm_up_frames']}, memory grew by {one['growth_mib']:.1f} MiB (at most",
            f"{one['largest_growth_mib']:.1f}), to {one['rows'][-1]['rss_mib']:.0f} MiB.",
        ]
    )
