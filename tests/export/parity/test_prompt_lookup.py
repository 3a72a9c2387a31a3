"""Prompt lookup over real decoders: the tokens of single steps, though kernels round otherwise over several rows."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_export import inspection
from edgevlm_export.inspector import checkpoint_path
from edgevlm_runtime import VLM
from edgevlm_runtime.decoding.ahead import gains
from tests.export.parity.test_parity import CASES, QUESTIONS, pictures

TOKENS = 48
FAMILIES = (
    "llava-qwen2-tied",
    "qwen2_vl-tied",
    "qwen3_5-published",
    "lfm2_vl-published",
    "gemma3-window-24",
    "gemma4-small",
    "paligemma-2",
)
LOADED = ({"threads": 1}, {"threads": 1, "prompt_lookup": True})


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses are run whether they pay or not."""
    monkeypatch.setattr(gains, "WORTH", 0.0)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> list[VLM]:
    folder = CASES[request.param](tmp_path_factory.mktemp("lookup") / request.param)
    bundle = export_bundle(folder)
    return [edgevlm_runtime.load(bundle, **options) for options in LOADED]


def _same(pair: list[VLM], picture: object, questions: tuple[str, ...], **options: object) -> None:
    plain, looking = pair
    with plain.session(picture) as one, looking.session(picture) as other:
        for question in questions:
            expected = one.ask(question, **options)
            answer = other.ask(question, **options)
            assert (answer.token_ids, answer.text) == (expected.token_ids, expected.text), question


def _ran(vlm: VLM) -> bool:
    assert vlm.pipeline.lookups is not None
    return bool(vlm.pipeline.lookups.gains.figures()["run_costs_steps"])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 5}, {"repetition_penalty": 1.2}])
def test_families(pair: list[VLM], options: dict[str, object]) -> None:
    for picture in pictures()[:2]:
        _same(pair, picture, QUESTIONS, max_new_tokens=TOKENS, **options)


def test_where_it_runs(pair: list[VLM]) -> None:
    """Not where states are overwritten."""
    for picture in pictures():
        _same(pair, picture, ("describe describe describe describe", *QUESTIONS), max_new_tokens=TOKENS)
    looking = pair[1]
    assert _ran(looking) == (not looking.manifest.decoder.states)


@pytest.fixture(scope="module")
def inspector(export_bundle) -> list[VLM]:
    bundle: Path = export_bundle(checkpoint_path(), precision="int8")
    return [edgevlm_runtime.load(bundle, **options) for options in LOADED]


def test_int8(inspector: list[VLM]) -> None:
    """int8 kernels differ by a tenth of a logit between one row and several."""
    ends = inspector[0].manifest.generation.eos_token_ids
    for example in inspection.examples("test", 40, questions_per_image=1, start=4000):
        _same(inspector, example.image, (example.question,))
        _same(inspector, example.image, (example.question,), suppress_tokens=ends, max_new_tokens=TOKENS)
    found = inspector[1].pipeline.lookups
    assert found is not None
    assert _ran(inspector[1])
    assert found.gains.rounding
