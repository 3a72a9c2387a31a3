"""The engines that a bundle is loaded on where nobody names one: as tuned, and only as long as that holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines import ort
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.chosen import REASON, chosen_words
from edgevlm_runtime.engines.assigned.tuned import Tuned
from edgevlm_runtime.engines.base import Engine, Graph, GraphRequest
from edgevlm_runtime.errors import ProviderError
from edgevlm_runtime.options import RuntimeOptions

Keep = Callable[..., None]
TWO = "two 1"


class Two(ort.OrtEngine):
    """ort by another name, which fails to load graphs when it is told to."""

    fails = False

    def __init__(self) -> None:
        super().__init__("CPUExecutionProvider", 1)
        self.identity = TWO

    def load(self, request: GraphRequest) -> Graph:
        if self.fails:
            raise ProviderError("two has no such operator")
        return super().load(request)


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    def maker(name: str) -> Callable[[RuntimeOptions], Engine]:
        known = {"ort": ort.make_engine, "two": lambda options: Two()}
        if name not in known:
            raise ProviderError(f"unknown engine: {name}")
        return known[name]

    monkeypatch.setattr("edgevlm_runtime.engines.maker", maker)


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handmade_bundle: Path) -> Keep:
    """Leaves a tuning of the bundle: the projector on `two`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(**more: object) -> None:
        plain = edgevlm_runtime.load(handmade_bundle, threads=1, engine="ort").engine.identity
        engines = {"vision_encoder": "ort", "projector": "two", "decoder": "ort"}
        found = {"engines": engines, "identities": {"ort": plain, "two": TWO}, **more}
        tuned.remember(tuned.key_of(Bundle.open(handmade_bundle), 1), Tuned(**found))  # type: ignore[arg-type]

    return write


def load(folder: Path, **options: object) -> edgevlm_runtime.VLM:
    return edgevlm_runtime.load(folder, threads=1, **options)


def test_used_and_said(handmade_bundle: Path, keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen_words(RuntimeOptions(threads=1), Bundle.open(handmade_bundle)) == "ort"
    keep()
    caplog.set_level(logging.INFO, "edgevlm_runtime.engines.assigned")
    vlm = load(handmade_bundle)
    assert vlm.engine.identity.endswith("; projector: two 1")
    assert vlm.engine.reason == REASON
    assert caplog.messages == [f"{REASON}: {vlm.engine.identity}"]
    assert chosen_words(RuntimeOptions(threads=1), Bundle.open(handmade_bundle)) == "projector=two"


@pytest.mark.parametrize("named", [{"engine": "ort"}, {"provider": "auto"}, {"threads": 2}])
def test_not_where_something_else_was_named(handmade_bundle: Path, keep: Keep, named: dict[str, object]) -> None:
    keep()
    vlm = edgevlm_runtime.load(handmade_bundle, **{"threads": 1, **named})
    if named.get("threads") == 2 and tuned.key_of(vlm.bundle, 2) == tuned.key_of(vlm.bundle, 1):
        pytest.skip("one core: as many threads as with 1")
    assert TWO not in vlm.engine.identity


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"identities": {"two": TWO}}, "measured with None, this is onnxruntime"),
        ({"identities": {"two": "two 0"}}, "measured with"),
        ({"runtime": "0.0.1"}, "measured with edgevlm-runtime 0.0.1, this is"),
        ({"engines": {"projector": "gone"}}, "unknown engine: gone"),
        ({"engines": {"projektor": "two"}}, "no such graph"),
    ],
)
def test_stale_ones_are_told_and_not_used(
    handmade_bundle: Path, keep: Keep, caplog: pytest.LogCaptureFixture, more: dict[str, object], why: str
) -> None:
    keep(**more)
    vlm = load(handmade_bundle)
    assert vlm.engine.identity.startswith("onnxruntime")
    (line,) = caplog.messages
    assert line.startswith("tuned engines, not used: run `edgevlm tune` again: ")
    assert why in line
    assert "\n" not in line


def test_one_that_fails_to_load_gives_way(
    handmade_bundle: Path, keep: Keep, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep()
    monkeypatch.setattr(Two, "fails", True)
    assert load(handmade_bundle).engine.identity.startswith("onnxruntime")
    assert "tuned engines, not used: two has no such operator: run `edgevlm tune` again" in caplog.messages
    with pytest.raises(ProviderError, match="two has no such operator"):
        load(handmade_bundle, engine="projector=two")


def test_the_measured_chunk_is_that_of_the_decoders_engine(handmade_bundle: Path, keep: Keep) -> None:
    keep()
    plain = load(handmade_bundle, engine="ort").engine.identity
    keep(prefill_chunks={plain: 96, TWO: 64})
    assert load(handmade_bundle).prefill_chunk == 96
    assert load(handmade_bundle, engine="decoder=two").prefill_chunk == 64
