"""Folders that are something else: each says what it is and what to do, and no checkpoint is taken for one."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgevlm_export.checkpoints import checkpoint, hub, recognise, skeleton
from edgevlm_export.checkpoints.recognise import KINDS
from edgevlm_runtime.errors import CheckpointError, ExportError, UnsupportedModel
from tests.support import checkpoints


def write(folder: Path, files: dict[str, object]) -> Path:
    """JSON for what is no bytes."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "some/base", "r": 8}
ORIGINAL = {
    "hidden_size": 64,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_projector_type": "mlp2x_gelu",
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
FOLDERS: dict[str, tuple[str, dict[str, object], str]] = {
    "adapter alone": ("adapter", {"adapter_config.json": ADAPTER, "adapter_model.safetensors": b"x"}, "some/base"),
    "adapter, config": ("adapter", {"adapter_config.json": ADAPTER, "config.json": {"model_type": "llava"}}, "merge"),
    "adapter, weights": ("adapter", {"adapter_config.json": ADAPTER, "model.safetensors": b"x"}, "move adapter_config"),
    "adapter, unreadable": ("adapter", {"adapter_config.json": b"{"}, "its base model"),
    "llava_llama": ("original-llava", {"config.json": {"model_type": "llava_llama", **ORIGINAL}}, "llava-hf"),
    "llava_mistral": ("original-llava", {"config.json": {"model_type": "llava_mistral"}}, "llava-hf"),
    "old llava": ("original-llava", {"config.json": {"model_type": "llava", **ORIGINAL}}, "convert"),
    "gguf": ("gguf", {"model-Q4_K_M.gguf": b"GGUF", "mmproj.gguf": b"GGUF"}, "safetensors"),
    "gguf, config": ("gguf", {"model.gguf": b"GGUF", "config.json": {"model_type": "llava"}}, "safetensors"),
    "pointers": ("git-lfs", {"config.json": {"model_type": "llava"}, "model.safetensors": POINTER}, "git lfs pull"),
    "cache": ("hub-cache", {"models--a--b/refs/main": b"0", "models--c--d/refs/main": b"0"}, "models--c--d"),
    "bundle": ("bundle", {"manifest.json": {}, "manifest.sha256": b"0"}, "edgevlm run"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_each_says_what_it_is(tmp_path: Path, name: str) -> None:
    kind, files, remedy = FOLDERS[name]
    what = next(one.what for one in KINDS if one.name == kind)
    with pytest.raises(UnsupportedModel) as told:
        checkpoint.load_config(write(tmp_path, files))
    assert what in str(told.value)
    assert remedy in str(told.value)
    assert "\n" not in str(told.value)


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _, _ in FOLDERS.values()} == {kind.name for kind in KINDS}


BESIDE = st.sets(
    st.sampled_from(["model.gguf", "README.md", "pytorch_model.bin", "onnx/model.onnx", "manifest.json", "refs"])
)


@given(BESIDE, st.sampled_from(["llava", "smolvlm", "qwen2_5_vl"]))
@settings(max_examples=30, deadline=None)
def test_a_checkpoint_is_none_of_them(made: Callable[[str], Path], beside: set[str], family: str) -> None:
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(made(family), Path(folder) / "copy"))
        write(copy, dict.fromkeys(beside, b"x"))
        recognise.check(copy)
        assert checkpoint.load_config(copy).model_type == family


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in folders:
            folders[family] = getattr(checkpoints, family)(tmp_path_factory.mktemp(family) / "checkpoint")
        return folders[family]

    return make


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.gguf", b"GGUF....", "GGUF"),
        ("model", b"GGUF....", "GGUF"),
        ("model.safetensors", b"x", "pass the folder"),
        ("model.onnx", b"x", "not a model folder"),
    ],
)
def test_a_file_is_told_apart(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=says):
        checkpoint.locate(str(tmp_path / name))


