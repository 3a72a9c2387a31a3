"""What an inspection camera costs: frames a second with 1, 2 and 4 questions, unchanged scenes, golden pictures.

    python -m benchmarks.camera judging inspector=DIR clip-l-336-qwen2-0.5b=DIR     # bundles, in int8

Each section is a function from a loaded bundle to figures, named in `SECTIONS`; results go into
benchmarks/results/camera.json, a section and model replacing what was there of them, and from there into
docs/measured.md. Frames are drawn (640x480 patches, no two alike), so every one is encoded. Variants take turns, frame
by frame, so that a slow minute hits all of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import edgevlm_runtime
from benchmarks import camera_table, kept, watching
from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.cost import drawn_frame, spent
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.question import Golden, Question
from edgevlm.watch.plan.plan import Part, Plan, Reuse
from edgevlm.watch.rules.choice import Options
from edgevlm_runtime import VLM

RESULTS = Path(__file__).parent / "results" / "camera.json"
PAGE = Path(__file__).parents[1] / "docs" / "measured.md"
SIZE = (640, 480)
COUNTS = (1, 2, 4)
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is asked, and how often."""

    questions: tuple[str, ...]
    choices: tuple[str, ...]
    frames: int
    """Of each variant; one more comes first and does not count."""


MODELS = {
    "inspector": Model(
        (
            "Is there a defect on this part?",
            "Is the part free of defects?",
            "Do you see any damage?",
            "Can this part be passed as good?",
        ),
        ("yes", "no"),
        40,
    ),
    # Its tokenizer has one token a character. A question of ten words has about as many with a real one, and "yes" one.
    "clip-l-336-qwen2-0.5b": Model(("scratches?", "any dents?", "clean one?", "is it bent?"), ("y", "n"), 10),
}
TARGETS = {"four questions, as a multiple of one": 1.5, "unchanged scene, ms": 30.0}
"""Each at most, on the CLIP-L shape."""


def plan_of(model: Model, questions: int, **more: Any) -> Plan:
    """A plan that asks so many questions about the whole picture."""
    nothing = Part(kind="none", options=None)
    options = Options(choices=model.choices)
    asked = tuple(Question(name=text, text=text, options=options) for text in model.questions[:questions])
    return Plan(bundle=Path("none"), source=nothing, trigger=nothing, questions=asked, **more)


def judging(vlm: VLM, model: Model) -> Figures:
    """Fresh frames with 1, 2 and 4 questions; the same frame again, asked and taken over."""
    judges = {count: Judge(vlm, plan_of(model, count, reuse=Reuse(below=0.02, at_most=1))) for count in COUNTS}
    again = Judge(vlm, plan_of(model, COUNTS[-1]))
    fresh: dict[int, list[float]] = {count: [] for count in COUNTS}
    unchanged: list[float] = []
    asked_again: list[float] = []
    for frame in _frames(model.frames + 1):
        for count, judge in judges.items():
            vlm.image_cache.clear()
            fresh[count].append(_milliseconds(judge, frame))
        unchanged.append(_milliseconds(judges[COUNTS[-1]], frame))
        again.judge(frame)
        asked_again.append(_milliseconds(again, frame))
    one, four = (spent(fresh[count][1:]).median for count in (COUNTS[0], COUNTS[-1]))
    return {
        "questions": {str(count): _row(times) for count, times in fresh.items()},
        "four_times_one": four / one,
        "unchanged_taken_over": _row(unchanged),
        "unchanged_asked_again": _row(asked_again),
    }


def golden(vlm: VLM, model: Model) -> Figures:
    """One question about a frame with a golden picture before it: with its keys and values kept; with a session for
    each frame, where its embeddings alone are known; and without a golden picture."""
    kept: list[float] = []
    anew: list[float] = []
    without: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good.png"
        first, *frames = _frames(model.frames + 2, seed=2)
        Image.fromarray(first.pixels).save(good)
        judge = Judge(vlm, plan_of(model, 1, golden=Golden(images=(good,))))
        plain = Judge(vlm, plan_of(model, 1))
        for frame in frames:
            kept.append(_milliseconds(judge, frame))
            _know_only(vlm, first)
            start = time.perf_counter()
            with vlm.session(first.pixels, frame.pixels) as session:
                session.choose(model.questions[0], model.choices)
            anew.append((time.perf_counter() - start) * 1e3)
            _know_only(vlm, first)
            without.append(_milliseconds(plain, frame))
    return {"kept": _row(kept), "session_for_each_frame": _row(anew), "no_golden_picture": _row(without)}


SECTIONS: dict[str, Callable[[VLM, Model], Figures]] = {
    "judging": judging,
    "golden": golden,
    "live": watching.live,
    "steady": watching.steady,
}


def _frames(count: int, seed: int = 1) -> list[Frame]:
    drawn = np.random.default_rng(seed)
    return [drawn_frame(drawn, SIZE, number) for number in range(count)]


def _know_only(vlm: VLM, frame: Frame) -> None:
    """Have the embeddings of this frame alone in the image cache."""
    vlm.image_cache.clear()
    vlm.pipeline.encoder.encode(vlm.pipeline.prepare(frame.pixels))


def _milliseconds(judge: Judge, frame: Frame) -> float:
    judgement = judge.judge(frame)
    for answer in judgement.answers:
        if answer.error:
            sys.exit(f"{answer.question}: {answer.error}")
    return judgement.milliseconds


def _row(times: list[float]) -> Figures:
    found = spent(times[1:])
    return {
        "ms": round(found.median, 2),
        "p95_ms": round(found.p95, 2),
        "frames_per_second": round(1e3 / found.median, 2),
    }


def _write(section: str, name: str, figures: Figures) -> None:
    kept.store(RESULTS, section, name, figures=figures, targets=TARGETS)
    camera_table.write(RESULTS, PAGE)


@click.command()
@click.argument("section", type=click.Choice([*SECTIONS, "all"]))
@click.argument("bundles", nargs=-1, required=True, metavar="MODEL=DIR...")
def main(section: str, bundles: tuple[str, ...]) -> None:
    """Measure SECTION with each bundle, and write it down."""
    for given in bundles:
        name, _, folder = given.partition("=")
        vlm = edgevlm_runtime.load(folder, engine="ort")
        for chosen in SECTIONS if section == "all" else [section]:
            figures = {"frames": MODELS[name].frames, "frame": list(SIZE), **SECTIONS[chosen](vlm, MODELS[name])}
            _write(chosen, name, figures)
            print(name, chosen, json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
