"""Bundles that compute what are no numbers: every way to an answer ends in one line that names the bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.asking.choices import weigh
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.checks.verification import check_self_test
from edgevlm_runtime.errors import BundleError, EdgeVLMError
from edgevlm_runtime.vision.store import DiskStore
from tests.runtime.conftest import HIDDEN, VOCAB

onnx = pytest.importorskip("onnx")
from onnx import numpy_helper  # noqa: E402

from tests.support.seal import write_manifest  # noqa: E402

PICTURE = Image.new("RGB", (9, 9), "red")
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def damaged(bundle: Path, folder: Path, graph: str, weight: str, value: float) -> Path:
    """A copy of the bundle with one element of a weight changed, its digests in order, and a self-test."""
    shutil.copytree(bundle, folder)
    file = folder / f"{graph}.onnx"
    model = onnx.load(file)
    tensor = next(one for one in model.graph.initializer if one.name == weight)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[3] = value
    tensor.CopyFrom(numpy_helper.from_array(array, weight))
    onnx.save(model, file)
    (folder / "selftest").mkdir()
    PICTURE.save(folder / "selftest/image.png")
    np.save(folder / "selftest/embeddings.npy", np.zeros((4, 32), np.float32))
    data = json.loads((folder / schema.MANIFEST_NAME).read_text())
    for name in (f"{graph}.onnx", "selftest/image.png", "selftest/embeddings.npy"):
        content = (folder / name).read_bytes()
        data["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    data["self_test"] = {
        "image": "selftest/image.png", "prompt": "hi", "token_ids": [1], "embeddings": "selftest/embeddings.npy",
        "tolerance": 1e30,
    }  # fmt: skip
    write_manifest(folder, data)
    return folder


ASKING: dict[str, Callable[[Any], object]] = {
    "greedy": lambda vlm: vlm.ask(None, "hi"),
    "sampled": lambda vlm: vlm.ask(None, "hi", temperature=1.0, top_k=5, top_p=0.9, seed=1),
    "penalised": lambda vlm: vlm.ask(None, "hi", repetition_penalty=1.3),
    "without log-probabilities": lambda vlm: vlm.ask(None, "hi", logprobs=False),
    "stream": lambda vlm: list(vlm.session().stream("hi")),
    "chat": lambda vlm: vlm.chat().ask("hi"),
    "choices": lambda vlm: vlm.session().choose("hi", ["yes", "no"]),
    "choices with an end": lambda vlm: vlm.session().choose("hi", ["1", "10"]),
    "logits": lambda vlm: vlm.prompt_logits(MESSAGES),
}


@pytest.fixture(scope="module", params=[float("nan"), float("inf")], ids=str)
def bad_decoder(request: pytest.FixtureRequest, handmade_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bad") / "decoder"
    return edgevlm_runtime.load(damaged(handmade_bundle, folder, "decoder", "head", request.param), threads=1)


@pytest.mark.parametrize("way", ASKING)
def test_logits(bad_decoder: Any, way: str) -> None:
    with pytest.raises(BundleError, match="logits that are not numbers") as raised:
        ASKING[way](bad_decoder)
    assert str(bad_decoder.bundle.path) in str(raised.value)


def test_logits_in_the_self_test(bad_decoder: Any) -> None:
    result = check_self_test(bad_decoder.bundle, "cpu", threads=1)
    assert not result.passed
    assert "not numbers" in str(result.problem)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.01, "seed": 1}], ids=["greedy", "sampled"])
def test_a_step_that_goes_wrong_later(handmade_bundle: Path, tmp_path: Path, vlm: Any, options: dict[str, Any]) -> None:
    """Logits of the prompt are numbers, those after the first token are not: its embedding is none."""
    first = vlm.ask(None, "hello", max_new_tokens=1, **options).token_ids[0]
    folder = Path(shutil.copytree(handmade_bundle, tmp_path / "bundle"))
    table = np.memmap(folder / "embeddings.bin", np.float32, "r+", offset=16, shape=(VOCAB, HIDDEN))
    table[first] = np.nan
    table.flush()
    loaded = edgevlm_runtime.load(folder, threads=1, verify="size")
    assert loaded.ask(None, "hello", max_new_tokens=1, **options).token_ids == (first,)
    with pytest.raises(BundleError, match="logits that are not numbers"):
        loaded.ask(None, "hello", max_new_tokens=3, **options)


@pytest.mark.parametrize("graph", ["vision_encoder", "projector"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings(handmade_bundle: Path, tmp_path: Path, graph: str, value: float) -> None:
    """They are refused before the cache keeps them, in memory or on disk."""
    folder = damaged(handmade_bundle, tmp_path / "bundle", graph, "w", value)
    vlm = edgevlm_runtime.load(folder, threads=1, image_cache_dir=tmp_path / "cache")
    for ask in (
        lambda: vlm.ask(PICTURE, "hi"),
        lambda: vlm.session(PICTURE).choose("hi", ["yes", "no"]),
        lambda: vlm.prompt_logits([{"role": "user", "content": [{"type": "image"}]}], [PICTURE]),
    ):
        with pytest.raises(BundleError, match="embeddings that are not numbers") as raised:
            ask()
        assert str(folder) in str(raised.value)
    assert vlm.image_cache.counts().images == 0
    assert not list((tmp_path / "cache").iterdir())
    assert "not numbers" in str(check_self_test(vlm.bundle, "cpu", threads=1).problem)
    assert vlm.ask(None, "hi", max_new_tokens=2).token_ids


@pytest.mark.parametrize(
    "stored",
    [
        np.full((4, 32), np.nan, np.float32),
        np.full((4, 32), np.inf, np.float32),
        np.zeros((3, 32), np.float32),
        np.zeros((4, 31), np.float32),
        np.zeros((400, 32), np.float32),
    ],
    ids=["nan", "inf", "rows", "width", "more rows"],
)
def test_embeddings_of_a_cache_on_disk(handmade_bundle: Path, tmp_path: Path, stored: Any) -> None:
    """Whatever lies there, the answer is the same; another program may write into that folder."""
    plain = edgevlm_runtime.load(handmade_bundle, threads=1).ask(PICTURE, "hi", max_new_tokens=4)
    vlm = edgevlm_runtime.load(handmade_bundle, threads=1, image_cache_dir=tmp_path / "cache")
    DiskStore(tmp_path / "cache", 1 << 20).save(vlm.pipeline.prepare(PICTURE).key, stored)
    assert vlm.ask(PICTURE, "hi", max_new_tokens=4).token_ids == plain.token_ids


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-3, 1.0, 1e300, 1e308])
def test_probabilities_are_numbers_at_any_temperature(temperature: float) -> None:
    weights = weigh(np.array([-3.0, -1.0, -700.0]), temperature)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    assert weights[1] == weights.max()


@pytest.mark.parametrize("temperature", [1e-300, 1.0, 1e300])
def test_no_temperature_changes_the_order(vlm: Any, temperature: float) -> None:
    with vlm.session() as session:
        plain = session.choose("hi", ["b", "a", "c"], temperature=1.0)
        assert session.choose("hi", ["b", "a", "c"], temperature=temperature).best == plain.best
        assert plain.best == max(plain.scores, key=plain.scores.__getitem__)


NUMBERS = [float("nan"), float("inf"), -float("inf"), 10**400, "1", None, True, [1]]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
def test_options_that_are_no_numbers(vlm: Any, name: str, value: Any) -> None:
    with pytest.raises(EdgeVLMError, match=f"bad value for {name}") as raised:
        vlm.ask(None, "hi", **{name: value})
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("value", [value for value in NUMBERS if value is not None], ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("name", ["temperature", "abstain_below"])
def test_choice_options_that_are_no_numbers(vlm: Any, name: str, value: Any) -> None:
    with pytest.raises(EdgeVLMError, match=f"bad value for {name}"):
        vlm.session().choose("hi", ["a", "b"], **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", [1], 1.5], ids=str)
@pytest.mark.parametrize("name", ["threads", "max_context", "prefill_chunk", "vision_batch", "image_cache_bytes"])
def test_runtime_options_that_are_no_numbers(handmade_bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(EdgeVLMError, match=f"bad value for {name}"):
        edgevlm_runtime.load(handmade_bundle, **{name: value})


def test_a_penalty_that_goes_beyond_all_numbers(vlm: Any) -> None:
    from edgevlm_runtime.decoding.sampling import Sampler
    from edgevlm_runtime.options import GenerationOptions

    sampler = Sampler(GenerationOptions(repetition_penalty=0.01), np.array([0]), 3)
    with pytest.raises(EdgeVLMError, match="repetition_penalty"):
        sampler.pick(np.array([3e37, 1.0, 2.0], np.float32))
