"""transformers' own weights for the reference layer by layer: the same numbers, whatever types are stored, unmapped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgevlm_export.checkpoints import checkpoint, door, skeleton
from edgevlm_export.reference.loaded import LoadedWeights
from edgevlm_export.reference.mapped import MappedFiles
from tests.support import checkpoints

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def loaded(folder: Path) -> LoadedWeights:
    config = checkpoint.load_config(folder)
    return LoadedWeights.load(folder, config, type(skeleton.build(config)))


@given(
    types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=6), binary=st.booleans(), stated=st.sampled_from(TYPES)
)
@settings(max_examples=12, deadline=None)
def test_the_numbers_are_those_of_the_whole_model(
    tiny_checkpoint: Path, types: list[torch.dtype], binary: bool, stated: torch.dtype
) -> None:
    """Types mixed among the tensors, in either format, and whatever type the config states."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        config = json.loads((tiny_checkpoint / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"dtype": str(stated).removeprefix("torch.")}))
        stored = load_file(tiny_checkpoint / "model.safetensors")
        cast = {name: value.to(types[number % len(types)]) for number, (name, value) in enumerate(stored.items())}
        if binary:
            torch.save(cast, folder / "pytorch_model.bin")
        else:
            save_file(cast, folder / "model.safetensors", metadata={"format": "pt"})
        weights = loaded(folder)
        for _ in range(2):  # pages that were given back are read again
            for name, parameter in door.model(folder).named_parameters():
                assert torch.equal(weights.read(name), parameter), name
                assert torch.equal(weights.rows(name, 1, 3), parameter[1:3]), name


def test_ties_are_transformers(tmp_path: Path) -> None:

    folder = checkpoints.llava(tmp_path / "tied", "qwen2-tied")
    assert loaded(folder).ties == {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    stored = load_file(folder / "model.safetensors")
    table = next(value for name, value in stored.items() if name.endswith("embed_tokens.weight"))
    save_file(stored | {"language_model.lm_head.weight": table + 1}, folder / "model.safetensors", {"format": "pt"})
    assert loaded(folder).ties == {}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells no mapped files")
def test_pages_that_were_read_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    content = np.random.default_rng(0).integers(0, 256, 2**26, dtype=np.uint8)
    content.tofile(path)
    values = torch.from_file(str(path), size=2**26, dtype=torch.uint8)
    mapped, process = MappedFiles.now(), psutil.Process()

    def resident() -> int:
        return int(process.memory_info().rss)

    before = resident()
    assert values.sum().item() == content.sum()
    read = resident()
    mapped.give_back(values)
    assert read - before > 2**25
    assert resident() - before < 2**24
    assert np.array_equal(values.numpy(), content), "read again"
    own = torch.ones(2**22)
    mapped.give_back(own)
    assert bool((own == 1).all()), "memory of its own is left alone"


def test_a_checkpoint_that_transformers_cannot_load(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    stored = load_file(folder / "model.safetensors")
    name = next(name for name in stored if name.endswith("down_proj.weight"))
    save_file(stored | {name: torch.zeros(3, 3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(checkpoint.CheckpointError, match="PyTorch cannot load the model"):
        loaded(folder)
