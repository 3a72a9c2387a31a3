"""What `benchmarks.camera` computes: ages from known times, numbers read out of a film, the text of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest

from benchmarks import camera_table, watching

INTERVAL_S = 1 / watching.FPS


def test_age_is_counted_from_the_last_time_that_a_picture_was_sent() -> None:
    sent = {0: [100.0, 200.0], 1: [100.0 + INTERVAL_S, 200.0 + INTERVAL_S]}
    judged = [
        {"number": 0, "captured": 100.005, "begun": 100.020, "ended": 100.5},
        {"number": 1, "captured": 200.0 + INTERVAL_S + 0.01, "begun": 200.1, "ended": 200.2},
    ]
    found = watching.ages(judged, sent)
    first, second = found["rows"]
    assert first == {
        "received_begun_ms": 15.0,
        "sent_begun_ms": 20.0,
        "judging_ms": 480.0,
        "sent_answered_ms": 500.0,
    }
    assert second["sent_begun_ms"] == pytest.approx(66.67)
    assert found["older_than_one_interval_when_begun"] == {"since received": 1, "since sent": 1}
    assert (found["frames"], found["received_begun_ms"]["most"]) == (2, second["received_begun_ms"])


def test_numbers_are_read_out_of_a_film(tmp_path: Path) -> None:
    watching.film(tmp_path / "film.mp4", 20, crf="28")
    with av.open(str(tmp_path / "film.mp4")) as container:
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [watching.number(pixels) for pixels in seen] == list(range(20))
    assert len({pixels[100:300].tobytes() for pixels in seen}) == 20, "none is like another"


def figures() -> dict[str, Any]:
    """As `benchmarks.camera` stores them."""
    times = {"ms": 10.0, "frames_per_second": 100.0}
    judged = {
        "questions": {"1": times, "2": times, "4": times},
        "four_times_one": 1.25,
        "unchanged_taken_over": {"ms": 1.5},
    }
    spread = {"median": 12.0, "most": 30.0}
    live = {
        "frames": 60,
        "camera_fps": 30,
        "interval_ms": 33.33,
        "received_begun_ms": spread,
        "sent_begun_ms": spread,
        "judging_ms": spread,
        "older_than_one_interval_when_begun": {"since received": 0, "since sent": 0},
    }
    steady = {
        "frames": 5000,
        "frames_per_second": 40.0,
        "warm_up_frames": 500,
        "growth_mib": 0.5,
        "largest_growth_mib": 0.75,
        "rows": [{"rss_mib": 150.0}],
    }
    machine = {"processor": {"name": "A processor", "usable_cores": 2}}
    return {"machine": machine, "judging": {"m": judged}, "live": {"m": live}, "steady": {"m": steady}}


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    results, page = tmp_path / "camera.json", tmp_path / "page.md"
    results.write_text(json.dumps(figures()), encoding="utf-8")
    page.write_text(f"before\n\n{camera_table.BEGIN}\nwhat was there\n{camera_table.END}\n\nafter\n", encoding="utf-8")
    camera_table.write(results, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{camera_table.BEGIN}\n|")
    assert text.endswith(f"{camera_table.END}\n\nafter\n")
    assert "what was there" not in text
    assert "| m | 10.0 | 10.0 | 10.0 | 100.0 | 1.25 | 1.5 | - |" in text
    assert "memory grew by 0.5 MiB" in text
    camera_table.write(results, page)
    assert page.read_text(encoding="utf-8") == text
