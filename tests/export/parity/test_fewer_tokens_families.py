"""Fewer image tokens in families beside LLaVA, by tile where a picture is cut, and in ONNX's own operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_export.proof.certificate import certify
from edgevlm_export.reference import Reference, StreamedReference
from edgevlm_runtime import VLM
from tests.export.parity.test_fewer_tokens import Rows, diverse
from tests.export.parity.test_parity import QUESTIONS, pictures
from tests.support import checkpoints


@dataclass
class Case:
    folder: Path
    bundle: Path
    kept: int
    of: int

    def chosen(self, rows: Rows) -> Rows:
        """Of all rows of an image, those that each of its tiles keeps."""
        tiles = rows.reshape(-1, self.of, rows.shape[1])
        return np.concatenate([tile[diverse(tile, self.kept)] for tile in tiles])


MADE: dict[str, Callable[[Path], Path]] = {
    "vipllava": checkpoints.vipllava,
    "smolvlm": checkpoints.smolvlm,
    "internvl": checkpoints.internvl,
}


@pytest.fixture(scope="module", params=[*MADE])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Case:
    folder = MADE[request.param](tmp_path_factory.mktemp("fewer") / request.param)
    bundle = export_bundle(folder, image_tokens=3)
    fewer = edgevlm_runtime.load(bundle, verify="size").manifest.image.fewer
    assert fewer is not None
    assert (fewer.kept, fewer.method) == (3, "diverse")
    return Case(folder, bundle, 3, fewer.of)


@pytest.fixture(scope="module")
def vlm(case: Case) -> VLM:
    return edgevlm_runtime.load(case.bundle, verify="size")


def embeddings(vlm: VLM, number: int) -> Rows:
    return vlm.pipeline.encoder.compute(vlm.pipeline.prepare(pictures()[number])).embeddings


def test_each_tile_keeps_the_rows_of_an_independent_choice(case: Case, vlm: VLM) -> None:
    whole = Reference.load(str(case.folder))
    for number, picture in enumerate(pictures()):
        rows = whole.image_embeddings(picture)
        np.testing.assert_allclose(embeddings(vlm, number), case.chosen(rows), atol=1e-4)


def test_answers_are_those_of_transformers_with_rows_left_out(case: Case, vlm: VLM) -> None:
    reference = Reference.load(str(case.folder), images=vlm.manifest.image)
    streamed = StreamedReference.load(str(case.folder), images=vlm.manifest.image)
    for picture in pictures()[:3]:
        wanted = reference.answer(QUESTIONS[0], [picture], max_new_tokens=6)
        found = vlm.ask(picture, QUESTIONS[0], max_new_tokens=6)
        assert (found.token_ids, found.prompt_tokens) == (wanted.token_ids, wanted.prompt_tokens)
        reference.encode_image(picture)
        streamed.encode_image(picture)
        assert reference.choosing is not None
        assert streamed.choosing is not None
        assert reference.choosing.places.tolist() == streamed.choosing.places.tolist()


def test_measuring_again_finds_nothing(case: Case, vlm: VLM) -> None:
    """As `edgevlm verify --reference` does."""
    found = certify(vlm.bundle, Reference.load(str(case.folder), images=vlm.manifest.image))
    assert found.missed == ()
    assert {one.same_choice for one in found.images.values()} == {1.0}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("method", ["diverse", "attention"])
def test_standard_operators_choose_alike(
    tiny_checkpoint: Path, export_bundle: Callable[..., Path], method: str, precision: str
) -> None:
    """The same rows as ONNX Runtime's own operators give, up to rounding: here the choice is between places alone."""
    asked = {"image_size": 56, "image_tokens": 6, "image_token_method": method}
    exact = edgevlm_runtime.load(export_bundle(tiny_checkpoint, **asked), verify="size")
    standard = edgevlm_runtime.load(
        export_bundle(tiny_checkpoint, **asked, precision=precision, target="tensorrt-rtx"), verify="size"
    )
    for number in range(len(pictures())):
        found, wanted = embeddings(standard, number), embeddings(exact, number)
        assert found.shape == wanted.shape
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, wanted)]
        nearest = (unit[0] @ unit[1].T).max(1)
        assert (nearest > 0.98).mean() >= 4 / 6
