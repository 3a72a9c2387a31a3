"""onnxruntime's CUDA provider with FAKE sessions: what is bound, what is refused, what "auto" says. No GPU takes part,
and nothing here says that one computes anything. The paths without a GPU (provider missing) are the real ones."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgevlm_runtime.engines.ort_graph import OrtBinding, OrtGraph
from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from edgevlm_runtime.errors import EdgeVLMError

CUDA = "CUDAExecutionProvider"


class FakeIOBinding:
    """Copies an input when it is bound, as onnxruntime does for a device."""

    def __init__(self) -> None:
        self.copied: dict[str, np.ndarray] = {}
        self.outputs: dict[str, tuple[Any, ...]] = {}
        self.synchronized = 0

    def bind_input(self, name: str, device: str, _: int, dtype: type, shape: tuple[int, ...], address: int) -> None:
        assert device == "cpu"
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.copied[name] = np.frombuffer(ctypes.string_at(address, nbytes), dtype).reshape(shape)

    def bind_output(self, name: str, *place: Any) -> None:
        self.outputs[name] = place

    def synchronize_inputs(self) -> None:
        self.synchronized += 1


class FakeSession:
    """Remembers what the device had of each input when the graph ran."""

    def __init__(self) -> None:
        self.bindings: list[FakeIOBinding] = []
        self.seen: list[dict[str, np.ndarray]] = []

    def io_binding(self) -> FakeIOBinding:
        self.bindings.append(FakeIOBinding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: FakeIOBinding) -> None:
        self.seen.append(dict(binding.copied))


def test_device_sees_what_the_buffer_holds_at_each_run() -> None:
    """A decoding step writes into buffers that were bound once: on a device they must be bound anew."""
    session = FakeSession()
    binding = OrtBinding(session, "decoder.onnx", "cuda")
    step, logits = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 8), np.float32)
    binding.bind_input("inputs_embeds", step)
    binding.bind_output("logits", logits)
    for number in (1.0, 2.0):
        step[...] = number
        binding.run()
    assert [float(seen["inputs_embeds"][0, 0, 0]) for seen in session.seen] == [1.0, 2.0]
    assert session.bindings[0].synchronized == 2
    assert session.bindings[0].outputs["logits"][4] == logits.ctypes.data


def test_host_binds_once() -> None:
    """There the graph reads the buffer itself: binding again would be work for nothing."""
    session = FakeSession()
    binding = OrtBinding(session, "decoder.onnx")
    binding.bind_input("inputs_embeds", np.zeros((1, 1, 4), np.float32))
    binding.run()
    session.bindings[0].copied.clear()
    binding.run()
    assert session.seen[1] == {}


def test_buffer_that_cannot_be_addressed() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        OrtBinding(FakeSession(), "g", "cuda").bind_input("x", np.zeros((2, 3)).T)


class FakeOrtValue:
    """Device memory that holds what it was given."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @staticmethod
    def ortvalue_from_numpy(array: np.ndarray, device: str, number: int) -> FakeOrtValue:
        assert (device, number) == ("cuda", 0)
        return FakeOrtValue(array.copy())

    @staticmethod
    def ortvalue_from_shape_and_type(shape: tuple[int, ...], dtype: type, *_: Any) -> FakeOrtValue:
        return FakeOrtValue(np.full(shape, 7, dtype))  # memory of whoever had it before

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def numpy(self) -> np.ndarray:
        return self.array


def device_graph() -> OrtGraph:
    return OrtGraph(SimpleNamespace(get_inputs=list, get_outputs=list), "decoder.onnx", "cuda")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_device_cache_begins_with_zeros(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "OrtValue", FakeOrtValue)
    cache = device_graph().allocate((1, 2, 8, 4), dtype)
    assert cache.shape == (1, 2, 8, 4)
    assert cache.host().dtype == dtype
    assert not cache.host().any()


def test_device_without_room_for_the_cache_is_one_line() -> None:
    """The real onnxruntime, which has no CUDA here."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    with pytest.raises(EdgeVLMError, match=r"^cannot reserve 1 MiB on cuda for the KV cache: .*smaller max_context$"):
        device_graph().allocate((1, 2, 1024, 128), np.float32)


def test_device_failure_is_one_line() -> None:
    session = FakeSession()
    binding = OrtBinding(session, "decoder.onnx", "cuda")

    def fail(_: object) -> None:
        raise RuntimeError("CUDA failure 2:\nout of memory")

    session.run_with_iobinding = fail  # type: ignore[method-assign]
    with pytest.raises(EdgeVLMError, match=r"^decoder\.onnx failed: CUDA failure 2: out of memory$"):
        binding.run()
