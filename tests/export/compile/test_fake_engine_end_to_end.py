"""A whole bundle through the TensorRT backend, with a FAKE library over a FAKE GPU that computes with onnxruntime: the
answers are onnxruntime's exactly when every buffer is bound, copied and kept as it must be. No GPU takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from tests.support.fake_cuda import FakeCuda
from tests.support.fake_engines import add_fake_engines, install
from tests.support.fake_nvidia import fake_tensorrt

QUESTIONS = ("What is this?", "Is there a scratch on it?", "What is this made of?")


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_answers_are_onnxruntimes(
    own_standard_bundle: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, cuda_graph: bool
) -> None:
    cuda = install(monkeypatch, fake_tensorrt(FakeCuda()))
    add_fake_engines(own_standard_bundle)
    options = {"temperature": 0.0, "max_new_tokens": 6}
    reference = edgevlm_runtime.load(own_standard_bundle, threads=1, prefill_chunk=7)
    vlm = edgevlm_runtime.load(own_standard_bundle, engine="tensorrt-rtx", prefill_chunk=7, cuda_graph=cuda_graph)
    with vlm.session(picture) as session, reference.session(picture) as expected:
        for question in QUESTIONS:  # the second and third reuse the image's part of the cache
            answer, wanted = session.ask(question, **options), expected.ask(question, **options)
            assert answer.token_ids == wanted.token_ids
            assert answer.prefix_tokens_reused == wanted.prefix_tokens_reused
        assert answer.prefix_tokens_reused > 0
        assert session.choose(QUESTIONS[0], ["yes", "no"]).probabilities == pytest.approx(
            expected.choose(QUESTIONS[0], ["yes", "no"]).probabilities
        )
    assert (cuda.calls["launch"] > 0) == cuda_graph
