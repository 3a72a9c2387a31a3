"""The TensorRT backend over a FAKE library and a FAKE GPU: what it refuses, how it fails in one line, and CUDA graphs
that are recorded, or are not. Nothing here says that a real GPU computes anything."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from edgevlm_runtime.engines.nvidia.cuda import Device
from edgevlm_runtime.engines.ort import OrtEngine
from edgevlm_runtime.errors import BundleError, EdgeVLMError, ProviderError
from tests.support.fake_cuda import FakeCuda

pytest.importorskip("onnx")
from tests.support.fake_decoder import PAST, PRESENT, ROWS, WIDTH, Run, load, make_decoder, numbers
from tests.support.graphs import alone


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("graph") / "decoder.onnx")


def test_gpu_without_memory(decoder: Path) -> None:
    made = load(decoder, FakeCuda(limit=1 << 20))
    with pytest.raises(EdgeVLMError, match=r"GPU has no 64 MiB left for the KV cache \(out of memory\): close other"):
        made.graph.allocate((1, 1, 1 << 20, 16), np.float32)


def test_engine_that_fails_is_one_line(decoder: Path) -> None:
    made = load(decoder)
    run = Run(made)
    run.bind(numbers(1, 5, WIDTH), [4])
    run.check()
    made.engine.contexts[0].fails = True
    with pytest.raises(EdgeVLMError, match=r"^decoder\.engine failed$"):
        run.binding.run()


def test_what_cannot_be_bound(decoder: Path) -> None:
    made = load(decoder)
    binding = made.graph.binding()
    with pytest.raises(ValueError, match="C-contiguous"):
        binding.bind_input("x", numbers(1, WIDTH, 3).transpose(0, 2, 1))
    with pytest.raises(BundleError, match="x is float64, the engine takes float32"):
        binding.bind_input("x", np.zeros((1, 3, WIDTH)))
    other = OrtEngine("CPUExecutionProvider", 1).load(alone(decoder)).allocate((1, 1, ROWS, WIDTH), np.float32)
    with pytest.raises(TypeError, match="cache of another engine"):
        binding.bind_cache(PAST, PRESENT, other)
    binding.bind_input("x", numbers(1, 3, WIDTH))
    with pytest.raises(EdgeVLMError, match="input logits_rows is not bound"):
        binding.run()
    run = Run(made)
    run.bind(numbers(1, 3, WIDTH), [0, 1])
    run.binding.bind_output("logits", np.zeros((1, 3, WIDTH), np.float32))
    with pytest.raises(EdgeVLMError, match=r"gives logits of shape \[1, 2, 4\], not \[1, 3, 4\]"):
        run.binding.run()


def test_engine_that_copies_its_cache_is_refused(decoder: Path) -> None:
    """Output over input is only right where the engine writes in place."""
    with pytest.raises(BundleError, match=r"does not update past_key_values\.0\.key in place"):
        Run(load(decoder, in_place=False))


def test_tensor_that_wants_host_memory_is_refused(decoder: Path) -> None:
    with pytest.raises(BundleError, match="must be in host memory"):
        load(decoder, location="host")


def test_decoding_is_recorded_once_and_replayed(decoder: Path) -> None:
    made = load(decoder, cuda_graph=True)
    run = Run(made)
    run.bind(numbers(1, 5, WIDTH), [4])
    run.check()
    run.check()
    assert made.cuda.calls["launch"] == 0, "prompts come in all lengths: not recorded"
    run.bind(numbers(1, 1, WIDTH), [0])
    for _ in range(4):
        run.check()
    assert made.cuda.calls["instantiate"] == 1
    assert made.cuda.calls["launch"] == 3


def test_decoding_goes_on_where_recording_fails(decoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = load(decoder, cuda_graph=True)
    made.cuda.capture_fails = True
    run = Run(made)
    run.bind(numbers(1, 1, WIDTH), [0])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            run.check()
    assert caplog.text.count("decoding runs without a CUDA graph") == 1
    assert made.cuda.calls["launch"] == 0


def test_library_that_records_by_itself_is_told_to(decoder: Path) -> None:
    made = load(decoder, cuda_graph=True, own_graphs=True)
    run = Run(made)
    run.bind(numbers(1, 1, WIDTH), [0])
    run.check()
    run.check()
    (context,) = made.engine.contexts
    assert (context.config.cuda_graph_strategy, context.config.strategy) == ("whole", "user managed")
    assert made.cuda.calls["launch"] == 0


def test_machine_without_driver_or_gpu() -> None:
    with pytest.raises(ProviderError, match=r"no GPU \(CUDA driver version is insufficient\): install NVIDIA's driver"):
        Device(FakeCuda(driver=False))
    with pytest.raises(ProviderError, match="CUDA finds no GPU"):
        Device(FakeCuda(gpus=0))
