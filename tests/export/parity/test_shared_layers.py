"""Layers that read the keys and values of earlier ones, and embeddings for every layer (Gemma 4's small models).

Wherever images stand, however a prompt is cut and whatever is reused, the answers are those of transformers' generate.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.planning.plan import plan_export
from edgevlm_runtime.errors import ExportError, UnsupportedModel
from tests.export.parity.test_blocks import (
    LONG,
    SINGLE,
    TOKENS,
    TURNS,
    Case,
    check_streamed,
    count,
    greedy,
    prompt_and_images,
    user,
)
from tests.export.parity.test_parity import CASES, QUESTIONS, VARIED, pictures
from tests.support import checkpoints
from tests.support.checkpoints.weights import write_json
from tests.support.references import Remembered

FAMILIES = ["gemma4-small"]
MORE_FAMILIES = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemma4-shared-blocks", "gemma4-even")]


@pytest.fixture(scope="module", params=[*FAMILIES, *MORE_FAMILIES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("shared") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


@pytest.mark.slow  # one configuration of the family is in test_layouts.py
@pytest.mark.parametrize("layout", [*SINGLE, *TURNS])
def test_images_anywhere_in_chunks_of_any_size(case: Case, layout: str) -> None:
    messages = {**SINGLE, **TURNS}[layout]
    images = pictures()[: count(messages)]
    expected = case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
    ids, logits = case.reference.prompt_logits(messages, images)
    for chunk in (1, 4, 37, 1024):
        vlm = edgevlm_runtime.load(case.bundle, prefill_chunk=chunk, verify="size")
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        assert greedy(vlm.pipeline.new_context(), prompt, embeddings, vlm.manifest.generation.eos_token_ids) == expected
        found_ids, found = vlm.prompt_logits(messages, images)
        np.testing.assert_array_equal(found_ids, ids)
        assert np.abs(found - logits).max() < 1e-4, chunk


ASKED = [
    ([user(None, QUESTIONS[0])], (0,)),
    ([user(None, QUESTIONS[1])], (0,)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 1)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 0)),
    ([user(None, QUESTIONS[1])], (1,)),
    ([user(LONG, None, QUESTIONS[0])], (0,)),
    ([user(LONG)], ()),
]


def test_what_is_reused_is_what_a_fresh_run_computes(case: Case) -> None:
    """One KV cache through prompts that share beginnings, a look ahead in each."""
    vlm = edgevlm_runtime.load(case.bundle, prefill_chunk=5, verify="size")
    context, ends = vlm.pipeline.new_context(), vlm.manifest.generation.eos_token_ids
    reused = 0
    for messages, places in ASKED:
        images = [pictures()[place] for place in places]
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        reused += context.shared_prefix(prompt)
        found, fresh = greedy(context, prompt, embeddings, ends), vlm.pipeline.new_context()
        assert found == greedy(fresh, prompt, embeddings, ends)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
        said = np.array([5, 9, 31, 7, 40, 11], dtype=np.int64)
        for ahead, token in zip(context.peek(said), said.tolist(), strict=True):
            np.testing.assert_allclose(fresh.step(token), ahead, atol=1e-4)
            np.testing.assert_allclose(context.step(token), ahead, atol=1e-4)
    assert reused > 150


def test_tokens_that_stand_for_images_are_looked_up_as_padding(case: Case) -> None:
    """A model may say one, and read it then."""
    vlm = edgevlm_runtime.load(case.bundle, verify="size")
    config = case.reference.model.config
    stand_for_rows = [config.image_token_id, config.video_token_id, config.audio_token_id]
    assert vlm.manifest.decoder.stand_ins == dict.fromkeys(stand_for_rows, config.text_config.pad_token_id)
    said = (7, config.video_token_id, 9, config.audio_token_id, 11)
    messages = [user(QUESTIONS[0])]
    _, logits = case.reference.prompt_logits(messages, [], said)
    prompt, embeddings = prompt_and_images(vlm, messages, [])
    context = vlm.pipeline.new_context()
    context.prefill(prompt, embeddings.__getitem__)
    for place, token in enumerate(said):
        wanted = logits[len(prompt) + place]
        np.testing.assert_allclose(context.peek(np.array([token]))[0], wanted, atol=1e-4)
        np.testing.assert_allclose(context.step(token), wanted, atol=1e-4)


def test_a_reference_layer_by_layer_reads_the_same(case: Case) -> None:
    streamed, image = check_streamed(case), pictures()[2]
    for found, wanted in zip(streamed.encode_image(image), case.reference.encode_image(image), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_graph_holds_one_cache_for_layers_that_share(case: Case) -> None:
    decoder = edgevlm_runtime.load(case.bundle, verify="size").manifest.decoder
    text = case.reference.model.config.text_config
    own = text.num_hidden_layers - text.num_kv_shared_layers
    sizes = {
        (layer.num_key_value_heads, layer.head_dim) for layer in map(text.per_layer_config.__getitem__, range(own))
    }
    assert decoder.kv.layers == own
    assert {decoder.kv.size(layer) for layer in range(own)} == sizes
    graph = onnx.load(case.bundle / "decoder.onnx", load_external_data=False).graph
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert [len(node.output) for node in attention] == [3] * own + [1] * text.num_kv_shared_layers
    (columns,) = decoder.token_columns
    assert columns.table.shape == (text.vocab_size, text.num_hidden_layers * text.hidden_size_per_layer_input)


@pytest.mark.parametrize(
    ("options", "closeness"), [({"precision": "int8"}, 5e-3), ({"prefill": "int8"}, 5e-3)], ids=str
)
def test_other_precisions(case: Case, export_bundle, options: dict[str, str], closeness: float) -> None:
    """Mean KL of the next token over a prompt with an image, in nats; the rotation within MLPs alone applies."""
    vlm = edgevlm_runtime.load(export_bundle(case.folder, **options), prefill_chunk=4, verify="size")
    messages, images = SINGLE["middle"], pictures()[:1]
    prompt, embeddings = prompt_and_images(vlm, messages, images)
    _, wanted = case.reference.prompt_logits(messages, images)
    found = vlm.pipeline.new_context().prefill(prompt, embeddings.__getitem__)[None]
    if "prefill" not in options:
        _, found = vlm.prompt_logits(messages, images)
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (wanted[-len(found) :], found))
    assert 0 < float((p.exp() * (p - q)).sum(-1).mean()) < closeness
    if options.get("precision") == "int8":
        decoder = vlm.manifest.graphs["decoder"]
        assert (decoder.transforms, set(decoder.refused)) == (("rotate-product",), {"rotate-residual", "rotate-values"})
        assert vlm.manifest.decoder.token_columns[0].table.dtype == "uint8"


@pytest.mark.parametrize("kv", ["int8", "int8:channel"])
def test_no_int8_cache_where_layers_share(tmp_path, kv: str) -> None:
    folder = checkpoints.gemma4(tmp_path / "checkpoint", "small", **VARIED)
    with pytest.raises(ExportError, match="layers of gemma4 read the keys and values of others") as raised:
        plan_export(folder, ExportOptions(str(folder), kv=kv).plan, 400, lambda *_: None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("text_config", {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}, "a mixture of experts"),
        ("text_config", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention: all"),
        ("vision_config", {}, "a vision tower with fewer heads of keys"),
    ],
)
def test_other_members_of_the_line_are_refused(tmp_path, monkeypatch, part: str, values: dict, words: str) -> None:
    shape = checkpoints.GEMMA4_SHAPES["small"]
    if not values:
        shape = {**shape, "vision": {**shape["vision"], "num_key_value_heads": 1}}
    monkeypatch.setitem(checkpoints.GEMMA4_SHAPES, "other", shape)
    folder = checkpoints.gemma4(tmp_path / "checkpoint", "other", **VARIED)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, part: {**config[part], **values, "moe_intermediate_size": 16}})
    with pytest.raises(UnsupportedModel, match=f"Gemma 4 checkpoint not supported: {words}") as raised:
        plan_export(folder, ExportOptions(str(folder)).plan, 400, lambda *_: None)
    assert "\n" not in str(raised.value)
