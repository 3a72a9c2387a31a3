"""Sections of `benchmarks.camera` that run a whole `edgevlm watch`, in a process of its own: how old the pictures are
that are judged on a camera that is faster than the model, and what thousands of frames leave behind in memory.

Age: examples/rtsp_server.py notes when it sends each picture, by the clock that all processes of a machine share, and
the number of each is painted into it. The watch says when it began and ended to judge it. So both the picture's age
since its capture (when the watch had received it) and since it was sent are known, each at the beginning and at the end
of judging.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import psutil
from numpy.typing import NDArray

from edgevlm_runtime import VLM

Figures = dict[str, Any]
SIZE = (640, 480)
FPS = 30
BITS = 13
SQUARE = 48
"""Pixels of a square; the number of a picture is written in `BITS` of them at the bottom."""
LOOP = 256
"""Pictures of the film that is served."""
AGED = 60
"""Frames whose age is measured; one more comes first and does not count."""
STEADY, WARM, STEP = 5000, 500, 250
"""Frames of the long run, those before memory counts, and how often it is read."""
MIB = 1 << 20
SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[1] / "examples" / "rtsp_server.py"
PLAN = """\
name = "measured"
bundle = {bundle}
max_frames = {frames}
[loading]
engine = "ort"
[source]
{source}
[trigger]
kind = "every"
[[question]]
name = "defect"
text = {question}
choices = {choices}
[records]
file = "records.jsonl"
rotate_mb = 2
keep_mb = 6
{more}
"""
STEADY_PLAN = """\
[[sink]]
kind = "pictures"
of = ["all"]
format = "jpeg"
mb = 20
[[sink]]
kind = "terminal"
json = true
[page]
port = 0
"""


class Asked(Protocol):
    """What a model is asked."""

    @property
    def questions(self) -> tuple[str, ...]: ...
    @property
    def choices(self) -> tuple[str, ...]: ...


def live(vlm: VLM, model: Asked) -> Figures:
    """The age of every answered frame on an RTSP camera of 30 frames a second."""
    with tempfile.TemporaryDirectory() as folder:
        here, bundle = Path(folder), vlm.bundle.path
        film(here / "film.mp4", LOOP)
        with _served(here / "film.mp4", here / "sent") as url:
            _write_plan(here, bundle, model, AGED + 1, f'kind = "rtsp"\nurl = "{url}"')
            script = "import sys; from benchmarks.watching import timed; timed(sys.argv[1])"
            done = subprocess.run(
                [sys.executable, "-c", script, str(here)], check=True, stdout=subprocess.PIPE, text=True
            )
        judged = [json.loads(line) for line in done.stdout.splitlines()][1:]
        sent = _sent(here / "sent")
    return ages(judged, sent)


def ages(judged: Sequence[Figures], sent: dict[int, list[float]]) -> Figures:
    """Of frames `judged` ("number" in the film, times "captured", "begun", "ended"), with the times at which each
    number was `sent`: how old they were, in milliseconds, and how many were older than a frame's interval."""
    interval = 1e3 / FPS
    rows = []
    for one in judged:
        times = sent[one["number"]]
        at = times[bisect_right(times, one["begun"]) - 1]
        rows.append(
            {
                "received_begun_ms": round(1e3 * (one["begun"] - one["captured"]), 2),
                "sent_begun_ms": round(1e3 * (one["begun"] - at), 2),
                "judging_ms": round(1e3 * (one["ended"] - one["begun"]), 2),
                "sent_answered_ms": round(1e3 * (one["ended"] - at), 2),
            }
        )
    every = sorted(chain.from_iterable(sent.values()))
    intervals = [1e3 * (after - before) for before, after in pairwise(every)]
    return {
        "frames": len(rows),
        "camera_fps": FPS,
        "interval_ms": round(interval, 2),
        "longest_interval_sent_ms": round(max(intervals), 2),
        **{name: _spread([row[name] for row in rows]) for name in rows[0]},
        "older_than_one_interval_when_begun": {
            "since received": sum(row["received_begun_ms"] > interval for row in rows),
            "since sent": sum(row["sent_begun_ms"] > interval for row in rows),
        },
        "rows": rows,
    }


def timed(folder: str) -> None:
    """Run the plan in `folder`; print when each frame was received, judging began and ended, and its number."""
    from edgevlm.watch.frames.frame import Frame
    from edgevlm.watch.judging.judge import Judge
    from edgevlm.watch.judging.judgement import Judgement
    from edgevlm.watch.judging.opening import open_bundle
    from edgevlm.watch.plan.read import read
    from edgevlm.watch.service.run import run

    judge = Judge.judge

    def noted(self: Judge, frame: Frame) -> Judgement:
        begun = time.monotonic()
        judgement = judge(self, frame)
        ended = time.monotonic()
        row = {"number": number(frame.pixels), "captured": frame.captured, "begun": begun, "ended": ended}
        print(json.dumps(row), flush=True)
        return judgement

    Judge.judge = noted  # type: ignore[method-assign]
    plan = read(Path(folder) / "plan.toml")
    run(plan, open_bundle(plan.bundle, plan.loading))


