"""A vision tower for another image size: what transformers' own model gives for pictures preprocessed at that size and
called with `interpolate_pos_encoding=True`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import edgevlm_runtime
from edgevlm_export.reference import Reference, StreamedReference
from edgevlm_runtime import VLM
from edgevlm_runtime.bundle.certificate import read_certificate
from tests.export.parity.test_parity import QUESTIONS, pictures
from tests.support import checkpoints


@dataclass
class Case:
    folder: Path
    bundle: Path
    size: int
    processor: Any
    """transformers' own, for pictures of that size."""
    layer: int
    first: int
    model: Any

    def rows(self, picture: Image.Image) -> NDArray[np.float32]:
        pixels = self.processor(picture, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, self.size, self.size)
        with torch.inference_mode():
            seen = self.model.model.vision_tower(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
            made = self.model.model.multi_modal_projector(seen.hidden_states[self.layer][:, self.first :])
        rows: NDArray[np.float32] = made[0].numpy()
        return rows


def clip(size: int) -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def siglip(size: int) -> Any:
    return SiglipImageProcessorPil(size={"height": size, "width": size})


CASES = {
    "clip larger": ("clip", 56, clip, -2, 1),
    "clip smaller": ("clip", 14, clip, -2, 1),
    "siglip larger": ("siglip", 70, siglip, -1, 0),
    "siglip smaller": ("siglip", 28, siglip, -1, 0),
}


@pytest.fixture(scope="module", params=[*CASES])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Case:
    tower, size, processor, layer, first = CASES[request.param]
    folder = checkpoints.llava(tmp_path_factory.mktemp("sized") / tower, tower=tower)
    model = Reference.load(str(folder)).model
    return Case(folder, export_bundle(folder, image_size=size), size, processor(size), layer, first, model)


@pytest.fixture(scope="module")
def vlm(case: Case) -> VLM:
    return edgevlm_runtime.load(case.bundle, verify="size")


def test_embeddings_are_transformers_own(case: Case, vlm: VLM) -> None:
    for picture in pictures():
        found, wanted = vlm.pipeline.encoder.compute(vlm.pipeline.prepare(picture)).embeddings, case.rows(picture)
        assert len(wanted) == (case.size // 14) ** 2
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_references_interpolate_and_answer_alike(case: Case, vlm: VLM) -> None:
    picture = pictures()[1]
    whole = Reference.load(str(case.folder), images=vlm.manifest.image)
    streamed = StreamedReference.load(str(case.folder), images=vlm.manifest.image)
    for reference in (whole, streamed):
        np.testing.assert_allclose(reference.encode_image(picture)[1], case.rows(picture), atol=1e-4)
    for question in QUESTIONS[:2]:
        wanted = whole.answer(question, [picture], max_new_tokens=8)
        found = vlm.ask(picture, question, max_new_tokens=8)
        assert (found.token_ids, found.prompt_tokens) == (wanted.token_ids, wanted.prompt_tokens)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_certificate_and_the_self_test_are_of_that_size(
    case: Case, precision: str, export_bundle: Callable[..., Path]
) -> None:
    if precision == "int8" and case.size == 14:
        pytest.skip("one token of random weights: rounding turns whole answers")
    asked = {"image_size": case.size, "precision": precision}
    bundle = export_bundle(case.folder, **asked, certificate=True, self_test=True)
    vlm = edgevlm_runtime.load(bundle, verify="size")
    certificate = read_certificate(vlm.bundle)
    assert certificate is not None
    assert (certificate.verdict, certificate.missed, certificate.image_tokens) == ("passed", (), None)
    assert (vlm.manifest.image.size, vlm.manifest.image.options["height"]) == (case.size, case.size)
    assert vlm.manifest.self_test is not None
    stored = np.load(bundle / vlm.manifest.self_test.embeddings)
    assert len(stored) == vlm.manifest.image.options["tokens"] == (case.size // 14) ** 2


def test_fewer_tokens_of_another_size(case: Case, vlm: VLM, export_bundle: Callable[..., Path]) -> None:
    """Both at once: rows of the larger picture's."""
    kept = (case.size // 14) ** 2 - 1
    if not kept:
        pytest.skip("one token is all there is")
    less = edgevlm_runtime.load(export_bundle(case.folder, image_size=case.size, image_tokens=kept), verify="size")
    assert less.manifest.image.fewer is not None
    assert (less.manifest.image.fewer.of, less.manifest.image.options["tokens"]) == (kept + 1, kept)
    for picture in pictures():
        found, rows = less.pipeline.encoder.compute(less.pipeline.prepare(picture)).embeddings, case.rows(picture)
        (place,) = [place for place in range(kept + 1) if np.abs(np.delete(rows, place, axis=0) - found).max() < 1e-4]
        assert 0 <= place <= kept
