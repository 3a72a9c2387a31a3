"""What layers carry beside keys and values: copies come back as they were, whatever order runs and rewinds have."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.bundle.decoder_info import StateInfo
from edgevlm_runtime.decoding.decoder import Decoder
from edgevlm_runtime.decoding.states import KEPT, States
from edgevlm_runtime.engines.base import Port
from edgevlm_runtime.errors import BundleError, EdgeVLMError

INFOS = (StateInfo("0", "float32", (1, 3, 2)), StateInfo("4", "float32", (1, 5)))


class Buffers:
    """A graph whose states hold how many positions it has seen."""

    def __init__(self) -> None:
        self.past: dict[str, np.ndarray] = {}
        self.present: dict[str, np.ndarray] = {}

    def bind_input(self, name: str, array: np.ndarray) -> None:
        self.past[name.removeprefix("past_state.")] = array

    def bind_output(self, name: str, array: np.ndarray) -> None:
        self.present[name.removeprefix("present_state.")] = array

    def run(self, positions: int) -> None:
        for name, array in self.past.items():
            self.present[name][...] = array + positions

    def seen(self) -> set[float]:
        return {float(value) for array in self.past.values() for value in array.ravel()}


@given(
    st.lists(st.tuples(st.sampled_from(["run", "fail", "keep", "back", "look ahead"]), st.integers(1, 9)), max_size=40)
)
def test_states_are_those_of_the_length(moves):
    states, graph, length = States(INFOS), Buffers(), 0
    states.bind(graph)  # type: ignore[arg-type]
    kept: set[int] = set()
    for move, number in moves:
        if move == "run":
            graph.run(number)
            states.advance()
            length += number
        elif move == "fail":
            graph.run(number)
        elif move == "keep":
            states.keep(length)
            kept.add(length)
        elif move == "look ahead":
            with states.returning():
                graph.run(number)
                states.advance()
                assert graph.seen() == {float(length + number)}
        else:
            wanted = max(0, length - number)
            length = states.nearest(wanted)
            assert length <= wanted
            assert length in kept | {0}
            states.restore(length)
        assert graph.seen() == {float(length)}


def test_the_shortest_prefixes_stay():
    states = States(INFOS)
    for length in range(1, KEPT + 3):
        states.keep(length)
    assert [states.nearest(length) for length in (1, 2, 99)] == [1, 2, KEPT + 2]
    with pytest.raises(EdgeVLMError, match="cannot rewind to 9 tokens"):
        states.restore(9)


def test_no_states_reach_everywhere():
    states = States(())
    assert not states
    assert states.nearest(7) == 7
    states.restore(5)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", (1, 3, 2)), ("float16", (1, 3, 2)), ("float32", (1, 2, 3)), ("float32", (6,))]
)
def test_a_state_is_the_graphs(vlm: edgevlm_runtime.VLM, dtype: str, shape: tuple[int, ...]) -> None:
    decoder, port = vlm.pipeline.decoder, Port("", np.dtype("float32"), (1, 3, 2))
    graph = SimpleNamespace(
        inputs={**decoder.graph.inputs, "past_state.0": port},
        outputs={**decoder.graph.outputs, "present_state.0": port},
    )
    told = replace(decoder.info, states=(StateInfo("0", dtype, shape),))
    if (dtype, shape) == ("float32", (1, 3, 2)):
        Decoder(graph, told, decoder.embeddings)  # type: ignore[arg-type]
        return
    with pytest.raises(BundleError, match=r"state '0' is float32 \(1, 3, 2\), not ") as error:
        Decoder(graph, told, decoder.embeddings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
