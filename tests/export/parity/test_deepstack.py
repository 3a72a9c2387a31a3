"""Qwen3-VL's DeepStack: columns of image tokens through chunks, reuse, several images and a rotated stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edgevlm_runtime
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plans import choose
from edgevlm_export.reference import Reference
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.samples import Samples
from tests.export.parity.test_parity import CASES, QUESTIONS, TOKENS, pictures, text_part

CASE = "qwen3_vl-tied"
CHUNK = 8
IMAGE = {"type": "image"}
PLACES = {
    "none": (text_part("no"),),
    "start": (IMAGE, text_part("no")),
    "middle": (text_part("is there a"), IMAGE, text_part("scratch")),
    "end": (text_part("describe this image"), IMAGE),
    "both ends": (IMAGE, text_part("what is in the picture"), IMAGE),
    "side by side": (IMAGE, IMAGE, text_part("no"), IMAGE),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CASES[CASE](tmp_path_factory.mktemp("deepstack") / CASE)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.load(str(folder))


@pytest.fixture(scope="module")
def vlm(folder: Path, export_bundle: Callable[..., Path]) -> edgevlm_runtime.VLM:
    """Its chunks are shorter than an image is."""
    return edgevlm_runtime.load(export_bundle(folder), prefill_chunk=CHUNK)


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
@pytest.mark.parametrize("place", PLACES)
def test_images_anywhere(vlm: edgevlm_runtime.VLM, reference: Reference, place: str) -> None:
    parts = PLACES[place]
    images = [pictures()[number] for number in (2, 3, 0)][: sum(part is IMAGE for part in parts)]
    messages = [{"role": "user", "content": [dict(part) for part in parts]}]
    ids, logits = vlm.prompt_logits(messages, images)
    expected_ids, expected = reference.prompt_logits(messages, images)
    assert np.array_equal(ids, expected_ids)
    assert not images or len(ids) > 2 * CHUNK
    assert np.abs(logits - expected).max() < 1e-3


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
def test_reuse_gives_what_a_fresh_session_gives(vlm: edgevlm_runtime.VLM, reference: Reference) -> None:
    image = pictures()[2]
    with vlm.session(image) as session:
        session.ask(QUESTIONS[0], max_new_tokens=TOKENS)
        reused = session.ask(QUESTIONS[1], max_new_tokens=TOKENS)
    assert reused.prefix_tokens_reused >= reused.image_tokens
    assert reused.token_ids == reference.answer(QUESTIONS[1], [image], max_new_tokens=TOKENS).token_ids


def test_columns_count(folder: Path, vlm: edgevlm_runtime.VLM) -> None:
    """Without them the decoder would say something else: the comparisons above mean something."""
    info = vlm.manifest.decoder
    prepared = vlm.pipeline.prepare(pictures()[0])
    rows = vlm.pipeline.encoder.encode(prepared).embeddings
    assert [columns.name for columns in info.image_columns] == ["deepstack_0", "deepstack_1"]
    assert rows.shape[1] == info.row_width == 3 * info.hidden_size
    assert rows[:, info.hidden_size :].std() > 0.1


def test_a_rotated_stream_takes_rotated_columns(folder: Path) -> None:
    """The streamed model with every transform of the int8 plan, in float32, against transformers' own whole model."""
    plan = plan_export(folder, choose("int8"), None, lambda *_: None)
    assert plan.graphs["decoder"].transforms == ("rotate-residual", "rotate-values", "rotate-product")
    assert set(plan.graphs["decoder"].edits.entries) == {"inputs_embeds", "deepstack_0", "deepstack_1"}
    rotated, reference = StreamedModel.of(plan), Reference.load(str(folder))
    image: Image.Image = pictures()[0]
    inputs = rotated.inputs(QUESTIONS[0], [image])
    ids = inputs["input_ids"]
    place = ids == plan.preprocessing.prompt.image_token_id
    rows = rotated.embed(ids)
    rows[place] = torch.from_numpy(reference.image_embeddings(image))
    positions, _ = reference.model.model.get_rope_index(
        ids, inputs["mm_token_type_ids"], inputs["image_grid_thw"], attention_mask=inputs["attention_mask"]
    )
    samples = Samples(rows, torch.ones_like(place), ~place, {"position_ids": positions})
    hidden = rotated.decode(samples)[0]
    made = np.empty((len(hidden), reference.model.config.get_text_config().vocab_size), np.float32)
    rotated.logits([hidden], [made])
    _, expected = reference.prompt_logits(QUESTIONS[0], [image])
    assert np.abs(made - expected).max() < 1e-3


def test_int8_is_near(folder: Path, reference: Reference, export_bundle: Callable[..., Path]) -> None:
    vlm = edgevlm_runtime.load(export_bundle(folder, precision="int8"))
    decoder = vlm.manifest.graphs["decoder"]
    assert list(decoder.transforms) == ["rotate-residual", "rotate-values", "rotate-product"]
    assert not decoder.refused
    messages = [{"role": "user", "content": [dict(IMAGE), text_part(QUESTIONS[2])]}]
    _, logits = vlm.prompt_logits(messages, pictures()[:1])
    _, expected = reference.prompt_logits(messages, pictures()[:1])
    assert 0 < np.abs(logits - expected).max() < 0.3 * expected.std()
