"""Layers that carry a state beside the KV cache (LFM2's convolutions, Qwen3.5's linear attention), however a prompt is
cut and whatever is reused: token for token what transformers' generate gives, and the same as a fresh run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgevlm_runtime
from edgevlm_export.precision.plans import ROTATIONS
from tests.export.parity.test_blocks import (
    LONG,
    SINGLE,
    TOKENS,
    Case,
    check_streamed,
    count,
    greedy,
    prompt_and_images,
    user,
)
from tests.export.parity.test_parity import CASES, MORE, QUESTIONS, pictures
from tests.support.references import Remembered

STATEFUL = ("lfm2_vl-", "qwen3_5-")
LATER = {*MORE, "qwen3_5-heads-of-40"}
"""For `make test-full`: each family's first case takes minutes here."""
FAMILIES = [
    pytest.param(name, marks=pytest.mark.slow if name in LATER else ()) for name in CASES if name.startswith(STATEFUL)
]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("states") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


ASKED = [
    ([user(None, QUESTIONS[0])], (0,)),
    ([user(None, QUESTIONS[1])], (0,)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 1)),
    ([user(None, "and", None, QUESTIONS[2])], (0, 1)),
    ([user(None, "and", None, QUESTIONS[1])], (0, 0)),
    ([user(None, QUESTIONS[1])], (1,)),
    ([user(LONG, None)], (0,)),
    ([user(LONG, None, QUESTIONS[0])], (0,)),
    ([user(*[None] * 6, QUESTIONS[0])], (0, 1, 2, 3, 0, 1)),
    ([user(*[None] * 6, QUESTIONS[1])], (0, 1, 2, 3, 0, 1)),
    ([user(LONG)], ()),
]


def check_reuse(case: Case, vlm: edgevlm_runtime.VLM) -> list[int]:
    """One cache through prompts that share beginnings, a look ahead in each; how much was reused."""
    context, ends, reused = vlm.pipeline.new_context(), vlm.manifest.generation.eos_token_ids, []
    for messages, places in ASKED:
        images = [pictures()[place] for place in places]
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        reused.append(context.shared_prefix(prompt))
        found = greedy(context, prompt, embeddings, ends)
        fresh = vlm.pipeline.new_context()
        assert found == greedy(fresh, prompt, embeddings, ends)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
        length, said = context.length, np.array([5, 9, 31, 7, 40, 11], dtype=np.int64)
        context.peek(said)
        assert context.length == length
        for token in said.tolist():  # as if nobody had looked
            np.testing.assert_allclose(context.step(token), fresh.step(token), atol=2e-5)
    return reused


def ends_of_images(vlm: edgevlm_runtime.VLM, number: int) -> list[int]:
    """Where each image of one of `ASKED` ends."""
    messages, places = ASKED[number]
    prompt, _ = prompt_and_images(vlm, messages, [pictures()[place] for place in places])
    return [max(span.stop for span in prompt.images if span.image == image) for image in range(len(places))]


def test_what_is_reused_is_what_a_fresh_run_computes(case: Case) -> None:
    vlm = edgevlm_runtime.load(case.bundle, prefill_chunk=5, verify="size")
    reused = check_reuse(case, vlm)
    behind = [ends_of_images(vlm, number) for number in range(len(ASKED))]
    assert reused[1] == behind[1][0]
    assert reused[2] == behind[2][0]
    assert reused[3] == behind[3][1]
    assert reused[4] == behind[4][0]
    assert reused[5] == 0  # another image
    assert reused[9] == behind[9][-1]  # of more images than copies are kept, the last one's is
    assert reused[10] == 0  # nothing in common but what no copy was made of


def test_a_prefill_graph_reuses_as_much(case: Case, export_bundle) -> None:
    vlm = edgevlm_runtime.load(export_bundle(case.folder, prefill="fp32"), prefill_chunk=5, verify="size")
    assert vlm.pipeline.decoder.prefill_graph is not None
    reused = check_reuse(case, vlm)
    assert reused[3] == ends_of_images(vlm, 3)[1]


def test_choices_leave_the_session_as_it_was(case: Case) -> None:
    """A verdict, a question and the verdict again."""
    vlm = edgevlm_runtime.load(case.bundle, verify="size")
    image, choices = pictures()[2], ("yes", "no", "there is a scratch")
    with vlm.session(image) as session:
        first = session.choose(QUESTIONS[1], choices)
        answer = session.ask(QUESTIONS[1], max_new_tokens=TOKENS)
        again = session.choose(QUESTIONS[1], choices)
    assert answer.token_ids == case.reference.answer(QUESTIONS[1], [image], max_new_tokens=TOKENS).token_ids
    assert answer.prefix_tokens_reused >= answer.image_tokens
    np.testing.assert_allclose(list(first.scores.values()), list(again.scores.values()), atol=1e-5)


def test_a_reference_layer_by_layer_reads_the_same(case: Case) -> None:
    check_streamed(case)


@pytest.mark.parametrize(
    ("options", "closeness"),
    [
        ({"precision": "fp16"}, 1e-5),
        ({"kv": "int8"}, 1e-3),
        ({"kv": "int8:channel"}, 1e-3),
        ({"precision": "fp16", "target": "tensorrt-rtx", "max_context": 400}, 1e-3),
        ({"precision": "int8", "certificate": True}, 5e-3),
    ],
    ids=str,
)
def test_other_precisions(case: Case, export_bundle, options: dict[str, str], closeness: float) -> None:
    """An int8 bundle is certified, every rotation applies but that of values where a gate stands behind attention, and
    every layer but the head is in the plan's format."""
    vlm = check_precision(case, export_bundle(case.folder, **options), options, closeness)
    if options.get("precision") == "int8":
        decoder = vlm.manifest.graphs["decoder"]
        gated = {"rotate-values"} if case.folder.name.startswith("qwen3_5") else set()
        assert (set(decoder.refused), set(decoder.transforms)) == (gated, set(ROTATIONS) - gated)
        assert set(decoder.exceptions.values()) == {"int8b"}
        assert len(decoder.exceptions) == 1


def check_precision(case: Case, bundle: Path, options: dict[str, str], closeness: float) -> edgevlm_runtime.VLM:
    """Mean KL of the next token over a prompt with an image, in nats."""
    vlm = edgevlm_runtime.load(bundle, prefill_chunk=4, verify="size")
    messages, images = SINGLE["middle"], pictures()[:1]
    _, found = vlm.prompt_logits(messages, images)
    _, wanted = case.reference.prompt_logits(messages, images)
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (wanted, found))
    divergence = float((p.exp() * (p - q)).sum(-1).mean())
    print("KL", options, divergence)
    assert 0 < divergence < closeness
    return vlm


def test_standard_operators(case: Case, export_bundle) -> None:
    bundle = export_bundle(case.folder, target="tensorrt-rtx")
    vlm = edgevlm_runtime.load(bundle, prefill_chunk=16)
    for messages in (SINGLE["middle"], SINGLE["two"]):
        images = pictures()[: count(messages)]
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        found = greedy(vlm.pipeline.new_context(), prompt, embeddings, vlm.manifest.generation.eos_token_ids)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
        wanted = case.reference.prompt_logits(messages, images)[1]
        assert np.abs(vlm.prompt_logits(messages, images)[1] - wanted).max() < 1e-4
    check_reuse(case, vlm)
