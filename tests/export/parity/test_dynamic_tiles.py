"""InternVL's tiles in a prompt: any number of images, anywhere, in chunks, reused; other precisions, and the reference
that streams weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edgevlm_runtime
from edgevlm_export.reference import Reference
from tests.export.parity.test_blocks import check_streamed
from tests.export.parity.test_deepstack import PLACES
from tests.export.parity.test_parity import CASES, QUESTIONS, TOKENS, pictures

CASE = "internvl-qwen2-published"
CHUNK = 8


@dataclass(frozen=True)
class Case:
    """A checkpoint, what transformers makes of it, and its bundle, whose chunks are shorter than an image is."""

    folder: Path
    reference: Reference
    vlm: edgevlm_runtime.VLM


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]) -> Case:
    folder = CASES[CASE](tmp_path_factory.mktemp("tiles") / CASE)
    vlm = edgevlm_runtime.load(export_bundle(folder), prefill_chunk=CHUNK)
    return Case(folder, Reference.load(str(folder)), vlm)


def asked(place: str) -> tuple[list[dict[str, object]], list[Image.Image]]:
    """Messages and their images: of seven tiles, of three and of seven."""
    images = [pictures()[number] for number in (2, 3, 0)]
    parts = [dict(part) for part in PLACES[place]]
    return [{"role": "user", "content": parts}], images[: sum(part["type"] == "image" for part in parts)]


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
@pytest.mark.parametrize("place", PLACES)
def test_images_anywhere(case: Case, place: str) -> None:
    messages, images = asked(place)
    ids, logits = case.vlm.prompt_logits(messages, images)
    expected_ids, expected = case.reference.prompt_logits(messages, images)
    assert np.array_equal(ids, expected_ids)
    assert not images or len(ids) > 2 * CHUNK
    assert np.abs(logits - expected).max() < 1e-3


def test_images_have_tiles(case: Case) -> None:
    """Else the comparisons here would say little: from one to as many as there can be, and one more of the whole."""
    sizes = ((32, 32), (64, 32), (300, 40), (96, 64))
    tiles = [len(case.vlm.pipeline.prepare(Image.new("RGB", size)).prepared.feeds["pixels"]) for size in sizes]
    assert tiles == [1, 3, 7, 7]


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
def test_reuse_gives_what_a_fresh_session_gives(case: Case) -> None:
    images = pictures()[2:4]
    with case.vlm.session(*images) as session:
        session.ask(QUESTIONS[0], max_new_tokens=TOKENS)
        reused = session.ask(QUESTIONS[1], max_new_tokens=TOKENS)
    assert reused.prefix_tokens_reused >= reused.image_tokens
    with case.vlm.session(*images) as session:
        fresh = session.ask(QUESTIONS[1], max_new_tokens=TOKENS)
    wanted = case.reference.answer(QUESTIONS[1], images, max_new_tokens=TOKENS).token_ids
    assert reused.token_ids == fresh.token_ids == wanted


def test_a_reference_layer_by_layer_reads_the_same(case: Case) -> None:
    check_streamed(case)


@pytest.mark.parametrize(
    ("options", "closeness"),
    [({"precision": "fp16"}, 1e-5), ({"kv": "int8"}, 1e-3), ({"precision": "int8"}, 1e-2)],
    ids=str,
)
def test_other_precisions(
    case: Case, export_bundle: Callable[..., Path], options: dict[str, str], closeness: float
) -> None:
    """Mean KL of the next token over a prompt with images, in nats; every rotation applies."""
    vlm = edgevlm_runtime.load(export_bundle(case.folder, **options), verify="size")
    messages, images = asked("both ends")
    _, found = vlm.prompt_logits(messages, images)
    _, wanted = case.reference.prompt_logits(messages, images)
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (wanted, found))
    divergence = float((p.exp() * (p - q)).sum(-1).mean())
    print("KL", options, divergence)
    assert 0 < divergence < closeness
    if options.get("precision") == "int8":
        decoder = vlm.manifest.graphs["decoder"]
        assert list(decoder.transforms) == ["rotate-residual", "rotate-values", "rotate-product"]
        assert not decoder.refused
