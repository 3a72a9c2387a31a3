"""Bundles for TensorRT targets, run by ONNX Runtime on a processor: the same answers as transformers' and as the
other dialect's, whatever the family; quantized ones stay near."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_runtime.errors import ExportError
from tests.export.parity.test_parity import CASES, QUESTIONS, pictures, text_part
from tests.support import checkpoints
from tests.support.references import Remembered

FAMILIES = (
    "llava-siglip",
    "vipllava-heads-of-24",
    "llava_next-heads-of-24",
    "llava_onevision-heads-of-24",
    "smolvlm-tiles",
    "qwen2_5_vl-window-4",
    "qwen2_vl-tied",
    "qwen3_vl-wide-heads",
    "paddleocr_vl-published",
    "mistral3-published",
    "internvl-qwen2-published",
    "gemma4-small",
    *(["fast_vlm-published"] if checkpoints.TIMM else []),
)
TARGET = "tensorrt-rtx"
CONTEXT = 400
TOKENS = 12


def messages(question: str = QUESTIONS[2]) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, text_part(question)]}]


@pytest.mark.parametrize("case", FAMILIES)
def test_answers_like_transformers(case, tmp_path, export_bundle):
    checkpoint = CASES[case](tmp_path / case)
    bundle = export_bundle(checkpoint, target=TARGET)
    vlm, reference = edgevlm_runtime.load(bundle, prefill_chunk=16), Remembered.load(str(checkpoint))
    image = pictures()[2]
    with vlm.session(image) as session:
        for number, question in enumerate(QUESTIONS[:2]):
            answer = session.ask(question, max_new_tokens=TOKENS)
            assert answer.token_ids == reference.answer(question, [image], max_new_tokens=TOKENS).token_ids
            known = len(vlm.manifest.decoder.prefix.token_ids)
            assert (answer.prefix_tokens_reused >= known + answer.image_tokens) == (number > 0)
    ids, logits = vlm.prompt_logits(messages(), [image])
    expected_ids, expected = reference.prompt_logits(messages(), [image])
    assert np.array_equal(ids, expected_ids)
    assert np.abs(logits - expected).max() < 1e-3
    embeddings = vlm.pipeline.encoder.encode(vlm.pipeline.prepare(image)).embeddings
    assert np.abs(embeddings - reference.image_embeddings(image)).max() < 1e-4


@pytest.fixture(scope="module")
def quantized(tiny_checkpoint, export_bundle):
    """int8 of everything, for engines."""
    return export_bundle(tiny_checkpoint, precision="int8", target=TARGET, max_context=CONTEXT, self_test=True)


def test_quantized_bundle_is_near_the_exact_one(quantized, tiny_bundle):
    exact, near = edgevlm_runtime.load(tiny_bundle), edgevlm_runtime.load(quantized)
    image = pictures()[0]
    (_, wanted), (_, found) = (vlm.prompt_logits(messages(), [image]) for vlm in (exact, near))
    assert 0 < np.abs(found - wanted).max() < 0.3 * wanted.std()
    wanted, found = (vlm.pipeline.encoder.encode(vlm.pipeline.prepare(image)).embeddings for vlm in (exact, near))
    assert np.vdot(wanted, found) > 0.995 * np.linalg.norm(wanted) * np.linalg.norm(found)


def test_manifest_says_what_an_engine_needs(quantized):
    manifest = edgevlm_runtime.load(quantized).manifest
    decoder, graph = manifest.decoder, manifest.graphs["decoder"]
    assert (manifest.target, graph.activations, decoder.kv.dtype) == (TARGET, "float16", "float16")
    assert decoder.max_context == CONTEXT
    assert (decoder.step_inputs.kind, decoder.step_inputs.masks) == ("static", {"attention_mask": 0})
    assert {port.name: (port.dtype, port.shape) for port in graph.inputs if not port.name.endswith(".value")} == {
        "inputs_embeds": ("float32", (1, "sequence", decoder.hidden_size)),
        "logits_rows": ("int64", ("rows",)),
        "attention_mask": ("bool", (1, 1, "sequence", CONTEXT)),
        "write_indices": ("int64", (1,)),
        "position_ids": ("int64", (1, "sequence")),
        **{
            f"past_key_values.{layer}.key": ("float16", (1, decoder.kv.kv_heads, CONTEXT, decoder.kv.head_dim))
            for layer in range(decoder.kv.layers)
        },
    }
    assert [profile.name for profile in graph.profiles] == ["prefill", "decode"]
    for info in manifest.graphs.values():
        dynamic = {dim for port in info.inputs for dim in port.shape if isinstance(dim, str)}
        assert all(set(profile.sizes) == dynamic for profile in info.profiles)
        assert all(0 < low <= usual <= high for one in info.profiles for low, usual, high in one.sizes.values())


def test_only_onnx_operators_in_every_graph(quantized):
    for file in quantized.glob("*.onnx"):
        model = onnx.load(file, load_external_data=False)
        assert [opset.domain for opset in model.opset_import] == [""]
        operators = {node.op_type for node in model.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators
        assert not operators & {"MatMulInteger", "DynamicQuantizeLinear"}
        pixels = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
        assert {node.op_type for node in model.graph.node if set(node.input) & pixels} <= {"Cast"}
        for node in model.graph.node:  # parsers want constant scales
            if node.op_type == "QuantizeLinear":
                assert node.input[1] in {value.name for value in model.graph.initializer}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "coreml"}, "unknown target: coreml: known are onnx, tensorrt, tensorrt-rtx"),
        ({"target": TARGET, "decoder": "int8b"}, "unknown precision of the decoder: int8b: known are fp32, fp16"),
        ({"target": TARGET, "decoder": "int4:asymmetric"}, "zero points"),
        ({"target": TARGET, "kv": "int8"}, "KV cache in int8 is for ONNX Runtime alone"),
        ({"decoder": "fp8"}, "unknown precision of the decoder: fp8: known are fp32, fp16, int8"),
    ],
)
def test_combinations_that_mean_nothing(options, message):
    with pytest.raises(ExportError, match=message):
        ExportOptions("inspector", **options)


def test_folder_names_the_target():
    assert ExportOptions("inspector", precision="fp16", target="tensorrt").folder.name == "inspector-fp16-tensorrt"
    assert ExportOptions("inspector", precision="fp16").folder.name == "inspector-fp16"
