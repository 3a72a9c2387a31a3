"""PyTorch's own weight files: every tensor as torch.load gives it, read without the rest of the file."""

from __future__ import annotations

import pickle
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from edgevlm_export.checkpoints import checkpoint
from edgevlm_export.checkpoints.fingerprint import fingerprint
from edgevlm_export.checkpoints.weights import torch_files
from edgevlm_export.checkpoints.weights.shards import DTYPES
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints

TYPES = sorted(set(DTYPES) - {"F8_E4M3", "F8_E5M2"})


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Tensors of every type, whole, turned around, cut out, repeated, sharing memory; and tied names."""
    state: dict[str, torch.Tensor] = {}
    for number in range(draw(st.integers(1, 5))):
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        tensor = torch.randint(0, 2, shape, generator=generator).to(DTYPES[draw(st.sampled_from(TYPES))])
        view = draw(st.sampled_from(["whole", "turned", "cut", "step", "expanded"]))
        if view == "turned":
            tensor = tensor.permute(tuple(reversed(range(tensor.ndim))))
        elif view == "cut" and shape:
            tensor = tensor[draw(st.integers(0, shape[0])) :]
        elif view == "step" and shape:
            tensor = tensor[::2]
        elif view == "expanded":
            tensor = tensor[None].expand(3, *tensor.shape)
        state[f"layers.{number}.weight"] = tensor
        if draw(st.booleans()):
            state[f"tied.{number}.weight"] = tensor
    return state


@given(states())
@settings(max_examples=60, deadline=None)
def test_every_tensor(state: Mapping[str, torch.Tensor]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pytorch_model.bin"
        torch.save(dict(state), path)
        found = {tensor.name: tensor for tensor in torch_files.index(path)}
        assert set(found) == set(state)
        for name, tensor in state.items():
            read = found[name].read()
            assert (read.dtype, found[name].shape) == (tensor.dtype, tuple(tensor.shape))
            assert torch.equal(read, tensor)
            assert read.is_contiguous()
            if tensor.ndim and len(tensor) > 1:
                assert torch.equal(found[name].rows(1, len(tensor)), tensor[1:])


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose weights are one .bin."""
    folder = checkpoints.llava(tmp_path_factory.mktemp("bin") / "converted", seed=3)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def test_the_same_weights_are_the_same_checkpoint(converted: Path, tmp_path: Path) -> None:
    """In either format, and with a matrix that is stored turned around."""
    digest = fingerprint(converted)
    state = load_file(converted / "model.safetensors")
    state["language_model.lm_head.weight"] = state["language_model.lm_head.weight"].t().contiguous().t()
    (tmp_path / "config.json").write_bytes((converted / "config.json").read_bytes())
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert fingerprint(tmp_path) == digest
    state["language_model.lm_head.weight"][0, 0] += 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert fingerprint(tmp_path) != digest


def test_files_before_pytorch_1_6_are_converted_as_the_message_says(tmp_path: Path) -> None:
    path = tmp_path / "it's old.bin"
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ExportError, match=r"before 1\.6") as told:
        torch_files.index(path)
    command = str(told.value).partition("convert them once: ")[2]
    subprocess.run(["bash", "-c", command], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["it's old.bin"]
    assert {tensor.name: tensor.read().tolist() for tensor in torch_files.index(path)} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of the checkpoint runs",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {"a": torch.ones(2)}}, "save the state dict alone"),
        ({"a": torch.ones(2), "step": 3}, "'step' is a int"),
        ({1: torch.ones(2)}, "not a tensor"),
        ([torch.ones(2)], "it holds a list"),
        ({"a": torch.ones(2).to_sparse()}, "a"),
        ({"a": Code()}, r"no tensor \((builtins\.)?print\), and is not loaded"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(ExportError, match=says) as told:
        torch_files.index(tmp_path / "x.bin")
    assert "weights_only" not in str(told.value), "PyTorch's own advice runs the code"
    assert not capsys.readouterr().out


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": torch.arange(64.0)}, path)
    whole = path.read_bytes()
    for cut in (0, 1, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ExportError):
            torch_files.index(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ExportError, match="damaged"):
        torch_files.index(path)
    path.write_bytes(whole)
    packed = tmp_path / "packed.bin"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ExportError, match="compressed"):
        torch_files.index(packed)


def test_a_checkpoint_in_both_formats_reads_one(converted: Path) -> None:
    files = {tensor.path.name for tensor in checkpoint.stored_tensors(converted)}
    assert files == {"model.safetensors"}
