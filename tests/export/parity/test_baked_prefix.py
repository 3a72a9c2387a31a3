"""The beginning of every prompt, computed at export: equal to the graph's own cache, and answers stay transformers'."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.planning.plan import ExportPlan, plan_export
from edgevlm_export.precision import plans
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.reference import Reference
from edgevlm_export.steps import prefix
from edgevlm_runtime.asking.session import system_message, user_message
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints

SYSTEM = "describe what is in the picture"
QUESTIONS = ("is there a scratch", "describe this image")
ROTATED = replace(plans.PLANS["fp32"], decoder=GraphPrecision("fp32", transforms=("rotate-residual", "rotate-values")))
CASES = {
    "qwen2-rotated": (lambda folder: checkpoints.llava(folder, "qwen2"), ROTATED),
    "gemma": (lambda folder: checkpoints.llava(folder, "gemma"), plans.PLANS["fp32"]),
    "qwen3": (lambda folder: checkpoints.llava(folder, "qwen3"), plans.PLANS["fp32"]),
    "mrope": (checkpoints.qwen2_5_vl, plans.PLANS["fp32"]),
}


def _picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (45, 60, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory, export_bundle) -> tuple[Path, Path, bool]:
    """A checkpoint, its bundle with a system prompt, and whether the decoder was rotated."""
    make, plan = CASES[request.param]
    checkpoint = make(tmp_path_factory.mktemp("prefix") / request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plans.PLANS, "fp32", plan)
        return checkpoint, export_bundle(checkpoint, system_prompt=SYSTEM), plan is ROTATED


def test_equals_the_graphs_own_cache(exported):
    """And, where nothing was rotated, transformers' own."""
    checkpoint, bundle, rotated = exported
    model = edgevlm_runtime.load(bundle, verify="size")
    info = model.manifest.decoder
    known = info.prefix
    baked = np.load(bundle / known.file)
    count = len(known.token_ids)
    embeddings = np.empty((count, info.hidden_size), np.float32)
    model.pipeline.decoder.embeddings.gather(np.array(known.token_ids), embeddings)
    run = model.pipeline.decoder.new_run(64 + count)
    feeds = model.pipeline.positions.feeds((), 0, count)
    run.forward(embeddings, np.array([0]), feeds)
    own = np.stack([tensor.host()[0, :, :count] for tensor in run.kv.tensors]).reshape(known.shape)
    np.testing.assert_allclose(baked, own, atol=1e-4)
    assert np.abs(own).max() > 0.5
    if rotated:
        return
    reference = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        cache = reference(input_ids=torch.tensor([known.token_ids]), use_cache=True).past_key_values
    theirs = np.stack([np.stack([layer.keys[0].numpy(), layer.values[0].numpy()]) for layer in cache.layers])
    np.testing.assert_allclose(baked, theirs, atol=1e-4)


def test_answers_stay_those_of_transformers(exported):
    """With the bundle's system prompt, with another, with none; in sessions and chats."""
    checkpoint, bundle, _ = exported
    model, reference = edgevlm_runtime.load(bundle, verify="size"), Reference.load(str(checkpoint))
    image, count = _picture(), len(model.manifest.decoder.prefix.token_ids)

    def wanted(question: str, system: str | None) -> tuple[int, ...]:
        asked = [*system_message(system), user_message(question, [image])]
        return reference.answer(asked, [image], max_new_tokens=8).token_ids

    with model.session(image) as session:
        for number, question in enumerate(QUESTIONS):
            answer = session.ask(question, max_new_tokens=8)
            assert answer.token_ids == wanted(question, SYSTEM)
            assert answer.prefix_tokens_reused >= count + (answer.image_tokens if number else 0)
    assert answer.prompt_tokens == len(
        reference.inputs([*system_message(SYSTEM), user_message(question, [image])], [image])["input_ids"][0]
    )
    for system, given in (("is there a scratch", "is there a scratch"), ("", None)):
        answer = model.ask(image, QUESTIONS[0], system=system, max_new_tokens=8)
        assert answer.token_ids == wanted(QUESTIONS[0], given)
        assert answer.prefix_tokens_reused < count
    with model.chat(image) as chat:
        assert chat.ask(QUESTIONS[1], max_new_tokens=8).token_ids == wanted(QUESTIONS[1], SYSTEM)


def test_without_an_image_the_shared_part_is_reused(exported):
    checkpoint, bundle, _ = exported
    model, reference = edgevlm_runtime.load(bundle, verify="size"), Reference.load(str(checkpoint))
    answer = model.ask(None, QUESTIONS[0], max_new_tokens=8)
    asked = [*system_message(SYSTEM), user_message(QUESTIONS[0], [])]
    assert answer.token_ids == reference.answer(asked, [], max_new_tokens=8).token_ids
    assert answer.prefix_tokens_reused > 2


