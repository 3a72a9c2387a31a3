"""The demonstration behind `make demo-camera`: a line of parts as a camera sees it, watched by `inspector`.

    python -m edgevlm.demo.camera --out build/demo-camera --seconds 30

Parts that training never saw are drawn into a video, which examples/rtsp_server.py serves as a network camera does
(where the system has gst-rtsp-server; else the file is played at its own speed, and that is said). A watch looks at it,
and verdicts come in the terminal and on a page. At the end each is compared with what was drawn: which part a frame
shows is painted beside it, outside of the region that the model sees.
"""

from __future__ import annotations

import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import numpy as np

from edgevlm.demo import export_model, film, start
from edgevlm_runtime.child import environment

if TYPE_CHECKING:
    from edgevlm_export.inspection import Part

PARTS = film.MOST
SHOWN_S = 0.8
"""How long each part stays before the camera."""
SIDE = film.PART * film.TIMES
SYSTEM_PYTHON = "/usr/bin/python3"
"""The one that Debian's bindings of GStreamer are for."""
START_S = 20.0
"""How long the camera may take to say its address."""
PIPES: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
PLAN = """\
name = "demo"
bundle = {bundle}

[source]
{source}

[trigger]                            # a part has come, and rests
kind = "change"
settle_s = 0.2
box = [0, 0, {side}, {side}]

[[region]]
name = "part"
box = [0, 0, {side}, {side}]

[[question]]
name = "defect"
text = {question}
choices = ["yes", "no"]
verdicts = {{yes = "reject", no = "accept"}}
at_least = 0.8
region = "part"

[verdict]
order = ["reject", "unsure", "accept"]
deadline_ms = 5000

[records]
file = "records.jsonl"

[[sink]]
kind = "terminal"

[[sink]]
kind = "pictures"
folder = "pictures"
of = ["all"]

[page]
port = {port}
"""


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo-camera"), show_default=True
)
@click.option("--seconds", type=click.FloatRange(1, 3600), default=30.0, show_default=True, help="How long to watch.")
@click.option("--port", type=click.IntRange(0, 65535), default=8750, show_default=True, help="Of the page; 0: any.")
def main(out: Path, seconds: float, port: int) -> None:
    """Watch a line of parts with the shipped model."""
    from edgevlm.watch.judging.opening import open_bundle
    from edgevlm.watch.plan.read import read
    from edgevlm.watch.service.run import run

    shutil.rmtree(out / "pictures", ignore_errors=True)
    for old in out.glob("records*"):
        old.unlink()
    bundle = export_model(out)
    parts = film.parts(PARTS)
    video = out / "line.mp4"
    click.echo(f"Rendering {len(parts)} parts into {video} ...")
    film.write(parts, video, SHOWN_S)
    with _camera(video) as source:
        plan = out / "plan.toml"
        plan.write_text(_plan(bundle, source, port), encoding="utf-8")
        click.echo(f"Watching {PARTS} parts, one every {SHOWN_S} s, for {seconds:g} s: edgevlm watch {plan}")
        stop = threading.Event()
        clock = threading.Timer(seconds, stop.set)
        clock.daemon = True
        clock.start()
        summary = run(read(plan), lambda: open_bundle(bundle, {}), stop=stop, show=click.echo)
    right, of = _compare(out, parts)
    click.echo(f"\n{summary.judged} frames judged, {right} of {of} verdicts right; records, pictures, plan: {out}")
    if of == 0 or right < 0.9 * of:
        click.echo("That is fewer than it should be.", err=True)
        click.get_current_context().exit(1)


@contextmanager
def _camera(video: Path) -> Iterator[str]:
    """The `[source]` table of a camera that shows the video again and again."""
    script = Path(__file__).parents[2] / "examples" / "rtsp_server.py"
    lines = f'kind = "video"\npath = "{video.name}"\nrealtime = true\nloop = true'
    if not _has_rtsp_server(script):
        click.echo(
            "No RTSP server here (Debian: apt install gir1.2-gst-rtsp-server-1.0 python3-gi and the good, bad and"
        )
        click.echo("ugly plugins of gstreamer1.0, in a clone of edgevlm): the video file is played instead.")
        yield lines
        return
    command = [SYSTEM_PYTHON, str(script), "--fps", str(film.FPS), str(video)]
    with subprocess.Popen(command, env=environment(), **PIPES) as server:
        try:
            address = _said(server.stdout)
            click.echo(f"Camera: {address or 'did not start, so the file is played'}")
            yield f'kind = "rtsp"\nurl = "{address}"' if address else lines
        finally:
            server.terminate()


def _said(output: IO[str] | None) -> str:
    """The server's first line, its address; empty when it says none for `START_S`."""
    if output is None or not select.select([output], [], [], START_S)[0]:
        return ""
    return output.readline().strip()


def _has_rtsp_server(script: Path) -> bool:
    if not script.is_file() or shutil.which(SYSTEM_PYTHON) is None:
        return False
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    return (
        subprocess.run([SYSTEM_PYTHON, "-c", probe], env=environment(), capture_output=True, check=False).returncode
        == 0
    )


def _plan(bundle: Path, source: str, port: int) -> str:
    from edgevlm_export import inspection

    question = inspection.QUESTIONS["exists"][0].text
    return PLAN.format(bundle=f'"{bundle.name}"', source=source, port=port, side=SIDE, question=f'"{question}"')


def _compare(out: Path, parts: list[Part]) -> tuple[int, int]:
    """How many verdicts say what was drawn, of how many whose picture was kept; those that do not are named."""
    from edgevlm.watch.records.reading import records
    from edgevlm_runtime.images import load_image

    kept = {file.name.partition("-")[0].lstrip("0"): file for file in (out / "pictures").rglob("*.png")}
    right = of = 0
    for record in records(out / "records.jsonl"):
        file = kept.get(str(record.number))
        if file is None:
            click.echo(f"record {record.number}: no picture of it was kept")
            continue
        number = film.number_of(np.asarray(load_image(file)))
        truth = "reject" if parts[number].defect else "accept"
        of += 1
        right += record.verdict == truth
        if record.verdict != truth:
            click.echo(f"record {record.number}: {record.verdict}, drawn was {parts[number].defect or 'a good part'}")
    return right, of


if __name__ == "__main__":
    start(main)
