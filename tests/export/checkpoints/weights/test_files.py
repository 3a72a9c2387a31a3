"""Which files are the model: what transformers loads from a folder is what an export reads, whatever lies there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.weights.files import INDEX, SINGLE, TORCH_INDEX, TORCH_SINGLE, weight_files
from edgevlm_runtime.errors import CheckpointError, ExportError
from tests.support import checkpoints

NAMED = "elsewhere.safetensors"
SETS = (SINGLE, INDEX, TORCH_SINGLE, TORCH_INDEX, NAMED, f"{NAMED}.index.json")
"""Each holds the model multiplied by a number of its own."""
SHARDS = {
    INDEX: "model-0000{}-of-00002.safetensors",
    TORCH_INDEX: "pytorch_model-0000{}-of-00002.bin",
    f"{NAMED}.index.json": "elsewhere-{}.safetensors",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every set of weights, and the config."""
    folder = checkpoints.llava(tmp_path_factory.mktemp("sets") / "all", seed=1)
    weights = load_file(folder / SINGLE)
    for number, name in enumerate(SETS, start=1):
        tensors = {key: tensor * number for key, tensor in weights.items()}
        half = dict(sorted(tensors.items())[::2])
        rest = {key: tensor for key, tensor in tensors.items() if key not in half}
        if name not in SHARDS:
            save(tensors, folder / name)
            continue
        shards = [SHARDS[name].format(part) for part in (1, 2)]
        for shard, part in zip(shards, (half, rest), strict=True):
            save(part, folder / shard)
        listed = {key: shards[key not in half] for key in tensors}
        (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return folder


def save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(dict(tensors), path)
    else:
        save_file(dict(tensors), path, metadata={"format": "pt"})


layouts = st.fixed_dictionaries(
    {
        "present": st.sets(st.sampled_from(SETS)),
        "without": st.sets(
            st.sampled_from([name.format(part) for name in SHARDS.values() for part in (1, 2)]), max_size=1
        ),
        "named": st.sampled_from(
            [None, None, None, SINGLE, NAMED, f"{NAMED}.index.json", TORCH_SINGLE, "../x.safetensors"]
        ),
    }
)


@given(layouts)
@example({"present": {SINGLE, INDEX}, "without": set(), "named": None})
@example({"present": {SINGLE, INDEX}, "without": {"model-00002-of-00002.safetensors"}, "named": None})
@example({"present": {SINGLE, NAMED}, "without": set(), "named": NAMED})
@example({"present": {SINGLE, *SHARDS}, "without": set(), "named": f"{NAMED}.index.json"})
@example({"present": {INDEX, TORCH_SINGLE}, "without": {"model-00001-of-00002.safetensors"}, "named": None})
@example({"present": {TORCH_INDEX}, "without": set(), "named": None})
@settings(max_examples=30, deadline=None)
def test_the_weights_are_those_that_transformers_loads(sets: Path, layout: dict[str, Any]) -> None:
    with TemporaryDirectory() as made:
        folder = Path(made)
        lay_out(sets, folder, **layout)
        try:
            loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
        except (OSError, ValueError):
            with pytest.raises(ExportError):
                weight_files(folder)
            return
        model = skeleton.build(checkpoint.load_config(folder))
        weights = checkpoint.open_weights(folder, model)
        for name, _ in model.named_parameters():
            assert torch.equal(weights.read(name), loaded[name]), name


def lay_out(sets: Path, folder: Path, present: set[str], without: set[str], named: str | None) -> None:
    config = json.loads((sets / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ({"transformers_weights": named} if named else {})))
    shards = [SHARDS[name].format(part) for name in present & set(SHARDS) for part in (1, 2)]
    for name in {*present, *shards} - without:
        (folder / name).symlink_to(sets / name)


def test_weights_that_are_left_alone_are_named(sets: Path, tmp_path: Path) -> None:
    lay_out(sets, tmp_path, {SINGLE, INDEX, TORCH_SINGLE}, set(), None)
    note = weight_files(tmp_path).note
    assert note is not None
    assert note.index(SINGLE) < note.index(INDEX) < note.index(TORCH_SINGLE)
    (tmp_path / INDEX).unlink()
    (tmp_path / TORCH_SINGLE).unlink()
    assert weight_files(tmp_path).note is None, "shards that no index lists are nothing"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "none of model.safetensors"),
        (("model.fp16.safetensors",), "rename it to model.safetensors"),
        (("pytorch_model.fp16.bin",), "rename it to pytorch_model.bin"),
        (("model.safetensors.index.fp16.json",), "rename it to model.safetensors.index.json"),
        (("model-00001-of-00002.safetensors",), "its index is missing"),
        (("shard-00000-model-00001-of-00001.safetensors", SINGLE), "distributed"),
    ],
)
def test_what_to_do_where_there_are_none(tmp_path: Path, files: tuple[str, ...], says: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ExportError, match=says):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../model.safetensors", "a/../../b", "", "."])
def test_an_index_names_files_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ExportError, match="outside the checkpoint"):
        weight_files(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
@pytest.mark.parametrize(("kind", "says"), [("gone", "a link whose target is gone"), ("pipe", "no regular file")])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_no_file(tmp_path, kind, says, name):
    """As in a cache from which the blobs were removed."""
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=f"{name} is {says}: download the checkpoint again"):
        weight_files(tmp_path)