def test_by_default_the_template_alone(tiny_bundle, tiny_checkpoint, export_bundle):
    """No system prompt: what the template writes before the image; nothing when it is not wanted."""
    model = edgevlm_runtime.load(tiny_bundle, verify="size")
    assert list(model.manifest.decoder.prefix.token_ids) == model.tokenizer.encode("<s>USER: ", "<s>")
    assert model.manifest.prompt.system_prompt is None
    plain = export_bundle(tiny_checkpoint, bake_prefix=False)
    assert not (plain / "prefix.npy").exists()
    without = edgevlm_runtime.load(plain, verify="size")
    found, wanted = (one.ask(_picture(), "is there a scratch", max_new_tokens=8) for one in (model, without))
    assert found.token_ids == wanted.token_ids
    assert (found.prefix_tokens_reused, wanted.prefix_tokens_reused) == (7, 0)


def test_rounded_bundles_hold_exact_values(tiny_checkpoint, tiny_bundle, export_bundle, monkeypatch):
    """An int4 decoder begins with the keys and values that float32 has, not with those its own weights give."""
    plan = replace(plans.PLANS["int4"], decoder=replace(plans.PLANS["int4"].decoder, transforms=(), calibrated=False))
    monkeypatch.setitem(plans.PLANS, "int4", plan)
    bundle = export_bundle(tiny_checkpoint, precision="int4")
    np.testing.assert_array_equal(np.load(bundle / "prefix.npy"), np.load(tiny_bundle / "prefix.npy"))


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"


@pytest.fixture(scope="module")
def planned(tiny_checkpoint) -> ExportPlan:
    """An export of 64 tokens, planned and not written."""
    return plan_export(tiny_checkpoint, plans.PLANS["fp32"], 64, lambda *_: None)


@pytest.mark.parametrize(
    ("before", "system", "says"),
    [
        (REFUSES, SYSTEM, "system prompt not usable: .*System role not supported"),
        (DROPS, SYSTEM, "leaves out the system prompt"),
        ("", "scratch " * 200, "system prompt too long: .* the context holds 64"),
        ("", "an <image> of it", "system prompt not usable: message 1 contains '<image>'"),
    ],
)
def test_bad_system_prompts(planned, before, system, says):
    """And chat templates that have no place for one."""
    files = planned.preprocessing.files
    files = {**files, "chat_template.jinja": before + files["chat_template.jinja"]}
    plan = replace(planned, preprocessing=replace(planned.preprocessing, files=files))
    with pytest.raises(ExportError, match=says) as error:
        prefix.prompt_prefix(prefix.with_system_prompt(plan, system))
    assert "\n" not in str(error.value)


def test_a_beginning_of_the_templates_own_that_is_too_long(planned):
    """Nobody gave a system prompt that could be shortened."""
    files = planned.preprocessing.files
    files = {**files, "chat_template.jinja": "scratch " * 200 + files["chat_template.jinja"]}
    plan = replace(planned, preprocessing=replace(planned.preprocessing, files=files))
    with pytest.raises(ExportError, match=r"^context too short: 64 tokens: every prompt begins with \d+: raise --max-"):
        prefix.prompt_prefix(plan)


def test_the_command_line_shows_it(tiny_checkpoint, tmp_path):
    from click.testing import CliRunner

    from edgevlm.cli import cli

    bundle, image = tmp_path / "bundle", tmp_path / "part.png"
    _picture().save(image)
    run = CliRunner()
    options = ["--system-prompt", SYSTEM, "--no-certificate", "--no-self-test", "--json", "-o", str(bundle)]
    made = run.invoke(cli, ["export", str(tiny_checkpoint), *options])
    assert made.exit_code == 0, made.output
    shown = json.loads(run.invoke(cli, ["inspect", str(bundle), "--json"]).stdout)
    assert shown["system_prompt"] == SYSTEM
    assert shown["prefix"]["tokens"] == len(shown["prefix"]["token_ids"]) > 7
    assert f"{shown['prefix']['tokens']} tokens, computed at export" in run.invoke(cli, ["inspect", str(bundle)]).stdout
    asked = ["run", str(bundle), "-i", str(image), "-p", "is there a scratch", "--max-new-tokens", "2", "--json"]
    answer = json.loads(run.invoke(cli, asked).stdout)["answers"][0]
    assert answer["prefix_tokens_reused"] == shown["prefix"]["tokens"]


def test_options_are_checked_early(tmp_path):
    for empty in ("", " "):
        with pytest.raises(ExportError, match="empty system prompt"):
            ExportOptions(str(tmp_path), system_prompt=empty)
