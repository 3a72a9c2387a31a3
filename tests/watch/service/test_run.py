"""Whole watches in this process: a tiny bundle, real pictures, real records."""

import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.plan.plan import Page, Part
from edgevlm.watch.service import health, watch
from edgevlm.watch.service.run import run
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sources import SOURCES
from edgevlm.watch.sources.base import SourceLost
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.polling import until
from tests.support.running import make_plan, problems, records, supervisor
from tests.support.watching import HangingSink, ListSink, frame


def a_sink(monkeypatch: pytest.MonkeyPatch, sink: ListSink) -> tuple[Part, ...]:
    """A plan's sinks: this one."""
    kind = SimpleNamespace(make_sink=lambda options, about: sink)
    monkeypatch.setitem(SINKS.built_in, "test", kind)  # type: ignore[arg-type]
    return (Part(kind="test", options=None),)


def test_pictures_are_judged_in_order_and_then_it_ends(tmp_path: Path, tiny: VLM, monkeypatch: Any) -> None:
    sink = ListSink()
    plan = replace(make_plan(tmp_path, tiny.bundle.path), sinks=a_sink(monkeypatch, sink))
    summary = run(plan, tiny)
    assert (summary.ended, summary.frames, summary.judged, summary.last_record) == ("source", 4, 4, 4)
    assert (summary.dropped, summary.skipped, summary.late, summary.undelivered) == (0, 0, 0, {})
    found = records(tmp_path)
    assert [Path(one.frame.name).name for one in found] == [f"part-{i:02d}.png" for i in range(4)]
    assert sink.records == found, "what a sink gets is what is on disk"
    assert problems(tmp_path) == ()
    assert {one.bundle for one in found} == {tiny.bundle.content_digest}
    assert {one.plan for one in found} == {plan.digest}
    assert sum(summary.verdicts.values()) == 4
    with Judge(tiny, plan) as judge:
        again = [judge.judge(one.frame) for one in sink.told if hasattr(one, "record")]
    assert [one.verdict for one in found] == [one.verdict for one in again]
    assert sink.closed.is_set()
    assert run(plan, tiny).last_record == 8, "it goes on with the next number"


def test_as_many_frames_as_the_plan_says(tmp_path: Path, tiny: VLM) -> None:
    plan = make_plan(tmp_path, tiny.bundle.path, loop=True, top="max_frames = 6")
    summary = run(plan, tiny)
    assert (summary.ended, summary.judged, summary.last_record) == ("frames", 6, 6)


def test_it_ends_when_it_is_told(tmp_path: Path, tiny: VLM) -> None:
    plan = make_plan(tmp_path, tiny.bundle.path, loop=True)
    stop = threading.Event()
    found: list[Any] = []
    running = threading.Thread(target=lambda: found.append(run(plan, tiny, stop=stop)))
    running.start()
    until(lambda: len(records(tmp_path)) >= 3, "records")
    stop.set()
    running.join(60)
    assert found[0].ended == "stopped"
    assert found[0].last_record == len(records(tmp_path))


def test_a_sink_that_hangs_holds_up_the_end_for_a_bounded_time(tmp_path: Path, tiny: VLM, monkeypatch: Any) -> None:
    monkeypatch.setattr(watch, "DRAIN_S", 0.3)
    hangs = HangingSink()
    plan = replace(make_plan(tmp_path, tiny.bundle.path), sinks=a_sink(monkeypatch, hangs))
    summary = run(plan, tiny)
    assert summary.undelivered == {"test": 4}
    assert [one.status for one in records(tmp_path)] == ["in time"] * 4
    hangs.released.set()
    assert hangs.closed.wait(60)


def test_what_cannot_begin_is_an_error_and_leaves_nothing_open(tmp_path: Path, tiny: VLM, monkeypatch: Any) -> None:
    class Away:
        live = True

        def pictures(self, stop: threading.Event) -> Any:
            raise SourceLost("camera: connection refused")

    kind = SimpleNamespace(open_source=lambda options, status: Away())
    monkeypatch.setitem(SOURCES.built_in, "test", kind)  # type: ignore[arg-type]
    plan = make_plan(tmp_path, tiny.bundle.path)
    away = replace(plan, source=Part(kind="test", options=None), at_start="fail")
    with pytest.raises(SourceLost, match="connection refused"):
        run(away, tiny)
    with pytest.raises(EdgeVLMError, match=r"scratch: .*tokens"):
        run(replace(plan, questions=(replace(plan.questions[0], text="x" * 100_000),)), tiny)
    assert run(plan, tiny).judged == 4, "the record file is free"


