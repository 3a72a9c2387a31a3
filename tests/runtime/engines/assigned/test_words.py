"""Engines in words: what each graph gets, and what says nothing or two things."""

from __future__ import annotations

import pytest

from edgevlm_runtime.engines.assigned.words import Assignment, on_processor
from edgevlm_runtime.errors import EdgeVLMError

GRAPHS = ("vision_encoder", "projector", "decoder", "prefill")


@pytest.mark.parametrize(
    ("text", "engines"),
    [
        (None, ("ort",) * 4),
        ("ort", ("ort",) * 4),
        ("tensorrt-rtx", ("tensorrt-rtx",) * 4),
        ("vision_encoder=openvino", ("openvino", "ort", "ort", "ort")),
        ("vision_encoder=openvino:bf16, projector=openvino", ("openvino:bf16", "openvino", "ort", "ort")),
        ("tensorrt,projector=ort", ("tensorrt", "ort", "tensorrt", "tensorrt")),
        ("decoder=acme", ("ort", "ort", "acme", "acme")),
        ("decoder=acme,prefill=ort", ("ort", "ort", "acme", "ort")),
    ],
)
def test_each_graph_has_its_engine(text: str | None, engines: tuple[str, ...]) -> None:
    assignment = Assignment.parse(text)
    assert tuple(map(assignment.of, GRAPHS)) == engines
    again = Assignment.parse(str(assignment))
    assert tuple(map(again.of, GRAPHS)) == engines


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it must be NAME, or GRAPH=NAME"),
        ("ort,", "it must be NAME"),
        ("vision_encoder=", "it must be NAME"),
        ("=ort", "it must be NAME"),
        ("ort,openvino", "two engines for all"),
        ("projector=ort,projector=openvino", "two engines for projector"),
    ],
)
def test_words_that_say_nothing_or_two_things(text: str, complaint: str) -> None:
    with pytest.raises(EdgeVLMError, match=f"bad value for engine: .*{complaint}"):
        Assignment.parse(text)


def test_a_graph_that_the_bundle_does_not_have() -> None:
    with pytest.raises(EdgeVLMError, match=r"vison=\.\.\.: no such graph: this bundle has vision_encoder, projector"):
        Assignment.parse("vison=ort").check(GRAPHS)
    Assignment.parse("projector=ort").check(GRAPHS)


@pytest.mark.parametrize(
    ("text", "here"),
    [
        (None, True),
        ("ort", True),
        ("projector=openvino:bf16", True),
        ("projector=openvino:GPU", False),
        ("tensorrt", False),
        ("projector=tensorrt", False),
    ],
)
def test_what_runs_on_the_processor(text: str | None, here: bool) -> None:
    assert on_processor(text) is here
