"""Contexts on disk over real decoders: answers after a restart are those of a context that was computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import Answer
from tests.export.parity.test_parity import CASES, QUESTIONS, TOKENS, pictures

FAMILIES = (
    "llava-qwen2-tied",
    "qwen2_vl-tied",
    "qwen3_5-published",
    "lfm2_vl-published",
    "gemma3-window-24",
    "gemma4-small",
    "paligemma-2",
)
ENGLISH = Path(__file__).parents[3] / "benchmarks" / "english.txt"


@pytest.fixture(scope="module", params=[*FAMILIES, "int8 cache"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    if request.param in CASES:
        return export_bundle(CASES[request.param](folder / request.param))
    samples = folder / "samples"
    samples.mkdir()
    (samples / "text.txt").write_text(ENGLISH.read_text(encoding="utf-8")[:4000], encoding="utf-8")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(samples / "a.png")
    return export_bundle(CASES[FAMILIES[0]](folder / "kv"), kv="int8", calibrate=samples)


def _ask(bundle: Path, folder: Path | None, picture: object, question: str) -> Answer:
    """Of a model that was just loaded."""
    vlm = edgevlm_runtime.load(bundle, threads=1, context_cache_dir=folder)
    return vlm.ask(picture, question, max_new_tokens=TOKENS)


def test_answers_after_a_restart(bundle: Path, tmp_path: Path) -> None:
    manifest = edgevlm_runtime.load(bundle, threads=1).manifest
    reuses = manifest.decoder.attention != "prefix"
    for picture in pictures()[:2]:
        for number, question in enumerate(QUESTIONS[:3]):
            expected = _ask(bundle, None, picture, question)
            for again in range(2):
                answer = _ask(bundle, tmp_path, picture, question)
                assert answer.token_ids == expected.token_ids, (number, again)
                if number + again:
                    assert (answer.image_cache == "hit") == reuses
                    assert (answer.prefix_tokens_reused >= answer.image_tokens) == reuses
    assert bool(list(tmp_path.glob("*.context"))) == reuses


def test_two_pictures_and_the_first_alone(bundle: Path, tmp_path: Path) -> None:
    one, two = pictures()[:2]
    if edgevlm_runtime.load(bundle, threads=1).manifest.decoder.attention == "prefix":
        pytest.skip("nothing of a prompt is of use to another")
    for given in ([one, two], [one], [two], [two, one], [one, two]):
        expected = _ask(bundle, None, given, QUESTIONS[0])
        assert _ask(bundle, tmp_path, given, QUESTIONS[0]).token_ids == expected.token_ids
