"""Several engines under one bundle: each graph is loaded by its own, and they speak as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.engines import make_engines
from edgevlm_runtime.engines.assigned.several import Several, engine_of
from edgevlm_runtime.engines.base import AS_ASKED, Engine, Graph, GraphRequest
from edgevlm_runtime.engines.ort import OrtEngine
from edgevlm_runtime.errors import EdgeVLMError, ProviderError
from edgevlm_runtime.options import RuntimeOptions

GRAPHS = ("vision_encoder", "projector", "decoder")


@dataclass
class Named:
    """An engine that is ort by another name, and remembers what it loaded."""

    identity: str
    reason: str = AS_ASKED
    automatic: bool = False
    other: Engine | None = None
    loaded: list[str] = field(default_factory=list)

    def fallback(self, error: ProviderError) -> Engine | None:
        return self.other

    def load(self, request: GraphRequest) -> Graph:
        self.loaded.append(request.name)
        return OrtEngine("CPUExecutionProvider", 1).load(request)


def test_each_graph_is_loaded_by_its_engine(
    handmade_bundle: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[[int], Image.Image]
) -> None:
    made = {name: Named(f"{name} 1") for name in ("one", "two")}
    monkeypatch.setattr("edgevlm_runtime.engines.maker", lambda name: lambda options: made[name])
    vlm = edgevlm_runtime.load(handmade_bundle, engine="one,projector=two")
    assert (made["one"].loaded, made["two"].loaded) == (["vision_encoder", "decoder"], ["projector"])
    assert vlm.engine.identity == "vision_encoder, decoder: one 1; projector: two 1"
    assert (vlm.engine.reason, vlm.engine.automatic) == (AS_ASKED, False)
    assert engine_of(vlm.engine, "projector") is made["two"]
    plain = edgevlm_runtime.load(handmade_bundle, engine="one")
    assert plain.engine is made["one"]
    assert vlm.ask(picture(1), "what is it").token_ids == plain.ask(picture(1), "what is it").token_ids


def test_one_that_gives_way_does_so_alone() -> None:
    second = Named("cpu 1", "auto: it fails", automatic=True)
    first, other = Named("gpu 1", "auto: it loads", automatic=True, other=second), Named("npu 1")
    several = Several({"decoder": first, "projector": other})
    assert (several.reason, several.automatic) == ("auto: it loads", True)
    instead = several.fallback(ProviderError("no kernel"))
    assert isinstance(instead, Several)
    assert (instead.engines["decoder"], instead.engines["projector"]) == (second, other)
    assert instead.reason == "auto: it fails"
    assert Several({"projector": other}).fallback(ProviderError("no kernel")) is None


def test_prefill_and_decoder_share_a_cache() -> None:
    with pytest.raises(EdgeVLMError, match="prefill fills the decoder's KV cache: give both one engine"):
        make_engines(RuntimeOptions(engine="prefill=openvino"), (*GRAPHS, "prefill"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("vision=ort", "--engine vision=...: no such graph: this bundle has vision_encoder, projector, decoder"),
        ("projector=steam", "unknown engine: steam: known are ort, openvino"),
        ("ort:fast", "the engine ort takes nothing behind its name: ort:fast"),
        ("tensorrt:fast", "the engine tensorrt takes nothing behind its name"),
    ],
)
def test_bad_words_are_one_line(handmade_bundle: Path, words: str, complaint: str) -> None:
    with pytest.raises(EdgeVLMError) as error:
        edgevlm_runtime.load(handmade_bundle, engine=words)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
