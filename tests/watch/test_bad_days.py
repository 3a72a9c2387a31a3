"""What goes wrong with a whole `edgevlm watch`: one clear line and exit code 2, or a condition that is shown while it
lasts, with verdicts going on. Each part has its own tests of the same; here they are together.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from PIL import Image

import edgevlm_runtime
from edgevlm.cli import cli
from edgevlm.watch.plan.plan import Page
from edgevlm.watch.plan.read import read
from edgevlm.watch.service.run import Summary, run
from edgevlm.watch.sinks.delivery import line
from tests.support import http_camera, videos
from tests.support.hooked import Hook
from tests.support.polling import free_port, until
from tests.support.running import problems, records, write_plan
from tests.support.seal import write_manifest

REGION = '[[region]]\nname = "part"\n{what}\n'
WEBHOOK = '[[sink]]\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\ndrain_s = 0.2\n'


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(tiny_bundle)


class Running:
    """A watch in a thread of this process, looked at through its page."""

    def __init__(self, plan: Path, vlm: edgevlm_runtime.VLM) -> None:
        self.stop, self.summary, self.error = threading.Event(), None, None
        self._said: list[str] = []
        self._plan, self._vlm = replace(read(plan), page=Page(port=0)), vlm
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self._address = until(lambda: self._said or self.error, "the page's address")[0].removeprefix("page: ")

    summary: Summary | None
    error: list[str] | None

    def _run(self) -> None:
        try:
            self.summary = run(self._plan, self._vlm, stop=self.stop, show=self._said.append)
        except Exception as error:  # noqa: BLE001 -- shown by the test
            self.error = [str(error)]

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{self._address}api/state").json()
        return found

    def conditions(self) -> dict[str, str]:
        return {one["name"]: one["text"] for one in self.state()["conditions"]}

    def health(self) -> int:
        return httpx2.get(f"{self._address}health").status_code


@contextmanager
def watching(plan: Path, vlm: edgevlm_runtime.VLM) -> Iterator[Running]:
    watch = Running(plan, vlm)
    try:
        yield watch
    finally:
        watch.stop.set()
        watch.thread.join(60)
    assert not watch.thread.is_alive()
    assert watch.error is None


def refused(*words: object) -> str:
    """The one line with which `edgevlm watch` refuses."""
    done = CliRunner().invoke(cli, ["watch", *map(str, words)], prog_name="edgevlm")
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    *progress, said = done.stderr.splitlines()
    assert said.startswith("Error: ")
    assert progress == [] or "--dry-run" in words
    return said


def slowly(plan: Path, seconds: float = 0.02) -> Path:
    """The plan with a frame so often, at most."""
    text = plan.read_text("utf-8").replace('kind = "every"', f'kind = "interval"\nseconds = {seconds}')
    plan.write_text(text, encoding="utf-8")
    return plan


def source(plan: Path, table: str, top: str = "") -> Path:
    """The plan with another source."""
    text = plan.read_text("utf-8")
    begin, end = text.index("[source]"), text.index("[trigger]")
    plan.write_text(top + text[:begin] + f"[source]\n{table}\n" + text[end:], encoding="utf-8")
    return plan


def test_a_camera_that_is_not_there_fails_or_is_waited_for(tmp_path: Path, tiny: edgevlm_runtime.VLM) -> None:
    port = free_port()
    table = f'kind = "http"\nurl = "http://127.0.0.1:{port}/video"\ntimeout_s = 1'
    plan = source(write_plan(tmp_path, tiny.bundle.path), table, 'at_start = "fail"\n')
    assert refused(plan) == f"Error: http://127.0.0.1:{port}/video: Connection refused"
    plan.write_text(plan.read_text("utf-8").replace('"fail"', '"retry"'), encoding="utf-8")
    with watching(plan, tiny) as watch:
        until(lambda: "Connection refused" in watch.conditions().get("source", ""), "the condition")
        assert (watch.health(), records(tmp_path)) == (503, [])
        with http_camera.camera(port):
            until(lambda: len(records(tmp_path)) >= 2, "verdicts")
            assert (watch.health(), watch.conditions()) == (200, {})


def test_a_video_of_a_codec_that_nobody_knows(tmp_path: Path, tiny_bundle: Path) -> None:
    file = videos.write(tmp_path / "line.mp4", 5)
    file.write_bytes(file.read_bytes().replace(b"avc1", b"zzz1"))
    plan = source(write_plan(tmp_path, tiny_bundle), 'kind = "video"\npath = "line.mp4"')
    assert "line.mp4" in refused(plan)
    assert records(tmp_path) == []


BAD_REGIONS = {
    "box = [0, 0, 65, 64]": "the box 0, 0, 65, 64 is not inside the frame, which is 64x64",
    'mask = "mask.png"': "mask.png is 32x64, and the frames are 64x64: draw it over a saved frame",
}


@pytest.mark.parametrize("what", BAD_REGIONS)
def test_a_region_that_does_not_fit_the_camera(tmp_path: Path, tiny: edgevlm_runtime.VLM, what: str) -> None:
    """Before: refused. While it runs, since a camera may change: no verdict is made up, and it is said why."""
    Image.new("L", (32, 64), 255).save(tmp_path / "mask.png")
    plan = write_plan(tmp_path, tiny.bundle.path, loop=True, more=REGION.format(what=what))
    text = plan.read_text("utf-8").replace('["yes", "no"]', '["yes", "no"]\nregion = "part"')
    plan.write_text(text, encoding="utf-8")
    assert BAD_REGIONS[what] in refused(plan, "--dry-run")
    with watching(plan, tiny) as watch:
        until(lambda: len(records(tmp_path)) >= 3, "records")
        assert BAD_REGIONS[what] in watch.conditions()["judging"]
        assert watch.health() == 503
        assert watch.state()["counters"]["judging_failed"] >= 3
    assert {one.verdict for one in records(tmp_path)} == {"unsure"}
    assert BAD_REGIONS[what] in records(tmp_path)[0].answers[0].error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[source]", "[source]\nfils = 3"), "source: fils: unknown key: did you mean files?"),
        (("[trigger]", 'regon = "part"\n[trigger]'), "source: regon: unknown key"),
        (('["yes", "no"]', '["yes", "no"]\nregion = "rim"'), "region: there is no region 'rim'"),
        (("[records]", '[[region]]\nname = "r"\nbox = [3, 3, 3, 9]\n[records]'), "box"),
    ],
)
def test_plans_that_cannot_be(tmp_path: Path, tiny_bundle: Path, change: tuple[str, str], said: str) -> None:
    plan = write_plan(tmp_path, tiny_bundle)
    plan.write_text(plan.read_text("utf-8").replace(*change), encoding="utf-8")
    found = refused(plan)
    assert found.startswith(f"Error: {plan}: line ")
    assert said in found


def test_choices_that_are_the_same_to_the_model(tmp_path: Path, tiny_bundle: Path) -> None:
    """A bundle with a tokenizer that does not tell capitals."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "lower"))
    tokenizer, manifest = folder / "tokenizer.json", json.loads((folder / "manifest.json").read_text())
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "normalizer": {"type": "Lowercase"}}))
    digest, size = hashlib.sha256(tokenizer.read_bytes()).hexdigest(), tokenizer.stat().st_size
    manifest["files"]["tokenizer.json"] = {"sha256": digest, "bytes": size}
    write_manifest(folder, manifest)
    plan = write_plan(tmp_path, folder)
    plan.write_text(plan.read_text("utf-8").replace('["yes", "no"]', '["Yes", "yes"]'), encoding="utf-8")
    assert "choices ['Yes', 'yes'] do not differ in this model's tokens: word them otherwise" in refused(plan)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(
    small_disk: Path, tmp_path: Path, tiny: edgevlm_runtime.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, kept pictures and a spool on it: verdicts go on and go out, it is said, and over when there is room."""
    monkeypatch.setenv("XDG_STATE_HOME", str(small_disk))
    with Hook() as hook:
        bounds = 'spool_mb = 0.06\n[[sink]]\nkind = "pictures"\nof = ["all"]\nmb = 0.05\n'
        more = WEBHOOK.format(port=hook.port) + bounds
        plan = write_plan(tmp_path, tiny.bundle.path, loop=True, more=more)
        file = small_disk / "records.jsonl"
        slowly(plan, 0.2)  # a loaded machine, too, sends more than that
        text = plan.read_text("utf-8").replace('"records.jsonl"', f'"{file}"\nrotate_mb = 0.02\nkeep_mb = 0.04')
        plan.write_text(text, encoding="utf-8")
        with watching(plan, tiny) as watch:
            until(lambda: watch.state()["counters"].get("records_written", 0) >= 3, "records")
            _fill(small_disk / "other")
            until(lambda: "records" in watch.conditions(), "it is said")
            assert "No space left on device" in watch.conditions()["records"]
            assert watch.health() == 503
            before = watch.state()["counters"]
            until(lambda: _verdicts(watch.state()) > _verdicts({"counters": before}) + 5, "verdicts go on")
            (small_disk / "other").unlink()
            until(lambda: watch.conditions() == {}, "it is over")
            assert watch.health() == 200
    from edgevlm.watch.records.verify import verify

    (found,) = verify(file)
    assert found.problems == []
    assert "records_lost" not in before


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filling:
        try:
            while True:
                filling.write(bytes(4096))
        except OSError:
            return


def _verdicts(state: dict[str, Any]) -> int:
    return sum(count for name, count in state["counters"].items() if name.startswith("verdicts."))


def test_a_clock_that_jumps(tmp_path: Path, tiny: edgevlm_runtime.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hours and years, forwards and backwards, at every look: no verdict is lost, late or old because of it."""
    chance, now = random.Random(3), time.time
    jumps = [0.0, 3600.0, -3600.0, 1e8, -1e8, -now()]
    monkeypatch.setattr(time, "time", lambda: now() + chance.choice(jumps))
    more = "[verdict]\ndeadline_ms = 60000\n" + '[[sink]]\nkind = "pictures"\nof = ["all"]\nmb = 0.1\n'
    plan = write_plan(tmp_path, tiny.bundle.path, loop=True, more=more)
    with watching(slowly(plan), tiny) as watch:
        until(lambda: len(records(tmp_path)) >= 20, "records")
        assert (watch.health(), watch.conditions()) == (200, {})
    found = records(tmp_path)
    assert problems(tmp_path) == ()
    assert {one.status for one in found} == {"in time"}
    assert all(0 < one.latency_ms < 60_000 for one in found)
    assert any(after.decided_at < before.decided_at for before, after in pairwise(found))


def test_a_server_that_hangs_keeps_no_verdict_back(
    tmp_path: Path, tiny: edgevlm_runtime.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did not take waits on disk, and is sent when it answers again."""
    monkeypatch.setattr(line, "HANGS_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        plan = slowly(write_plan(tmp_path, tiny.bundle.path, loop=True, more=WEBHOOK.format(port=port)))
        with watching(plan, tiny) as watch:
            until(lambda: len(records(tmp_path)) >= 10, "verdicts all the same")
            until(lambda: watch.state()["gauges"].get("sink_webhook_waiting", 0) >= 5, "it is seen how many wait")
        assert watch.summary is not None
        assert watch.summary.ended == "stopped"
    count = len(records(tmp_path))
    with Hook(port=port) as hook, watching(plan, tiny):
        until(lambda: len(hook.received) >= count, "all of them")
    numbers = [json.loads(body)["number"] for body in hook.delivered()]
    assert numbers[:count] == list(range(1, count + 1))
