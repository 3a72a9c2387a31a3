"""The decoder graph of a real shape: few nodes, one product per linear layer, the cache handed through one operator."""

from __future__ import annotations

from collections import Counter

import pytest
from transformers import CLIPVisionConfig, LlavaConfig, Qwen2Config

from edgevlm_export.checkpoints import skeleton
from edgevlm_export.families.decoder import Wiring, decoder_source
from edgevlm_export.planning.graph_plan import plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_runtime.errors import UnsupportedModel

LAYERS = 4
"""As many as it takes to see what each layer adds."""


@pytest.fixture(scope="module")
def graph():
    """Qwen2-0.5B's decoder, of fewer layers, without its weights."""
    text = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=LAYERS,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
    tower = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28
    )
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=7, tie_word_embeddings=True)
    model = skeleton.build(config)
    source = decoder_source(model, model.model.language_model, model.lm_head, text, context=4096, wiring=Wiring())
    return plan_graph("decoder", source, model, GraphPrecision("fp32"))


def test_heads_that_the_operator_refuses():
    """In one line, before a weight is read: ONNX Runtime would say it at the first question."""
    text = Qwen2Config(hidden_size=40, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    tower = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28
    )
    model = skeleton.build(LlavaConfig(vision_config=tower, text_config=text, image_token_index=7))
    head, wiring = model.lm_head, Wiring(outside=True)
    source = decoder_source(model, model.model.language_model, head, text, context=64, wiring=wiring)
    with pytest.raises(UnsupportedModel, match="head size 20 not supported"):
        plan_graph("decoder", source, model, GraphPrecision("fp32"))


def test_at_most_16_nodes_a_layer(graph):
    nodes = len(graph.model.graph)
    assert nodes <= 16 * LAYERS + 6


def test_what_the_nodes_are(graph):
    counts = Counter(node.op_type for node in graph.model.graph)
    assert counts["FusedMatMul"] == 7 * LAYERS + 1
    assert counts["GroupQueryAttention"] == LAYERS
    assert counts["SkipSimplifiedLayerNormalization"] == 2 * LAYERS
    assert counts["Transpose"] == counts["Concat"] == counts["Shape"] == 0


def test_each_layer_owns_its_cache(graph):
    """past goes in and present comes out of one operator; nothing else touches either, so nothing can copy them."""
    for node in graph.model.graph:
        if node.op_type == "GroupQueryAttention":
            past = [value.name for value in node.inputs[3:5]]
            present = [value.name for value in node.outputs[1:3]]
            assert [name.replace("past_key_values", "present") for name in past] == present
            assert all(len(value.uses()) == 1 for value in node.inputs[3:5])
            assert all(not value.uses() for value in node.outputs[1:3])


def test_one_copy_of_tied_embeddings(graph):
    """The head is the only weight of the vocabulary's size."""
    large = [value.name for value in graph.model.graph.initializers.values() if 151936 in value.shape.numpy()]
    assert large == ["lm_head.weight"]
