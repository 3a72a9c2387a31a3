"""Bad input to an export: one clear error that names the file and says what to do, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgevlm_export.api import ExportOptions, export
from edgevlm_export.families import FAMILIES
from edgevlm_export.steps import estimate
from edgevlm_runtime.errors import CheckpointError, ExportError, OutputError, UnsupportedModel
from tests.support import checkpoints


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def refuses(error: type[ExportError], checkpoint: Path | str, *words: str, **options: object) -> None:
    """The export fails with `error`, its one-line message holds `words`, and no folder appears."""
    parent = Path(options.pop("parent", Path(str(checkpoint)).parent)) / "out"  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        export(ExportOptions(str(checkpoint), parent / "bundle", **options))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert not parent.exists()


def edit_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_not_a_model_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    refuses(CheckpointError, tmp_path / "empty", "not a model folder", "config.json")


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    refuses(CheckpointError, tmp_path / "model.onnx", "not a model folder")


def test_no_such_model(tmp_path):
    refuses(CheckpointError, "no-such-model", "no such model", "edgevlm models", parent=tmp_path)


def test_no_network(tmp_path):
    refuses(CheckpointError, "llava-hf/llava-1.5-7b-hf", "cannot download", "pass its folder", parent=tmp_path)


def test_config_is_not_json(checkpoint):
    (checkpoint / "config.json").write_text("{")
    refuses(CheckpointError, checkpoint, "unreadable config")


def test_unsupported_architecture(checkpoint):
    edit_config(checkpoint, model_type="blip-2")
    refuses(UnsupportedModel, checkpoint, "blip-2", *FAMILIES)


def test_unknown_architecture(checkpoint):
    edit_config(checkpoint, model_type="from_the_future")
    refuses(UnsupportedModel, checkpoint, "config.json")


def test_unsupported_decoder(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    edit_config(checkpoint, text_config={**config["text_config"], "model_type": "gpt2"})
    refuses(UnsupportedModel, checkpoint, "gpt2", "qwen2")


def test_no_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    refuses(CheckpointError, checkpoint, "no weights", "model.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights(checkpoint, kept):
    weights = checkpoint / "model.safetensors"
    size = weights.stat().st_size
    data = weights.read_bytes()[: kept if isinstance(kept, int) else int(size * kept)]
    weights.write_bytes(data)
    refuses(CheckpointError, checkpoint, "model.safetensors", "download the checkpoint again")


def test_missing_shard(tmp_path):
    checkpoint = checkpoints.llava(tmp_path / "sharded", max_shard_size="100KB")
    shard = sorted(checkpoint.glob("model-*.safetensors"))[1]
    shard.unlink()
    refuses(CheckpointError, checkpoint, "shard missing", shard.name)


def test_missing_tensor(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    dropped = next(name for name in tensors if "layers.1.mlp.down_proj" in name)
    del tensors[dropped]
    save_file(tensors, checkpoint / "model.safetensors")
    refuses(CheckpointError, checkpoint, "weight missing", "layers.1.mlp.down_proj")


def test_tensor_of_another_shape(checkpoint):
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    edit_config(checkpoint, text_config={**text, "intermediate_size": 128})
    refuses(CheckpointError, checkpoint, "has shape", "gate_proj")


@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer.json"])
def test_processor_file_missing(checkpoint, file):
    (checkpoint / file).unlink()
    refuses(CheckpointError, checkpoint, str(checkpoint))


def test_output_exists(checkpoint, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError, match="exists"):
            export(ExportOptions(str(checkpoint), tmp_path / "taken", force=force))
    assert (tmp_path / "taken" / "precious.txt").read_text() == "mine"


def test_force_replaces_a_bundle(tiny_checkpoint, tiny_bundle, tmp_path):
    output = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (output / "old.txt").write_text("old")
    export(ExportOptions(str(tiny_checkpoint), output, force=True, self_test=False, certificate=False))
    assert not (output / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_disk_too_small(checkpoint, monkeypatch):
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    refuses(OutputError, checkpoint, "disk too small", "GiB", "--output")


def test_unknown_precision():
    with pytest.raises(ExportError, match="unknown precision: int3"):
        ExportOptions("llava", precision="int3")


def rewrite(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the stored tensors."""
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")


def some_weight(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_weights_without_their_scale(checkpoint, dtype):
    rewrite(checkpoint, lambda tensors: tensors.update({some_weight(tensors): tensors[some_weight(tensors)].to(dtype)}))
    refuses(UnsupportedModel, checkpoint, "quantized already", "up_proj")


def test_float16_overflow(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors[some_weight(tensors)].fill_(1e5))
    refuses(CheckpointError, checkpoint, "does not fit into float16", "--fp32", "up_proj", precision="fp16")


def test_weights_that_are_no_numbers(checkpoint):
    rewrite(checkpoint, lambda tensors: tensors[some_weight(tensors)].fill_(float("nan")))
    refuses(CheckpointError, checkpoint, "not a finite number", "up_proj")


@pytest.mark.parametrize("layer", [99, -99])
def test_a_vision_layer_that_is_not_there(checkpoint, layer):
    edit_config(checkpoint, vision_feature_layer=layer)
    refuses(CheckpointError, checkpoint, "vision_feature_layer")


@pytest.mark.parametrize(
    "generation",
    [{"eos_token_id": [2, None]}, {"eos_token_id": 2.5}, {"repetition_penalty": -2.0}, {"suppress_tokens": ["a"]}],
)
def test_generation_config_that_means_nothing(checkpoint, generation):
    (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    refuses(CheckpointError, checkpoint, "generation config")


@pytest.mark.parametrize(
    ("part", "name", "value"), [("text_config", "num_attention_heads", 0), ("vision_config", "patch_size", 0)]
)
def test_sizes_that_mean_nothing(checkpoint, part, name, value):
    config = json.loads((checkpoint / "config.json").read_text())
    edit_config(checkpoint, **{part: {**config[part], name: value}})
    refuses(ExportError, checkpoint)


def test_index_that_lists_numbers(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 1}}))
    refuses(CheckpointError, checkpoint, "weight index")


def test_names_that_no_disk_takes(checkpoint, tmp_path):
    with pytest.raises(CheckpointError):
        export(ExportOptions("m" * 300, tmp_path / "out"))
    with pytest.raises(OutputError):
        export(ExportOptions(str(checkpoint), tmp_path / ("o" * 250)))


def test_context_too_long(checkpoint):
    refuses(ExportError, checkpoint, "context too long", "640", max_context=9999)


def test_context_too_short():
    with pytest.raises(ExportError, match="context too short"):
        ExportOptions("llava", max_context=3)
