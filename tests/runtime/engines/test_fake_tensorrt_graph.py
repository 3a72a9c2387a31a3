"""The TensorRT backend over a FAKE library and a FAKE GPU (`tests.support.fake_nvidia`): which buffers it binds, what
it copies, which profile it takes, how it fails. Nothing here says that a real GPU computes anything, or how fast."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest

from edgevlm_runtime.engines.ort import OrtEngine
from edgevlm_runtime.engines.ort_library import ort as onnxruntime
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.fake_engines import fake_engine

pytest.importorskip("onnx")
from tests.support.fake_decoder import PAST, PREFILL, PRESENT, ROWS, WIDTH, Run, load, make_decoder, numbers
from tests.support.graphs import alone


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("graph") / "decoder.onnx")


def test_ports_are_the_graphs_own(decoder: Path) -> None:
    made, reference = load(decoder), OrtEngine("CPUExecutionProvider", 1).load(alone(decoder))
    assert set(made.graph.inputs) == set(reference.inputs)
    assert set(made.graph.outputs) == set(reference.outputs)
    assert made.graph.inputs["x"].shape == (1, None, WIDTH)
    assert made.graph.inputs[PAST].shape == (1, 1, ROWS, WIDTH)
    assert made.graph.inputs["logits_rows"].dtype == np.int64


def test_prefill_then_steps_over_one_cache(decoder: Path) -> None:
    run = Run(load(decoder))
    run.bind(numbers(1, 5, WIDTH), [4])
    run.check()
    token = numbers(1, 1, WIDTH)
    run.bind(token, [0])
    for _ in range(3):
        token += 1  # contents change, the binding stays
        run.check()
    run.bind(numbers(1, 2, WIDTH), [0, 1])
    run.check()


def test_cache_is_one_device_pointer_and_never_copied(decoder: Path) -> None:
    made = load(decoder)
    run = Run(made)
    run.bind(numbers(1, 5, WIDTH), [4])
    run.binding.run()
    for context in made.engine.contexts:
        assert context.addresses[PAST] == context.addresses[PRESENT] == run.cache.address
    up = 5 * WIDTH * 4 + 8 + 8  # x, logits_rows, write_indices
    assert made.cuda.copied == {"up": up, "down": WIDTH * 4}, "only what is asked for crosses the bus"


def test_profile_made_for_the_shape_is_taken(decoder: Path) -> None:
    made = load(decoder)
    run = Run(made)
    run.bind(numbers(1, 5, WIDTH), [4])
    run.check()
    run.bind(numbers(1, 1, WIDTH), [0])
    run.check()
    run.check()
    assert [(context.profile, context.runs) for context in made.engine.contexts] == [(0, 1), (1, 2)]
    assert len({context.scratch for context in made.engine.contexts}) == 1, "contexts share their scratch memory"


def test_shape_outside_every_profile(decoder: Path) -> None:
    run = Run(load(decoder))
    run.bind(numbers(1, 9, WIDTH), [8])
    with pytest.raises(
        EdgeVLMError, match=r"compiled for x from \[1, 1, 4\] to \[1, 8, 4\], not \[1, 9, 4\]: load with"
    ):
        run.binding.run()


def test_run_gives_fresh_arrays(decoder: Path) -> None:
    made, reference = load(decoder), OrtEngine("CPUExecutionProvider", 1).load(alone(decoder))
    feeds = {
        "x": numbers(1, 3, WIDTH),
        "logits_rows": np.array([1, 2]),
        "write_indices": np.array([7]),
        PAST: numbers(1, 1, ROWS, WIDTH),
    }
    first = made.graph.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    made.graph.run({**feeds, "x": feeds["x"] + 1})
    for name, array in reference.run(feeds).items():
        np.testing.assert_allclose(first[name], array, rtol=1e-6)
        np.testing.assert_array_equal(first[name], kept[name])
    with pytest.raises(EdgeVLMError, match="has no input 'other'"):
        made.graph.run({"other": np.zeros(1)})


def test_cache_starts_empty_and_takes_rows(decoder: Path) -> None:
    cache = load(decoder).graph.allocate((1, 2, ROWS, WIDTH), np.float32)
    assert not cache.host().any()
    rows = numbers(1, 2, 3, WIDTH)
    cache.write(rows)
    np.testing.assert_array_equal(cache.host()[:, :, :3], rows)
    assert not cache.host()[:, :, 3:].any()


def test_device_memory_is_given_back(decoder: Path) -> None:
    made = load(decoder)
    run = Run(made)
    run.bind(numbers(1, 5, WIDTH), [4])
    run.binding.run()
    assert len(made.cuda.memory) > 1
    del run
    made.graph = None
    gc.collect()
    assert made.cuda.memory == {}


def test_fakes_run_what_onnxruntime_runs(decoder: Path) -> None:
    """The fake's own check: an engine file is nothing but the name of a graph."""
    about = json.loads(fake_engine(decoder, (PREFILL,)))
    session = onnxruntime.InferenceSession(about["onnx"], providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_inputs()][:3] == ["x", "logits_rows", "write_indices"]
