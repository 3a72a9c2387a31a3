"""Fewer image tokens: the rows that transformers' own model gives at the places that an independent computation
chooses, answered about token for token as transformers does; what is reused is what a fresh run computes."""

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

import edgevlm_runtime
from edgevlm_export.reference import Forced, Reference, StreamedReference
from edgevlm_runtime import VLM
from edgevlm_runtime.bundle.certificate import read_certificate
from tests.export.parity.test_parity import QUESTIONS, pictures
from tests.support import checkpoints

Rows = NDArray[np.float32]
TOKENS = 8


def diverse(rows: Rows, number: int) -> list[int]:
    """DivPrune by its words: the token whose nearest other is furthest away, then always the furthest from those
    taken."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    everyone = range(len(rows))
    taken = [max(everyone, key=lambda a: min(distance[a, b] for b in everyone if b != a))]
    while len(taken) < number:
        left = [place for place in everyone if place not in taken]
        taken.append(max(left, key=lambda a: min(distance[a, b] for b in taken)))
    return sorted(taken)


def attention(weights: Rows, number: int, *, class_token: bool) -> list[int]:
    """The places that get most of the attention [heads, queries, places] of a layer."""
    got = weights[:, 0, 1:].mean(0) if class_token else weights.mean((0, 1))
    return sorted(sorted(range(len(got)), key=lambda place: -got[place])[:number])


@dataclass
class Case:
    folder: Path
    bundle: Path
    method: str
    tower: str
    kept: int
    model: Any
    reference: Reference

    def expected(self, picture: Image.Image) -> tuple[list[int], Rows]:
        """The places that are kept, and all rows of a picture [tokens, hidden], by transformers' model alone."""
        pixels = self.reference.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        layer, first = (-2, 1) if self.tower == "clip" else (-1, 0)
        with torch.inference_mode():
            seen = self.model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
            rows = self.model.model.multi_modal_projector(seen.hidden_states[layer][:, first:])[0].numpy()
        if self.method == "diverse":
            return diverse(rows, self.kept), rows
        weights = seen.attentions[layer][0].numpy()  # of the layer that gives these states
        return attention(weights, self.kept, class_token=self.tower == "clip"), rows

    def answer(self, picture: Image.Image, question: str) -> list[int]:
        """Greedy, by transformers' text model from embeddings put together here."""
        places, rows = self.expected(picture)
        ids = self.reference.processor.tokenizer
        text = self.reference.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        before, after = text.split("<image>")
        table = self.model.get_input_embeddings()
        parts = [table(torch.tensor(ids(part, add_special_tokens=False).input_ids)) for part in (before, after)]
        whole = torch.cat([parts[0], torch.from_numpy(rows[places]), parts[1]])[None]
        made = self.model.generate(inputs_embeds=whole, do_sample=False, max_new_tokens=TOKENS)
        return list(made[0].tolist())


CASES = {
    f"{tower}-{method}": (tower, method, kept)
    for tower, kept in (("clip", 3), ("siglip", 4))
    for method in ("diverse", "attention")
}


@pytest.fixture(scope="module", params=[*CASES])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Case:
    tower, method, kept = CASES[request.param]
    folder = checkpoints.llava(tmp_path_factory.mktemp("fewer") / request.param, tower=tower)
    bundle = export_bundle(folder, image_tokens=kept, image_token_method=method)
    reference = Reference.load(str(folder))
    reference.model.model.vision_tower.set_attn_implementation("eager")  # which returns the attention
    return Case(folder, bundle, method, tower, kept, reference.model, reference)


@pytest.fixture(scope="module")
def vlm(case: Case) -> VLM:
    return edgevlm_runtime.load(case.bundle, verify="size")


def embeddings(vlm: VLM, picture: Image.Image) -> Rows:
    return vlm.pipeline.encoder.compute(vlm.pipeline.prepare(picture)).embeddings


def test_rows_are_those_of_the_places_that_an_independent_choice_keeps(case: Case, vlm: VLM) -> None:
    for picture in pictures():
        places, rows = case.expected(picture)
        found = embeddings(vlm, picture)
        assert found.shape == (case.kept, rows.shape[1])
        np.testing.assert_allclose(found, rows[places], atol=1e-4)


def test_the_choice_follows_the_picture(case: Case) -> None:
    assert len({tuple(case.expected(picture)[0]) for picture in pictures()}) > 1


