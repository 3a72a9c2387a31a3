"""Checkpoints on disk: old and new weight names, shards, dtypes, ties; and what the decoder refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Gemma3TextConfig, GPT2Config, LlamaConfig, Phi3Config

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights.files import INDEX
from edgevlm_export.checkpoints.weights.ties import tied_weights
from edgevlm_export.families.text_config import DECODERS, check_decoder, max_context, rotary_limit
from edgevlm_runtime.errors import CheckpointError, ExportError, UnsupportedModel
from tests.export.parity.test_parity import CASES
from tests.support import checkpoints

TABLE = "model.language_model.embed_tokens.weight"


def opened(folder: Path) -> tuple[checkpoint.WeightSource, torch.nn.Module]:
    model = skeleton.build(checkpoint.load_config(folder))
    return checkpoint.open_weights(folder, model), model


def assert_complete(folder: Path) -> None:
    """Every parameter is there, with the values transformers itself loads."""
    weights, model = opened(folder)
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, parameter in model.named_parameters():
        assert torch.equal(weights.read(name).float(), loaded[name]), name
        assert tuple(parameter.shape) == tuple(loaded[name].shape)


def test_names_as_saved(tiny_checkpoint):
    assert_complete(tiny_checkpoint)


def test_names_of_the_hub(tiny_checkpoint, tmp_path):
    """LLaVA checkpoints on the hub keep the names of transformers 4."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    new = {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    weights, model = opened(tiny_checkpoint)
    renamed = {}
    for name, _ in model.named_parameters():
        prefix = next(prefix for prefix in new if name.startswith(prefix))
        renamed[new[prefix] + name.removeprefix(prefix)] = weights.read(name)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    assert_complete(folder)


@pytest.mark.parametrize("decoder", ["qwen2", "qwen2-tied", "gemma"])
def test_shards_and_ties(tmp_path, decoder):
    folder = checkpoints.llava(tmp_path / decoder, decoder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert_complete(folder)


def test_dtype_is_the_checkpoints(tiny_checkpoint, tmp_path):
    tensors = {
        name: tensor.to(torch.bfloat16) for name, tensor in load_file(tiny_checkpoint / "model.safetensors").items()
    }
    (tmp_path / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors")
    weights, _ = opened(tmp_path)
    assert weights.read("lm_head.weight").dtype == torch.bfloat16


def test_unknown_weight(tiny_checkpoint):
    weights, _ = opened(tiny_checkpoint)
    with pytest.raises(CheckpointError, match="weight missing"):
        weights.read("model.language_model.layers.9.mlp.up_proj.weight")


def test_index_that_names_nonsense(tiny_checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    for content in ("[]", "{", json.dumps({"weight_map": 3}), json.dumps({})):
        (tmp_path / INDEX).write_text(content)
        with pytest.raises(CheckpointError, match="weight index"):
            opened(tmp_path)


def test_context_is_what_the_rope_allows():
    assert max_context(LlamaConfig(max_position_embeddings=2048), None) == 2048
    assert max_context(LlamaConfig(max_position_embeddings=2048), 512) == 512
    assert max_context(LlamaConfig(max_position_embeddings=131072), None) == 32768
    assert max_context(LlamaConfig(max_position_embeddings=131072), 100_000) == 100_000
    with pytest.raises(ExportError, match="context too long"):
        max_context(LlamaConfig(max_position_embeddings=2048), 4096)
    factors = [1.0] * 48
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": factors}
    rope["original_max_position_embeddings"] = 4096
    long = Phi3Config(max_position_embeddings=131072, rope_parameters=rope, pad_token_id=0)
    assert max_context(long, None) == 4096
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert max_context(LlamaConfig(max_position_embeddings=2048, rope_parameters=dynamic), None) == 2048
    tables = {
        "full_attention": {**dynamic, "original_max_position_embeddings": 1024},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    several = Gemma3TextConfig(max_position_embeddings=2048, rope_parameters=tables)
    assert (max_context(several, None), rotary_limit(several)) == (1024, "dynamic")


def test_a_buffer_that_is_missing(tmp_path):
    """Scales, clip ranges: what a module begins with, memory as it lies in one case, would be taken for the
    checkpoint's. A tower of which nothing is stored, as one for sound, is nobody's."""
    folder = checkpoints.gemma4(tmp_path / "gemma4", "shared-blocks")
    stored = load_file(folder / "model.safetensors")
    _, model = opened(folder)
    buffers = [name for name in skeleton.stored_buffers(model) if "audio" not in name]
    kinds = {name.rpartition(".")[2]: name for name in buffers}
    assert {"std_bias", "std_scale", "input_min", "output_max", "layer_scalar"} <= set(kinds)
    for name in kinds.values():
        assert name in stored
        save_file({key: value for key, value in stored.items() if key != name}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=f"weight missing from the checkpoint: {name}"):
            opened(folder)
    save_file({key: value for key, value in stored.items() if "audio" not in key}, folder / "model.safetensors")
    opened(folder)


def test_every_decoder_is_held_to_transformers(tmp_path):
    """The parity test covers what the exporter accepts."""
    covered = {make(vocab_size=99, pad_token_id=0).model_type for make in checkpoints.DECODERS.values()}
    others = [name for name in CASES if not name.startswith("llava-")]
    covered |= {checkpoint.load_config(CASES[name](tmp_path / name)).get_text_config().model_type for name in others}
    assert covered == DECODERS


def test_a_decoder_that_would_come_out_wrong():
    with pytest.raises(UnsupportedModel, match="text decoder not supported: gpt2"):
        check_decoder(GPT2Config())


@pytest.mark.parametrize("head", ["equal", "other", "absent", "head alone"])
def test_ties_that_the_checkpoint_does_not_bear_out(tmp_path, head):
    """The config ties head and table; what is stored counts, as in transformers."""
    folder = checkpoints.llava(tmp_path / "tied", "qwen2-tied")
    stored = load_file(folder / "model.safetensors")
    table = next(name for name in stored if name.endswith("embed_tokens.weight"))
    values = stored[table].clone() + (1 if head == "other" else 0)
    if head != "absent":
        stored["language_model.lm_head.weight"] = values
    if head == "head alone":
        del stored[table]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    assert_complete(folder)
    weights, model = opened(folder)
    assert weights.apart == (("lm_head.weight",) if head == "other" else ())
    assert tied_weights(model) == ({} if head == "other" else {"lm_head.weight": TABLE})
    assert torch.equal(weights.read("lm_head.weight"), values)
