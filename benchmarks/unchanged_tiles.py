"""A fixed camera's video through a model that cuts pictures into tiles: how many tiles are the same to the last bit as
in the frame before, and what a frame costs when those are not encoded again.

    python -m benchmarks.unchanged_tiles --work DIR

SmolVLM-256M's shape with random weights in int8, pictures of 1920x1080 in 12 tiles and one of the whole.
The video is drawn: a workshop's wall that stands still, a part that moves within a tenth of the picture, and the noise
of a sensor; then compressed by x264, as cameras do, and read again. Compression leaves blocks out that hardly change,
and those are then the same to the last bit; noise, an overview of the whole picture and a new key frame are not.
Answers with and without reuse are compared. Figures go into benchmarks/results/unchanged-tiles.json.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import edgevlm_runtime
from benchmarks import folders, kept
from benchmarks.shapes import make_checkpoint
from edgevlm.watch.judging.opening import IMAGES_KEPT
from edgevlm_export.api import ExportOptions, export
from edgevlm_runtime import VLM

RESULTS = Path(__file__).parent / "results" / "unchanged-tiles.json"
SHAPE = "smolvlm-256m-tiles"
SIZE = (1920, 1080)
PART = 300
"""Side of what moves, in pixels."""
QUESTION = "Is there a defect on this part?"
Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Video:
    """How a video is made and sampled."""

    noise: float
    """Standard deviation of the sensor's noise, of 255."""
    quality: int | None
    """x264's constant rate factor; None for frames as they are drawn, as of a screen."""
    every: int
    """Frames from one that is judged to the next, at 30 a second."""
    key_frames: int = 300
    """Frames from one that is compressed alone to the next."""


VIDEOS = (
    Video(0, None, 1),
    *(Video(noise, 23, every) for noise in (0, 0.5, 1, 2) for every in (1, 10)),
    Video(1, 32, 10),
    Video(0, 23, 30, key_frames=30),
)
SETTLED = 90
"""Frames before the first that is judged: at first x264 refines what stands still."""
JUDGED = 8
"""Frames of each video that are compared with the one before."""
TIMED = 5
ROUNDING = 0.1
"""By which log-probabilities may differ: prompts are computed in other parts, as with any prefix that is reused, and
activations rounded to 8 bits make more of the last bits than floats do. Embeddings are the same to the last bit."""


def drawn(video: Video) -> Iterator[Frame]:
    """Frames without end."""
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(60, 200, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8))
    wall = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)))
    number = 0
    while True:
        frame = wall.copy()
        left, top = 40 + 7 * number % 180, 60 + 3 * number % 120
        frame[top : top + PART, left : left + PART] = (200, 80, 40)
        noise = draw.normal(0, video.noise, frame.shape) if video.noise else 0
        yield np.clip(frame + noise, 0, 255).round().astype(np.uint8)
        number += 1


def judged(video: Video, count: int) -> Iterator[Frame]:
    """The frames that are judged, as they come out of the decoder."""
    frames = drawn(video)
    if video.quality is None:
        yield from (next(islice(frames, video.every - 1, None)) for _ in range(count))
        return
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        options = {"crf": str(video.quality), "preset": "veryfast", "tune": "zerolatency", "g": str(video.key_frames)}
        stream = output.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(SETTLED + (count - 1) * video.every + 1):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(next(frames), format="rgb24")))
        output.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as source:
        for number, frame in enumerate(source.decode(video=0), -SETTLED):
            if number >= 0 and number % video.every == 0:
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def same(vlm: VLM, video: Video) -> dict[str, Any]:
    """How many tiles of a frame, on average, are those of the frame before."""
    tiles = [vlm.pipeline.prepare(Image.fromarray(frame)).tiles for frame in judged(video, JUDGED + 1)]
    unchanged = [sum(one == other for one, other in zip(a, b, strict=True)) for a, b in pairwise(tiles)]
    return {**asdict(video), "tiles": len(tiles[0]), "unchanged": statistics.mean(unchanged)}


def timed(bundle: Path, video: Video) -> dict[str, Any]:
    """Frames with and without reuse, taking turns. Raises `ClickException` when the answers are not the same."""
    frames = [Image.fromarray(frame) for frame in judged(video, TIMED + 1)]
    spent: dict[str, list[float]] = {"reusing": [], "anew": []}
    models = {name: edgevlm_runtime.load(bundle, image_cache_bytes=IMAGES_KEPT) for name in spent}
    sessions = {name: vlm.session() for name, vlm in models.items()}
    black = Image.new("RGB", (64, 64))
    for number, frame in enumerate(frames):
        told: dict[str, tuple[tuple[int, ...], float]] = {}
        for name in sorted(spent, reverse=bool(number % 2)):
            session = sessions[name]
            if name == "anew":  # nothing of the frame before: the picture between has no tile in common
                session.show(black)
                session.ask(QUESTION, max_new_tokens=1)
                models[name].image_cache.clear()
            start = time.perf_counter()
            session.show(frame)
            answer = session.ask(QUESTION, max_new_tokens=1)
            if number:
                spent[name].append((time.perf_counter() - start) * 1e3)
            told[name] = answer.token_ids, answer.logprobs[0]
        (tokens, logprob), (others, other) = told.values()
        if tokens != others or abs(logprob - other) > ROUNDING:
            raise click.ClickException(f"reuse changed an answer: {told}")
    medians = {f"{name}_ms": round(statistics.median(each), 1) for name, each in spent.items()}
    return {**asdict(video), **medians, "raw_ms": spent}


def exported(work: Path) -> Path:
    """The bundle, in int8."""
    checkpoint = folders.ensure(work / SHAPE, lambda folder: make_checkpoint(folder, SHAPE))

    def make(folder: Path) -> None:
        export(
            ExportOptions(
                str(checkpoint), folder, precision="int8", certificate=False, self_test=False, max_kl=float("inf")
            )
        )

    return folders.ensure(work / f"{SHAPE}-int8", make)


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), required=True, help="Room for the bundle.")
def main(work: Path) -> None:
    bundle = exported(work)
    vlm = edgevlm_runtime.load(bundle)
    found: dict[str, Any] = {"counted": [], "timed": []}
    for video in VIDEOS:
        found["counted"].append(same(vlm, video))
        click.echo(json.dumps(found["counted"][-1]))
    for video in (VIDEOS[0], Video(1, 23, 1)):
        found["timed"].append(timed(bundle, video))
        click.echo(json.dumps({name: value for name, value in found["timed"][-1].items() if name != "raw_ms"}))
    kept.store(RESULTS, SHAPE, figures=found)


if __name__ == "__main__":
    main()