def test_a_source_that_fails_for_good_ends_it_after_what_it_gave_is_judged(
    tmp_path: Path, tiny: VLM, monkeypatch: Any
) -> None:
    shown = frame(1, side=64)

    class Ends:
        live = False

        def pictures(self, stop: threading.Event) -> Any:
            yield SimpleNamespace(pixels=shown.pixels, name="", captured=time.monotonic(), captured_at=time.time())
            raise EdgeVLMError("the codec is unknown")

    kind = SimpleNamespace(open_source=lambda options, status: Ends())
    monkeypatch.setitem(SOURCES.built_in, "test", kind)  # type: ignore[arg-type]
    plan = replace(make_plan(tmp_path, tiny.bundle.path), source=Part(kind="test", options=None))
    with pytest.raises(EdgeVLMError, match="codec"):
        run(plan, tiny)
    assert len(records(tmp_path)) == 1


def test_a_judge_that_hangs_is_no_longer_told_to_be_alive(
    tmp_path: Path, tiny: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor then starts the process again."""
    monkeypatch.setattr(health, "Pulse", partial(health.Pulse, first_s=1.0))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    released, judge = threading.Event(), Judge.judge

    def hangs(self: Judge, asked: Any) -> Any:
        assert released.wait(60)
        return judge(self, asked)

    monkeypatch.setattr(Judge, "judge", hangs)
    plan, stop = make_plan(tmp_path, tiny.bundle.path, loop=True), threading.Event()
    running = threading.Thread(target=lambda: run(plan, tiny, stop=stop), daemon=True)
    with supervisor(tmp_path) as receiver:
        running.start()
        assert receiver.recv(100) == b"READY=1"
        receiver.settimeout(3)
        with suppress(TimeoutError):
            assert [receiver.recv(100) for _ in range(1000)] == [], "it never falls silent"
        receiver.settimeout(60)
        released.set()
        assert receiver.recv(100) == b"WATCHDOG=1"
        stop.set()
        running.join(60)
    assert not running.is_alive()


@pytest.mark.parametrize("deadline_ms", [None, 50])
def test_a_judge_that_hangs_at_the_end_is_left_and_its_frame_gets_the_default(
    tmp_path: Path, tiny: VLM, monkeypatch: pytest.MonkeyPatch, deadline_ms: float | None
) -> None:
    monkeypatch.setattr(watch, "JUDGING_S", 0.3)
    asked, released, ended, judge = threading.Event(), threading.Event(), threading.Event(), Judge.judge

    def hangs(self: Judge, one: Any) -> Any:
        asked.set()
        assert released.wait(60)
        ended.set()
        return judge(self, one)

    monkeypatch.setattr(Judge, "judge", hangs)
    plan, stop, sink = make_plan(tmp_path, tiny.bundle.path, loop=True), threading.Event(), ListSink()
    plan = replace(plan, sinks=a_sink(monkeypatch, sink), deadline=replace(plan.deadline, ms=deadline_ms))
    running = threading.Thread(target=lambda: run(plan, tiny, stop=stop))
    running.start()
    assert asked.wait(60)
    stop.set()
    running.join(60)
    assert not running.is_alive()
    released.set()
    assert ended.wait(60)
    until(lambda: "judging" not in [one.name for one in threading.enumerate()], "the judge has come back")
    (one,) = records(tmp_path)
    assert (one.status, one.verdict, one.frame.sequence) == ("default", "unsure", 1)
    assert sink.records == [one], "every sink was told, once"


def test_the_page_shows_it_and_the_supervisor_can_ask(tmp_path: Path, tiny: VLM) -> None:
    plan = replace(make_plan(tmp_path, tiny.bundle.path, loop=True), page=Page(port=0))
    stop, said = threading.Event(), list[str]()
    running = threading.Thread(target=lambda: run(plan, tiny, stop=stop, show=said.append))
    running.start()
    try:
        address = until(lambda: said, "the page's address")[0].removeprefix("page: ")
        until(lambda: records(tmp_path), "a record")
        assert httpx2.get(f"{address}health").status_code == 200
        assert httpx2.get(f"{address}ready").status_code == 200
        assert httpx2.get(f"{address}frame.jpg").headers["content-type"] == "image/jpeg"
        assert "edgevlm_watch_verdicts_total" in httpx2.get(f"{address}metrics").text
        state = httpx2.get(f"{address}api/state").json()
        number, verdict = state["records"][0]["number"], state["records"][0]["verdict"]
        right = next(word for word in state["about"]["verdicts"] if word != verdict)
        marked = httpx2.post(f"{address}api/marks", json={"number": number, "right": right})
        assert marked.status_code == 204
        assert '"mark":"wrong"' in (tmp_path / "records.marks.jsonl").read_text()
    finally:
        stop.set()
        running.join(60)
    assert not running.is_alive()