@pytest.mark.parametrize(
    ("snapshots", "main", "taken"),
    [("a", None, "a"), ("ab", b"b\n", "b"), ("ab", b"c", None), ("ab", None, None), ("", None, None)],
)
def test_a_model_of_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: str, main: bytes | None, taken: str | None
) -> None:
    folder = tmp_path / "models--org--some-model"
    (folder / "snapshots").mkdir(parents=True)
    for name in snapshots:
        (folder / "snapshots" / name).mkdir()
    if main is not None:
        write(folder, {"refs/main": main})
    if taken is None:
        with pytest.raises(CheckpointError, match=f"with {len(snapshots)} snapshots"):
            checkpoint.locate(str(folder))
        return
    assert checkpoint.locate(str(folder)) == folder / "snapshots" / taken
    assert checkpoint.locate(str(folder / "snapshots")) == folder / "snapshots" / taken
    for inside in (folder, folder / "snapshots"):
        monkeypatch.chdir(inside)
        assert checkpoint.locate(".").resolve() == folder / "snapshots" / taken
    assert hub.readable_name(folder) == hub.readable_name(folder / "snapshots" / taken) == "some-model"


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
def test_a_hubs_cache_whose_ref_is_a_pipe(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--some-model"
    (folder / "snapshots" / "a").mkdir(parents=True)
    (folder / "refs").mkdir()
    os.mkfifo(folder / "refs" / "main")
    assert checkpoint.locate(str(folder)) == folder / "snapshots" / "a"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json"])
def test_a_pointer_of_git_lfs_in_any_file(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "cloned"))
    write(folder, {name: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a.bin": b"0"})
    with pytest.raises(ExportError, match=r"(?i)lfs"):
        checkpoint.load_config(checkpoint.locate(str(folder)))


@pytest.mark.parametrize("name", ["example.jpg", "pytorch_model.bin", "onnx.bin"])
def test_a_pointer_that_nothing_needs(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """`git lfs pull --include='*.safetensors'` leaves the others as they are."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "cloned"))
    write(folder, {name: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
    assert checkpoint.load_config(checkpoint.locate(str(folder))).model_type == "llava"


QUANTIZED: dict[str, tuple[str, torch.dtype, tuple[str, ...]]] = {
    "bitsandbytes 4 bits": ("{}.weight", torch.uint8, ("{}.weight.absmax", "{}.weight.quant_state.bitsandbytes__nf4")),
    "bitsandbytes 8 bits": ("{}.weight", torch.int8, ("{}.SCB",)),
    "AWQ": ("{}.qweight", torch.int32, ("{}.qzeros", "{}.scales")),
    "GPTQ": ("{}.qweight", torch.int32, ("{}.g_idx", "{}.scales")),
    "FP8": ("{}.weight", torch.float8_e4m3fn, ("{}.weight_scale_inv",)),
    "compressed-tensors": ("{}.weight_packed", torch.int32, ("{}.weight_scale",)),
    "MLX": ("{}.weight", torch.uint32, ("{}.scales", "{}.biases")),
    "scaled floats": ("{}.weight", torch.float16, ("{}.weight_scale",)),
}


@pytest.mark.parametrize("stated", [True, False], ids=["config says so", "config is silent"])
@pytest.mark.parametrize("how", QUANTIZED)
def test_quantized_weights_are_refused(tiny_checkpoint: Path, tmp_path: Path, how: str, stated: bool) -> None:
    name, dtype, companions = QUANTIZED[how]
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "quantized"))
    weights = load_file(folder / "model.safetensors")
    layers = [key.removesuffix(".weight") for key in weights if re.search(r"language_model.*proj\.weight$", key)]
    for layer in layers:
        weights[name.format(layer)] = weights.pop(f"{layer}.weight").to(dtype)
        weights |= {companion.format(layer): torch.ones(2) for companion in companions}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if stated:
        config = json.loads((folder / "config.json").read_text())
        write(folder, {"config.json": {**config, "quantization_config": {"quant_method": "a-method"}}})
    with pytest.raises(UnsupportedModel, match=r"quantized already.*export the one that it was made from") as told:
        checkpoint.open_weights(folder, skeleton.build(checkpoint.load_config(folder)))
    assert ("a-method" in str(told.value)) == stated


@pytest.mark.parametrize("where", ["", "text_config", "vision_config"])
def test_a_quantization_that_is_over(tiny_checkpoint: Path, tmp_path: Path, where: str) -> None:
    """Merged to plain floats, the entry left behind: nothing quantizes them again, here or in transformers."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "merged"))
    config = json.loads((folder / "config.json").read_text())
    entry = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    part = config[where] if where else config
    part["quantization_config"] = entry
    write(folder, {"config.json": config})
    loaded = checkpoint.load_config(folder)
    assert getattr(loaded, "quantization_config", None) is None
    assert getattr(loaded.get_text_config(), "quantization_config", None) is None
    weights = checkpoint.open_weights(folder, skeleton.build(loaded))
    stored = load_file(tiny_checkpoint / "model.safetensors")
    assert {tensor.name for tensor in weights.tensors.values()} == set(stored)
