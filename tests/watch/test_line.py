"""A day at the line: a real RTSP camera shows parts, is damaged, shows another size, loses its power and comes back.
One watch sees all of it, by the shipped model, and its verdicts are held against those of `edgevlm eval`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm.demo import film
from edgevlm.evaluation.datasets import DatasetOptions, load_dataset
from edgevlm.evaluation.run import EvalOptions, evaluate
from edgevlm.watch.plan.read import read
from edgevlm.watch.records.record import Record
from edgevlm.watch.service.run import Summary, run
from edgevlm_export import inspection
from edgevlm_export.inspection import Part
from edgevlm_export.inspector import checkpoint_path
from tests.support import rtsp
from tests.support.polling import until
from tests.support.running import problems, records

PARTS = 16
SHOWN_S = 0.7
"""An odd number of pictures: of every second one packets are lost, and so of some that show a new part."""
FPS = 15
"""Pictures a second that the camera sends; the film was made for 10."""
LARGER = 5
QUESTION = inspection.QUESTIONS["exists"][0].text
AT_LEAST = 0.8
MEANS = {"yes": "reject", "no": "accept"}
NEAR = 0.05
"""What int8 computes depends, in the second digit, on how much of a prompt is there already."""
PLAN = """\
name = "line-1"
bundle = "{bundle}"
[source]
kind = "rtsp"
url = "{url}"
timeout_s = 2
[trigger]
kind = "change"
settle_s = 0.1
[[region]]
name = "part"
box = [0, 0, 0.75, 0.857143]
[[question]]
name = "defect"
text = "{question}"
choices = ["yes", "no"]
verdicts = {{yes = "reject", no = "accept"}}
at_least = {at_least}
region = "part"
[records]
file = "records.jsonl"
[[sink]]
kind = "pictures"
folder = "pictures"
of = ["all"]
[page]
port = 0
"""


@dataclass
class Day:
    """What the watch left, and what its page said meanwhile."""

    folder: Path
    bundle: Path
    parts: list[Part]
    summary: Summary | None = None
    lost: str = ""
    """What the page said while the camera was away."""
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The page's state after each event."""
    seen: dict[str, int] = field(default_factory=dict)
    """How many records there were after each."""

    @property
    def records(self) -> list[Record]:
        return records(self.folder)

    def picture(self, record: Record) -> Path:
        """The one that was kept."""
        (file,) = (self.folder / "pictures").glob(f"{record.number:09d}-*.png")
        return file


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, export_bundle: Any) -> Day:
    rtsp.need_server()
    folder = tmp_path_factory.mktemp("day")
    day = Day(folder, export_bundle(checkpoint_path(), precision="int8"), film.parts(PARTS))
    small, large = folder / "small.mp4", folder / "large.mp4"
    film.write(day.parts, small, SHOWN_S)
    film.write(day.parts, large, SHOWN_S, LARGER)
    arguments = ("--fps", str(FPS))
    with rtsp.serving(*arguments, small) as server, _watching(day, server.url) as state:

        def more(count: int, event: str) -> None:
            begin = len(day.records)
            until(lambda: len(day.records) >= begin + count, f"{count} records after: {event}")
            day.states[event], day.seen[event] = state(), len(day.records)

        more(PARTS // 2, "start")
        server.ask("damage 3")
        until(lambda: state()["counters"].get("decode_errors", 0) > 1, "damaged pictures")
        more(PARTS // 2, "damage")
        server.ask(f"switch {large}")
        until(lambda: day.records[-1].frame.width > film.frame_size()[0], "larger pictures")
        more(4, "larger")
        server.kill()
        until(lambda: not state()["healthy"], "the loss")
        day.lost = next(one["text"] for one in state()["conditions"] if one["name"] == "source")
        with rtsp.serving("--port", str(server.port), *arguments, small):
            more(4, "back")
    return day


def _watching(day: Day, url: str) -> Any:
    """Watch in this process; gives what the page says, as a function, and ends the watch."""
    from contextlib import contextmanager

    @contextmanager
    def watching() -> Iterator[Callable[[], dict[str, Any]]]:
        text = PLAN.format(bundle=day.bundle, url=url, question=QUESTION, at_least=AT_LEAST)
        (day.folder / "plan.toml").write_text(text, encoding="utf-8")
        plan, stop, said, failed = read(day.folder / "plan.toml"), threading.Event(), list[str](), list[Exception]()

        def watch() -> None:
            try:
                day.summary = run(plan, edgevlm_runtime.load(day.bundle), stop=stop, show=said.append)
            except Exception as error:  # noqa: BLE001 -- shown by the test
                failed.append(error)

        running = threading.Thread(target=watch)
        running.start()
        try:
            address = until(lambda: said or failed, "the page's address")[0].removeprefix("page: ")
            yield lambda: httpx2.get(f"{address}api/state").json()
        finally:
            stop.set()
            running.join(60)
        assert not running.is_alive()
        assert failed == []

    return watching()


def test_verdicts_are_those_of_eval_on_the_kept_pictures(day: Day, tmp_path: Path) -> None:
    """Cut out by Pillow, asked by `edgevlm eval`: nothing of a watch is in it."""
    lines = []
    for record in day.records:
        with Image.open(day.picture(record)) as kept:
            side = kept.width * 3 // 4
            kept.crop((0, 0, side, side)).save(tmp_path / f"{record.number}.png")
        row = {"image": f"{record.number}.png", "question": QUESTION, "choices": ["yes", "no"]}
        lines.append(json.dumps({**row, "id": str(record.number)}))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    log = tmp_path / "answers.jsonl"
    evaluate(EvalOptions(bundle=day.bundle, log=log), load_dataset(str(tmp_path), DatasetOptions()))
    answers = [json.loads(line) for line in log.read_text().splitlines()]
    found = {int(one["case"]): _probabilities(one["scores"]) for one in answers if "case" in one}
    assert sorted(found) == [record.number for record in day.records]
    compared = 0
    for record in day.records:
        answer, sure = max(found[record.number].items(), key=lambda pair: pair[1])
        assert record.answers[0].probabilities[answer] == pytest.approx(sure, abs=NEAR), record
        if abs(sure - AT_LEAST) > NEAR:
            compared += 1
            assert record.verdict == (MEANS[answer] if sure >= AT_LEAST else "unsure"), record
    assert compared >= 0.9 * len(day.records)


def _probabilities(scores: dict[str, float]) -> dict[str, float]:
    weights = {choice: math.exp(score) for choice, score in scores.items()}
    return {choice: weight / sum(weights.values()) for choice, weight in weights.items()}


def test_verdicts_say_what_was_drawn(day: Day) -> None:
    """Also those after damage: of a picture that is not whole nothing is said."""
    right = 0
    for record in day.records:
        with Image.open(day.picture(record)) as kept:
            part = day.parts[film.number_of(np.asarray(kept))]
        right += record.verdict == ("reject" if part.defect else "accept")
    assert right >= 0.9 * len(day.records)
    assert {"reject", "accept"} <= {record.verdict for record in day.records}


def test_records_chain_through_all_of_it(day: Day) -> None:
    assert problems(day.folder) == ()
    assert [record.number for record in day.records] == list(range(1, len(day.records) + 1))
    sequence = [record.frame.sequence for record in day.records]
    assert sequence == sorted(set(sequence))
    assert day.summary is not None
    assert (day.summary.ended, day.summary.last_record) == ("stopped", len(day.records))
    assert sum(day.summary.verdicts.values()) == len(day.records)


def test_damage_loses_neither_the_camera_nor_a_verdict(day: Day) -> None:
    state = day.states["damage"]
    assert state["counters"]["decode_errors"] > 1
    assert "source_losses" not in state["counters"]
    assert state["counters"].get("judging_failed", 0) == 0
    assert state["healthy"]


def test_another_size_is_judged_by_the_same_plan(day: Day) -> None:
    sizes = [(record.frame.width, record.frame.height) for record in day.records]
    small, large = film.frame_size(), film.frame_size(LARGER)
    assert set(sizes) == {small, large}
    assert sizes[-1] == small
    assert large in sizes[day.seen["damage"] : day.seen["larger"]]


def test_a_camera_that_lost_its_power_comes_back(day: Day) -> None:
    assert day.lost.startswith("rtsp://127.0.0.1:")
    after = day.states["back"]
    assert after["counters"]["source_losses"] >= 1
    assert after["conditions"] == []
    assert after["healthy"]
