"""What is kept beside a bundle (temperature, tuning, answers of an evaluation) stays its own when engines are added."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgevlm_runtime
from edgevlm_runtime.bundle.choice_temperature import TemperatureFit, write_fit
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.fake_engines import add_fake_engines, write_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def other_defaults(folder: Path) -> None:
    """Another bundle: the same graphs, other generation defaults."""
    manifest = Bundle.open(folder).manifest
    write_manifest(folder, replace(manifest, generation=replace(manifest.generation, max_new_tokens=7)))


def test_engines_do_not_change_it(own_bundle: Path) -> None:
    before = Bundle.open(own_bundle)
    assert before.content_digest == before.digest
    add_fake_engines(own_bundle)
    after = Bundle.open(own_bundle)
    assert after.manifest.engines
    assert after.digest != before.digest
    assert after.content_digest == before.content_digest


def test_everything_else_does(own_bundle: Path) -> None:
    add_fake_engines(own_bundle)
    before = Bundle.open(own_bundle).content_digest
    other_defaults(own_bundle)
    assert Bundle.open(own_bundle).content_digest != before


def test_what_was_fitted_and_tuned_is_kept(own_bundle: Path, tmp_path: Path) -> None:
    vlm = edgevlm_runtime.load(own_bundle, threads=1)
    write_fit(vlm.bundle, TemperatureFit(vlm.bundle.content_digest, 1.75, "questions", 100, 0.2, 0.1))
    tuned.remember(vlm.pipeline.tuning_key, tuned.Tuned(prefill_chunks={vlm.engine.identity: 96}))
    add_fake_engines(own_bundle)
    compiled = edgevlm_runtime.load(own_bundle, threads=1)
    assert compiled.choice_temperature == 1.75
    assert compiled.prefill_chunk == 96


def test_another_bundles_temperature_is_refused(own_bundle: Path) -> None:
    bundle = Bundle.open(own_bundle)
    write_fit(bundle, TemperatureFit(bundle.content_digest, 1.75, "questions", 100, 0.2, 0.1))
    other_defaults(own_bundle)
    add_fake_engines(own_bundle)
    with pytest.raises(EdgeVLMError, match="was fitted for another bundle"):
        _ = edgevlm_runtime.load(own_bundle, threads=1).choice_temperature


def test_an_evaluation_goes_on(own_bundle: Path, tmp_path: Path) -> None:
    """The log's header names what answers depend on; engines beside the graphs are none of it."""
    from edgevlm.evaluation.run import EvalOptions, _header

    compiled = Path(shutil.copytree(own_bundle, tmp_path / "compiled"))
    add_fake_engines(compiled)
    dataset = SimpleNamespace(identity="questions 1")
    headers = [
        _header(EvalOptions(bundle=folder), dataset, edgevlm_runtime.load(folder, threads=1), 8)
        for folder in (own_bundle, compiled)
    ]
    assert headers[0] == headers[1]
