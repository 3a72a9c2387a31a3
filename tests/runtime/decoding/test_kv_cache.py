"""The KV cache: one buffer for past and present, written in place, nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime.decoding.decoder import DecoderRun
from edgevlm_runtime.decoding.kv_cache import KVCache
from edgevlm_runtime.engines.base import Cache
from edgevlm_runtime.engines.ort_caches import HostCache
from edgevlm_runtime.engines.ort_graph import OrtBinding
from edgevlm_runtime.errors import EdgeVLMError

CAPACITY = 64


@pytest.fixture
def run(vlm: edgevlm_runtime.VLM) -> DecoderRun:
    return vlm.pipeline.decoder.new_run(CAPACITY)


def _random(positions: int) -> np.ndarray:
    return np.random.default_rng(positions).standard_normal((positions, 32)).astype(np.float32)


def _prefill(run: DecoderRun, positions: int) -> np.ndarray:
    return run.forward(_random(positions), np.array([positions - 1]))


def _snapshot(run: DecoderRun) -> list[np.ndarray]:
    return [tensor.host().copy() for tensor in run.kv.tensors]


def test_past_and_present_are_one_buffer(vlm: edgevlm_runtime.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address bound as input is the address bound as output, and the memory is the cache's own."""
    bound: list[tuple[str, str, int]] = []

    class Spy:
        def __init__(self, binding: object) -> None: ...

        def bind_input(self, name: str, device: str, index: int, dtype: object, shape: object, pointer: int) -> None:
            bound.append(("in", name, pointer))

        def bind_output(self, name: str, device: str, index: int, dtype: object, shape: object, pointer: int) -> None:
            bound.append(("out", name, pointer))

    original = HostCache.bind
    monkeypatch.setattr(HostCache, "bind", lambda self, binding, *names: original(self, Spy(binding), *names))
    run = vlm.pipeline.decoder.new_run(CAPACITY)
    places = {name: pointer for _, name, pointer in bound}
    assert len(bound) == 2 * 2 * 4  # two bindings, past and present, two layers of keys and values
    addresses = []
    for layer in range(2):
        for part in ("key", "value"):
            assert places[f"past_key_values.{layer}.{part}"] == places[f"present.{layer}.{part}"]
            addresses.append(places[f"present.{layer}.{part}"])
    assert addresses == [tensor.address for tensor in run.kv.tensors]
    assert addresses == [tensor.host().ctypes.data for tensor in run.kv.tensors]
    assert len(set(addresses)) == 4


def test_a_run_writes_its_own_positions_and_no_others(run: DecoderRun) -> None:
    _prefill(run, 5)
    assert run.kv.length == 5
    before = _snapshot(run)
    run.step(7)
    assert run.kv.length == 6
    for old, new in zip(before, _snapshot(run), strict=True):
        np.testing.assert_array_equal(new[:, :, :5], old[:, :, :5])
        assert np.abs(new[:, :, 5]).sum() > 0
        assert not new[:, :, 6:].any()


def test_addresses_stay_over_steps_and_rewinds(run: DecoderRun, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [tensor.address for tensor in run.kv.tensors]
    _prefill(run, 9)
    rebound: list[str] = []
    for name in ("bind_input", "bind_output", "bind_cache"):
        monkeypatch.setattr(OrtBinding, name, lambda self, *names: rebound.append(str(names[0])))
    for token in range(20):
        run.step(token)
    assert not rebound  # a step binds nothing: it writes its buffers and runs
    run.kv.rewind(3)
    assert [tensor.address for tensor in run.kv.tensors] == addresses
    assert [tensor.host().ctypes.data for tensor in run.kv.tensors] == addresses


def test_what_the_graph_reads_is_the_buffer(run: DecoderRun) -> None:
    """Changing the cache's memory by hand changes the next logits: there is no second copy that the graph uses."""
    _prefill(run, 5)
    honest = run.step(7).copy()
    run.kv.rewind(5)
    run.kv.tensors[1].host()[:, :, :5] += 1.0
    assert np.abs(run.step(7) - honest).max() > 1e-3


def test_beyond_the_length_nothing_is_read(run: DecoderRun) -> None:
    _prefill(run, 5)
    honest = run.step(7).copy()
    run.kv.rewind(5)
    for tensor in run.kv.tensors:
        tensor.host()[:, :, 5:] = np.nan
    np.testing.assert_array_equal(run.step(7), honest)


def test_full_cache_refuses_and_keeps_its_contents(run: DecoderRun) -> None:
    _prefill(run, CAPACITY)
    before = _snapshot(run)
    with pytest.raises(EdgeVLMError, match="64 tokens cannot take 1 after 64"):
        run.step(1)
    with pytest.raises(EdgeVLMError, match="64 tokens cannot take 2 after 64"):
        _prefill(run, 2)
    assert run.kv.length == CAPACITY
    for old, new in zip(before, _snapshot(run), strict=True):
        np.testing.assert_array_equal(old, new)


def test_rewind_and_advance_bounds(vlm: edgevlm_runtime.VLM) -> None:
    cache = KVCache(vlm.pipeline.decoder.graph, vlm.manifest.decoder.kv, 8)
    cache.advance(5)
    for length in (-1, 6):
        with pytest.raises(EdgeVLMError, match="it holds 5 tokens"):
            cache.rewind(length)
    cache.rewind(5)
    cache.rewind(2)
    assert cache.length == 2
    for positions in (-1, 7):
        with pytest.raises(EdgeVLMError, match="8 tokens cannot take"):
            cache.advance(positions)
    assert cache.length == 2


def test_failed_run_leaves_the_length(run: DecoderRun) -> None:
    _prefill(run, 4)
    with pytest.raises(EdgeVLMError, match=r"decoder\.onnx failed"):
        run.forward(np.zeros((2, 31), np.float32), np.array([1]))
    assert run.kv.length == 4
    assert np.isfinite(run.step(3)).all()


def test_caches_are_zero_and_separate(vlm: edgevlm_runtime.VLM) -> None:
    one, two = (KVCache(vlm.pipeline.decoder.graph, vlm.manifest.decoder.kv, 8) for _ in range(2))
    tensors: list[Cache] = [*one.tensors, *two.tensors]
    assert len({tensor.address for tensor in tensors}) == 8
    assert not any(tensor.host().any() for tensor in tensors)
    assert {tensor.shape for tensor in tensors} == {(1, 1, 8, 16)}
