"""The shipped model, exported: float32 answers like transformers token for token; int8 and int4 keep its verdicts, and
int8 carries a certificate that says so and can be measured again.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import edgevlm_runtime
from edgevlm.cli import cli
from edgevlm_export import inspection
from edgevlm_export.inspector import checkpoint_path
from edgevlm_export.reference import Reference
from edgevlm_runtime.bundle.certificate import Certificate, read_certificate
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.checks.parity import parity
from edgevlm_runtime.form import Form
from tests.support import records

QUESTIONS = 300
FIRST_IMAGE = 3000


@pytest.fixture(scope="module")
def examples():
    return list(inspection.examples("test", QUESTIONS, questions_per_image=4, start=FIRST_IMAGE))


@pytest.fixture(scope="module")
def expected(examples):
    reference = Reference.load("inspector")
    return [reference.answer(example.question, [example.image]).token_ids for example in examples]


@pytest.fixture(scope="module")
def int8(export_bundle) -> Path:
    return export_bundle(checkpoint_path(), precision="int8", certificate=True)


@pytest.fixture(scope="module")
def int4(export_bundle) -> Path:
    return export_bundle(checkpoint_path(), precision="int4")


@pytest.fixture(params=["int8", "int4"])
def quantized(request) -> Path:
    return request.getfixturevalue(request.param)


def answers(vlm: edgevlm_runtime.VLM, examples: list[inspection.Example]) -> list[edgevlm_runtime.Answer]:
    found = []
    for _, group in groupby(examples, key=lambda example: example.part.seed):
        same_image = list(group)
        with vlm.session(same_image[0].image) as session:
            found += [session.ask(example.question) for example in same_image]
    return found


def test_float32_gives_the_tokens_of_transformers(examples, expected, export_bundle):
    found = answers(edgevlm_runtime.load(export_bundle(checkpoint_path())), examples)
    assert [answer.token_ids for answer in found] == expected


def test_quantized_keeps_the_verdicts(examples, expected, quantized):
    vlm = edgevlm_runtime.load(quantized)
    found = answers(vlm, examples)
    flips = sum(answer.token_ids != tokens for answer, tokens in zip(found, expected, strict=True))
    right = sum(str(answer) == example.answer for answer, example in zip(found, examples, strict=True))
    assert flips <= 0.02 * QUESTIONS
    assert right >= 0.93 * QUESTIONS


def test_quantized_still_tells_images_apart(examples, quantized):
    vlm = edgevlm_runtime.load(quantized)
    images = {example.part.seed: example.image for example in examples[:32]}
    embeddings = [vlm.pipeline.encoder.encode(vlm.pipeline.prepare(image)).embeddings for image in images.values()]
    for index, one in enumerate(embeddings):
        for other in embeddings[:index]:
            assert np.abs(one - other).mean() > 0.05 * np.abs(one).mean()
    assert len({str(vlm.ask(image, "Give a full report of the part.")) for image in images.values()}) == len(images)


@pytest.mark.parametrize("parts", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_record_held_to_its_schema_says_what_the_free_one_says(int8, parts):
    """Every one parses; both texts are the same; nearly all are what was drawn."""
    form = Form.json(inspection.RECORD_SCHEMA)
    right = 0
    with edgevlm_runtime.load(int8).session() as session:
        for example in inspection.records("test", parts, start=FIRST_IMAGE):
            session.show(example.image)
            held, free = session.ask(example.question, form=form), session.ask(example.question)
            assert held.finish_reason == "stop"
            assert form.parse(held.text) == json.loads(free.text)
            assert held.text == free.text
            right += held.text == example.answer
    assert right >= 0.95 * parts


def test_the_certificate_of_int8_is_read_back_and_measured_again(int8):
    shown = msgspec.convert(json.loads(invoke("inspect", int8, "--json").stdout)["certificate"], Certificate)
    assert shown.verdict == "passed"
    assert shown == read_certificate(Bundle.open(int8))
    result = invoke("verify", int8, "--no-self-test", "--reference", "inspector", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    records.check("verify", found)
    assert found["same_checkpoint"] is True
    before, after = msgspec.to_builtins(parity(shown)), found["parity"]
    assert list(after) == list(before) == ["vision_encoder", "projector", "decoder", "greedy", "sensitivity"]
    for part, figures in before.items():
        assert after[part] == pytest.approx(figures, rel=1e-3, abs=1e-4), part
    assert before["projector"]["cosine_min"] > 0.99
    assert before["decoder"]["top1_agreement"] > 0.95
    assert before["greedy"]["identical"] >= 8


def invoke(*arguments: object):
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="edgevlm")
