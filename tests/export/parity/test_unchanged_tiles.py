"""A picture that changed in one corner: only its changed tiles are encoded, and the answer is transformers'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_export.reference import Reference
from tests.export.parity.test_parity import QUESTIONS, TOKENS, VARIED
from tests.support import checkpoints

MADE: dict[str, Callable[[Path], Path]] = {
    "smolvlm": lambda folder: checkpoints.smolvlm(folder, **VARIED),
    "internvl": lambda folder: checkpoints.internvl(folder, **VARIED),
    "llava_next": lambda folder: checkpoints.llava_next(folder, **{**VARIED, "seed": 3}),
    "lfm2_vl": lambda folder: checkpoints.lfm2_vl(folder, **VARIED),
}
CORNER = 16
"""Side of what changes in the picture, in pixels."""
IN_PROMPT_ORDER = ("smolvlm", "internvl")
"""Their tiles stand in the prompt one after another, as they are encoded."""


@dataclass(frozen=True)
class Case:
    name: str
    vlm: edgevlm_runtime.VLM
    reference: Reference


@pytest.fixture(scope="module", params=[*MADE])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Case:
    folder = MADE[request.param](tmp_path_factory.mktemp("tiles") / request.param)
    vlm = edgevlm_runtime.load(export_bundle(folder), threads=1, verify="size")
    return Case(request.param, vlm, Reference.load(str(folder)))


def film() -> tuple[Image.Image, Image.Image]:
    """A frame and the next one, in which the lower right corner is another."""
    pixels = np.random.default_rng(7).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    later = pixels.copy()
    later[-CORNER:, -CORNER:] = 255 - later[-CORNER:, -CORNER:]
    return Image.fromarray(pixels), Image.fromarray(later)


def test_only_tiles_that_changed_are_encoded(case: Case) -> None:
    vlm, (frame, later) = case.vlm, film()
    vlm.image_cache.clear()
    one, other = (vlm.pipeline.prepare(picture) for picture in (frame, later))
    changed = sum(a != b for a, b in zip(one.tiles, other.tiles, strict=True))
    assert 0 < changed < len(other.tiles)
    vlm.pipeline.encoder.encode(one)
    before = vlm.image_cache.counts()
    assert before.tiles == len(set(one.tiles))
    rows = vlm.pipeline.encoder.encode(other).embeddings
    after = vlm.image_cache.counts()
    assert after.tile_misses - before.tile_misses == changed
    assert after.tile_hits - before.tile_hits == len(other.tiles) - changed
    np.testing.assert_array_equal(rows, vlm.pipeline.encoder.compute(other).embeddings)


def test_the_prompt_begins_anew_at_the_first_tile_that_changed(case: Case) -> None:
    """Where tiles stand in the prompt one after another; else at the picture, or, where states are overwritten, at the
    beginning."""
    vlm, question, answers = case.vlm, QUESTIONS[0], []
    with vlm.session() as session:
        for picture in film():
            session.show(picture)
            answers.append(session.ask(question, max_new_tokens=TOKENS))
    expected = [case.reference.answer(question, [picture], max_new_tokens=TOKENS) for picture in film()]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    one, other = (vlm.pipeline.prepare(picture) for picture in film())
    pairs = zip(one.parts, other.parts, strict=True)
    same = sum(part.rows for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert (same > 0) is (case.name in IN_PROMPT_ORDER)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = vlm.pipeline.assemble([{"role": "user", "content": content}], [other], vlm.context_tokens)
    place = next(span.start + same - span.row for span in prompt.images if span.row <= same < span.row + span.length)
    wanted = 0 if vlm.manifest.decoder.states else place
    assert answers[1].prefix_tokens_reused == wanted
    alike = answers[0].token_ids == answers[1].token_ids
    assert not (wanted and alike), "the pictures are too much alike to tell what was reused"
