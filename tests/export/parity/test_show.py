"""Session.show in families whose caches differ: the answers of a fresh session, golden pictures computed once."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgevlm_runtime
from edgevlm_runtime import VLM, Answer
from tests.export.parity.test_parity import CASES, QUESTIONS, TOKENS, pictures

FAMILIES = (
    "llava-qwen2-tied",
    "qwen2_vl-tied",
    "qwen3_5-published",
    "lfm2_vl-published",
    "gemma3-window-24",
    "paligemma-2",
)


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> VLM:
    folder: Path = CASES[request.param](tmp_path_factory.mktemp("show") / request.param)
    return edgevlm_runtime.load(export_bundle(folder), threads=1)


def alone(vlm: VLM, images: list[object], question: str) -> Answer:
    return vlm.ask(images, question, max_new_tokens=TOKENS)


def test_golden_pictures_and_then_each_frame(vlm):
    golden, *frames = pictures()[:4]
    reuses, prefix = vlm.manifest.decoder.attention != "prefix", vlm.manifest.decoder.prefix
    baked = len(prefix.token_ids) if prefix else 0
    with vlm.session(golden) as session:
        for number, frame in enumerate([*frames, frames[0]]):
            session.show(golden, frame)
            for asked, question in enumerate(QUESTIONS):
                answer = session.ask(question, max_new_tokens=TOKENS)
                assert answer.token_ids == alone(vlm, [golden, frame], question).token_ids, (number, question)
                shared = answer.image_tokens if asked else vlm.pipeline.prepare(golden).prepared.tokens
                reused = answer.prefix_tokens_reused
                assert (reused >= baked + shared) == (number + asked > 0) if reuses else reused == 0


def test_pictures_of_other_sizes_and_numbers(vlm):
    one, two, three = pictures()[:3]
    with vlm.session(one) as session:
        for images in ([two], [one, two], [two, one], [], [three], [three, one], [one]):
            session.show(*images)
            answer = session.ask(QUESTIONS[0], max_new_tokens=TOKENS)
            assert answer.token_ids == alone(vlm, images, QUESTIONS[0]).token_ids, len(images)
