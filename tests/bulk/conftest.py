"""Pictures and questions of drawn parts, and what a bundle says of them when it is asked here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm
from edgevlm.bulk.asking import Task
from edgevlm.bulk.run import MapOptions

QUESTIONS = ("is there a scratch", "what is in the picture")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve noise pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def said(tiny_bundle: Path, pictures: Path) -> dict[tuple[str, str], str]:
    """Answers by picture and question, each asked in a session of its own."""
    vlm = edgevlm.load(tiny_bundle)
    return {
        (picture.name, question): vlm.ask(picture, question, max_new_tokens=4, temperature=0.0).text
        for picture in sorted(pictures.iterdir())
        for question in QUESTIONS
    }


@pytest.fixture
def work(tiny_bundle: Path, pictures: Path, tmp_path: Path) -> Callable[..., MapOptions]:
    """Options of a small work: `work(workers=1, ...)`."""

    def make(**options: object) -> MapOptions:
        task = options.pop("task", Task(bundle=str(tiny_bundle), max_new_tokens=4))
        given = {
            "input": str(pictures),
            "output": tmp_path / "out.jsonl",
            "questions": QUESTIONS,
            "workers": 2,
            **options,
        }
        return MapOptions(task=task, **given)  # type: ignore[arg-type]

    return make


def lines(path: Path) -> list[dict[str, object]]:
    """The rows of an output."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