def test_answers_are_those_of_transformers_given_these_rows(case: Case, vlm: VLM) -> None:
    for picture in pictures()[:2]:
        for question in QUESTIONS[:2]:
            found = vlm.ask(picture, question, max_new_tokens=TOKENS)
            assert list(found.token_ids) == case.answer(picture, question)
            assert found.image_tokens == case.kept


def test_kept_embeddings_and_prefixes_answer_like_a_fresh_session(case: Case, vlm: VLM) -> None:
    one, two = pictures()[:2]

    def fresh(pictures: list[Image.Image], question: str) -> tuple[int, ...]:
        return edgevlm_runtime.load(case.bundle, verify="size").ask(pictures, question, max_new_tokens=6).token_ids

    with vlm.session(one, two) as session:
        answers = [session.ask(question, max_new_tokens=6) for question in QUESTIONS[:2]]
    assert answers[1].prefix_tokens_reused >= 2 * case.kept
    again = vlm.ask([one, two], QUESTIONS[1], max_new_tokens=6)
    assert again.image_cache == "hit"
    assert again.token_ids == answers[1].token_ids == fresh([one, two], QUESTIONS[1])
    assert answers[0].token_ids == fresh([one, two], QUESTIONS[0])


def test_another_number_of_tokens_is_another_image(case: Case, export_bundle: Callable[..., Path]) -> None:
    """What one bundle keeps on disk of an image is not another's."""
    others = [{}, {"image_tokens": case.kept - 1}, {"image_tokens": case.kept, "image_token_method": "random"}]
    bundles = [case.bundle, *(export_bundle(case.folder, **asked) for asked in others)]
    loaded = [edgevlm_runtime.load(bundle, verify="size") for bundle in bundles]
    assert len({one.pipeline.prepare(pictures()[0]).key for one in loaded}) == len(loaded)


def test_references_do_the_same(case: Case, vlm: VLM) -> None:
    """transformers' own model with rows left out, whole and layer by layer."""
    image, picture = vlm.manifest.image, pictures()[1]
    whole = Reference.load(str(case.folder), images=image)
    streamed = StreamedReference.load(str(case.folder), images=image)
    wanted, rows = case.expected(picture)
    for reference in (whole, streamed):
        np.testing.assert_allclose(reference.encode_image(picture)[1], rows, atol=1e-4)
        assert reference.choosing is not None
        assert reference.choosing.places[0].tolist() == wanted
    answer = tuple(vlm.ask(picture, QUESTIONS[0], max_new_tokens=6).token_ids)
    assert whole.answer(QUESTIONS[0], [picture], max_new_tokens=6).token_ids == answer
    prompts = [Forced(QUESTIONS[0], (picture,), answer), Forced(QUESTIONS[1], (), ())]
    for one, other in zip(whole.read(prompts, 6), streamed.read(prompts, 6), strict=True):
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_certificate_says_what_it_costs(case: Case, precision: str, export_bundle: Callable[..., Path]) -> None:
    """Random weights answer otherwise when anything changes: drift is allowed, and written down."""
    asked = {"image_tokens": case.kept, "image_token_method": case.method, "precision": precision}
    bundle = export_bundle(case.folder, **asked, certificate=True, allow_drift="random weights")
    certificate = read_certificate(edgevlm_runtime.load(bundle, verify="size").bundle)
    assert certificate is not None
    cost = certificate.image_tokens
    assert cost is not None
    assert (cost.kept, cost.of, cost.method) == (case.kept, 4 if case.tower == "clip" else 9, case.method)
    assert 0 < cost.changed <= 1
    assert 0 < cost.random_changed <= 1
    assert {miss.what for miss in certificate.missed if not isinstance(miss, str)} == {"changed"}
    if precision == "fp32":
        assert {one.same_choice for one in certificate.images.values()} == {1.0}


def test_a_context_without_room_for_all_tokens(
    tiny_checkpoint: Path, export_bundle: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The bundle is made for fewer: what it costs cannot be measured, and that is said."""
    asked = {"image_size": 196, "image_tokens": 3, "max_context": 150}
    bundle = export_bundle(tiny_checkpoint, **asked, certificate=True)
    certificate = read_certificate(edgevlm_runtime.load(bundle, verify="size").bundle)
    assert certificate is not None
    assert (certificate.verdict, certificate.image_tokens) == ("passed", None)
    assert "what fewer image tokens cost is not measured" in caplog.text