def steady(vlm: VLM, model: Asked) -> Figures:
    """5,000 different frames through `edgevlm watch`: records and pictures within bounds, JSON on standard output, an
    open page. Resident memory is read from outside, every 250 frames."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        film(here / "film.mp4", STEADY, crf="28")
        _write_plan(here, vlm.bundle.path, model, STEADY, 'kind = "video"\npath = "film.mp4"', STEADY_PLAN)
        command = [sys.executable, "-m", "edgevlm", "watch", "plan.toml"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XDG_STATE_HOME": folder}
        with subprocess.Popen(command, cwd=here, env=environment, **pipes) as watch:
            assert watch.stderr is not None
            address = watch.stderr.readline().partition("page: ")[2].strip()
            script = "import sys; from benchmarks.watching import viewer; viewer(sys.argv[1])"
            with subprocess.Popen([sys.executable, "-c", script, address], env=environment) as page:
                rows, times = _followed(watch)
                watch.communicate()
                page.wait()
        if watch.returncode:
            sys.exit("the watch failed")
        on_disk = sum(file.stat().st_size for file in here.rglob("*") if file.is_file() and file.suffix != ".mp4")
    warm = next(row["rss_mib"] for row in rows if row["frames"] >= WARM)
    seconds = times[-1] - times[WARM]
    return {
        "frames": len(times),
        "warm_up_frames": WARM,
        "frames_per_second": round((len(times) - 1 - WARM) / seconds, 1),
        "rss_after_warm_up_mib": warm,
        "growth_mib": round(rows[-1]["rss_mib"] - warm, 1),
        "largest_growth_mib": round(max(row["rss_mib"] for row in rows if row["frames"] >= WARM) - warm, 1),
        "on_disk_mb": round(on_disk / 1e6, 1),
        "rows": rows,
    }


def _followed(watch: subprocess.Popen[str]) -> tuple[list[Figures], list[float]]:
    """Memory after every `STEP` records that the watch prints, and the time of every record."""
    seen, rows, times = psutil.Process(watch.pid), list[Figures](), list[float]()
    assert watch.stdout is not None
    for line in watch.stdout:
        times.append(json.loads(line)["decided_at"])
        if len(times) % STEP == 0 and len(times) < STEADY:
            row = {
                "frames": len(times),
                "rss_mib": round(seen.memory_info().rss / MIB, 1),
                "threads": seen.num_threads(),
            }
            rows.append({**row, "open_files": seen.num_fds()})
    return rows, times


def viewer(address: str) -> None:
    """What a browser does with the page: events as they come, a picture for each, until the watch ends."""
    import httpx2

    try:
        with httpx2.Client(base_url=address, timeout=60) as client, client.stream("GET", "/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    client.get("/frame.jpg")
    except httpx2.HTTPError:
        return


def film(file: Path, count: int, crf: str = "20") -> None:
    """H.264 of `count` pictures, none like another: patches, and the picture's number in squares."""
    drawn = np.random.default_rng(5)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": crf, "preset": "ultrafast", "tune": "zerolatency", "g": str(FPS)}
        for one in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(drawn, one), format="rgb24")))
        container.mux(stream.encode(None))


def _picture(drawn: np.random.Generator, one: int) -> NDArray[np.uint8]:
    width, height = SIZE
    patches = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = patches[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width]
    for bit in range(BITS):
        pixels[-SQUARE:, bit * SQUARE : (bit + 1) * SQUARE] = 235 if one >> bit & 1 else 16
    return pixels


def number(pixels: NDArray[np.uint8]) -> int:
    """What `film` has painted into a picture."""
    squares = pixels[-SQUARE // 2, SQUARE // 2 : BITS * SQUARE : SQUARE].mean(axis=-1)
    return sum(1 << bit for bit in range(BITS) if squares[bit] > 125)


@contextmanager
def _served(video: Path, log: Path) -> Iterator[str]:
    """The address of a camera that shows the video again and again, and writes down what it sends."""
    if shutil.which(SYSTEM_PYTHON) is None:
        sys.exit(f"{SYSTEM_PYTHON} is missing: examples/rtsp_server.py says what it needs")
    command = [SYSTEM_PYTHON, str(SERVER), "--fps", str(FPS), "--log", str(log), str(video)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def _sent(log: Path) -> dict[int, list[float]]:
    """When each number of the film was sent, by `time.monotonic`."""
    found: dict[int, list[float]] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        one, at = line.split()
        found.setdefault(int(one), []).append(float(at))
    return found


def _write_plan(folder: Path, bundle: Path, model: Asked, frames: int, source: str, more: str = "") -> None:
    text = PLAN.format(
        bundle=json.dumps(str(bundle.resolve())),
        frames=frames,
        source=source,
        question=json.dumps(model.questions[0]),
        choices=json.dumps(model.choices),
        more=more,
    )
    (folder / "plan.toml").write_text(text, encoding="utf-8")


def _spread(values: Sequence[float]) -> Figures:
    median, p95 = np.percentile(values, (50, 95))
    return {"median": round(float(median), 2), "p95": round(float(p95), 2), "most": max(values)}
