"""Tokens that see later ones (images in Gemma 3 and 4, PaliGemma's prompts): in the reference, in calibration, in every
precision and dialect. That they are right wherever they stand is in test_layouts.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.families import get_family
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.preprocessing import load_processor, translate
from edgevlm_export.reference import Forced, Reference, StreamedReference
from edgevlm_runtime.errors import ExportError, UnsupportedModel
from tests.export.parity.test_parity import CASES, QUESTIONS, pictures, text_part
from tests.support.checkpoints.weights import write_json
from tests.support.references import Remembered

TOKENS = 24
FAMILIES = ("gemma3-window-6", "paligemma-2")
BLOCKS = ("gemma3-", "gemma4-", "paligemma-")
CAUSAL = "gemma4-even"
MORE_FAMILIES = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
    if name.startswith(BLOCKS) and name not in FAMILIES and not name.startswith(CAUSAL)
]
LONG = "is there a scratch on any of the parts that this picture shows, and what else is there to see? " * 2
"""With one image more than twenty chunks of four tokens, and longer than every window."""


@dataclass(frozen=True)
class Case:
    folder: Path
    bundle: Path
    reference: Reference

    @property
    def turns(self) -> bool:
        """Whether there are conversations, and prefixes that can be reused."""
        return self.reference.processor.chat_template is not None


@pytest.fixture(scope="module", params=[*FAMILIES, *MORE_FAMILIES])
def case(request, tmp_path_factory, export_bundle) -> Case:
    folder = CASES[request.param](tmp_path_factory.mktemp("blocks") / request.param)
    return Case(folder, export_bundle(folder), Remembered.load(str(folder)))


def user(*parts: str | None) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"} if part is None else text_part(part) for part in parts]}


def answered(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [text_part(text)]}


SINGLE = {
    "none": [user(QUESTIONS[0])],
    "start": [user(None, LONG)],
    "middle": [user(LONG, None, QUESTIONS[1])],
    "end": [user(LONG, None)],
    "alone": [user(None)],
    "two": [user(None, "and", None, QUESTIONS[0])],
    "three side by side": [user(None, None, None, LONG)],
}
TURNS = {
    "image in the second turn": [user(LONG), answered("no scratch"), user(QUESTIONS[1], None)],
    "an image in each turn": [user(None, QUESTIONS[0]), answered("yes"), user(None, LONG)],
}


def count(messages: list[dict[str, Any]]) -> int:
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def prompt_and_images(vlm: edgevlm_runtime.VLM, messages: list[dict[str, Any]], images: list[Image.Image]):
    parts = vlm.pipeline
    inputs = [parts.prepare(image) for image in images]
    return parts.assemble(messages, inputs, parts.context_tokens), [
        parts.encoder.encode(one).embeddings for one in inputs
    ]


def greedy(context: Any, prompt: Any, embeddings: Any, ends: tuple[int, ...]) -> tuple[int, ...]:
    logits, tokens = context.prefill(prompt, embeddings.__getitem__), []
    while len(tokens) < TOKENS and not (tokens and tokens[-1] in ends):
        tokens.append(int(logits.argmax()))
        logits = context.step(tokens[-1])
    return tuple(tokens)


def check_streamed(case: Case) -> StreamedReference:
    """The model layer by layer reads and answers as the whole of it does; it."""
    image = pictures()[2]
    answer = case.reference.answer(QUESTIONS[0], [image], max_new_tokens=6).token_ids
    prompts = [Forced(QUESTIONS[0], (image,), answer), Forced(QUESTIONS[1], (), answer)]
    streamed = StreamedReference.load(str(case.folder))
    for whole, part in zip(case.reference.read(prompts, 6), streamed.read(prompts, 6), strict=True):
        np.testing.assert_array_equal(whole.token_ids, part.token_ids)
        np.testing.assert_allclose(part.logits, whole.logits, atol=1e-5)
        assert whole.own[: len(part.own)] == part.own
    return streamed


def test_a_reference_layer_by_layer_reads_the_same(case: Case) -> None:
    """Masks, token types and caps are those of the whole model, the answer behind the prompt causal."""
    check_streamed(case)


def test_masks_of_a_batch_in_pytorch(case: Case) -> None:
    """`Family.block_arguments` has the text model compute what the whole model does: prompts of two lengths with their
    answers, padded."""
    reference, images = case.reference, pictures()
    model = reference.model
    config = load_config(case.folder)
    processor = load_processor(case.folder, config)
    options = translate(processor, config).image.options
    family = get_family(config.model_type)(model, Normalization.of(processor.image_processor), options, 640)
    asked, embeddings, wanted, pictured, columns = [], [], [], [], []

    def entered(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        embeddings.append(kwargs["inputs_embeds"][0])
        columns.append(kwargs.get("per_layer_inputs"))

    def left(_: Any, args: Any, output: Any) -> None:
        wanted.append(output.last_hidden_state[0])

    text = model.model.language_model
    hooks = text.register_forward_pre_hook(entered, with_kwargs=True), text.register_forward_hook(left)
    for messages, answer in ((SINGLE["middle"], (5, 9, 31)), (SINGLE["two"], (7,))):
        given = images[: count(messages)]
        asked.append(
            len(Reference.prompt_logits(reference, messages, given)[0])
        )  # computed, not remembered: it is hooked
        del embeddings[-1], wanted[-1], columns[-1]
        ids, _ = Reference.prompt_logits(reference, messages, given, answer)
        pictured.append(torch.from_numpy(ids == config.image_token_id))
    for hook in hooks:
        hook.remove()

    def padded(rows: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    batch = padded(embeddings)
    given = {} if columns[0] is None else {"per_layer_inputs": padded([rows[0] for rows in columns])}
    arguments = family.block_arguments(batch, padded(pictured), torch.tensor(asked))
    with torch.inference_mode():
        found = text(inputs_embeds=batch, use_cache=False, **given, **arguments).last_hidden_state
        causal = text(inputs_embeds=batch, use_cache=False, **given, **family.block_arguments(batch)).last_hidden_state
        other = torch.cat([batch[:, :-1], batch[:, :1]], dim=1)
        again = text(inputs_embeds=other, use_cache=False, **given, **family.block_arguments(other)).last_hidden_state
    torch.testing.assert_close(again[:, :-1], causal[:, :-1], atol=1e-5, rtol=1e-4)  # no token sees a later one
    for row, states in enumerate(wanted):
        torch.testing.assert_close(
            found[row, : len(states)], states, atol=1e-4, rtol=1e-3
        )  # positions from 1, or from 0
        assert (causal[row, : len(states)] - states).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "closeness"),
    [
        ({"precision": "fp16"}, 1e-5),
        ({"kv": "int8"}, 1e-3),
        ({"kv": "int8:channel"}, 1e-3),
        ({"precision": "int8"}, 5e-3),
    ],
    ids=str,
)
def test_other_precisions(case: Case, export_bundle, options: dict[str, str], closeness: float) -> None:
    """Mean KL of the next token over a prompt with an image, in nats, in chunks that hold no image whole."""
    if "kv" in options and getattr(case.reference.model.config.get_text_config(), "num_kv_shared_layers", 0):
        with pytest.raises(ExportError, match="KV cache in int8 not possible: layers of gemma4 read"):
            export_bundle(case.folder, **options)
        return
    vlm = edgevlm_runtime.load(export_bundle(case.folder, **options), prefill_chunk=4, verify="size")
    messages, images = SINGLE["middle"], pictures()[:1]
    _, found = vlm.prompt_logits(messages, images)
    _, wanted = case.reference.prompt_logits(messages, images)
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (wanted, found))
    assert 0 < float((p.exp() * (p - q)).sum(-1).mean()) < closeness
    if options.get("precision") == "int8":  # a head behind a soft cap is a head
        assert vlm.manifest.graphs["decoder"].exceptions == {"lm_head.weight": "int8b"}


def test_a_prefill_graph(case: Case, export_bundle) -> None:
    if not case.turns:
        with pytest.raises(
            ExportError, match="a prefill graph would never run: paligemma computes a prompt in one run"
        ):
            export_bundle(case.folder, prefill="fp32")
        return
    vlm = edgevlm_runtime.load(export_bundle(case.folder, prefill="fp32"), prefill_chunk=5, verify="size")
    for messages in (SINGLE["middle"], SINGLE["end"], SINGLE["two"]):
        images = pictures()[: count(messages)]
        prompt, embeddings = prompt_and_images(vlm, messages, images)
        found = greedy(vlm.pipeline.new_context(), prompt, embeddings, vlm.manifest.generation.eos_token_ids)
        assert found == case.reference.answer(messages, images, max_new_tokens=TOKENS).token_ids


def test_standard_operators(tmp_path: Path, export_bundle) -> None:
    """All of it in the masks of a cache of fixed length; Gemma 2's caps within attention are refused."""
    for name in ("gemma3-window-6", "paligemma-1"):
        folder = CASES[name](tmp_path / name)
        reference = Remembered.load(str(folder))
        bundle = export_bundle(folder, target="tensorrt-rtx", max_context=400)
        vlm = edgevlm_runtime.load(bundle, prefill_chunk=16)
        for messages in (SINGLE["middle"], SINGLE["two"]):
            images = pictures()[: count(messages)]
            prompt, embeddings = prompt_and_images(vlm, messages, images)
            found = greedy(vlm.pipeline.new_context(), prompt, embeddings, vlm.manifest.generation.eos_token_ids)
            assert found == reference.answer(messages, images, max_new_tokens=TOKENS).token_ids
            assert (
                np.abs(vlm.prompt_logits(messages, images)[1] - reference.prompt_logits(messages, images)[1]).max()
                < 1e-4
            )
        largest = vlm.manifest.graphs["decoder"].largest("sequence")
        assert largest == 400  # an engine takes a prompt that is one block
    folder = CASES["paligemma-2"](tmp_path / "capped")
    plan = ExportOptions(str(folder), target="tensorrt").plan
    with pytest.raises(ExportError, match="soft-capped logits is not in this target's operators: use --target onnx"):
        plan_export(folder, plan, 640, lambda *_: None, "tensorrt")  # as `case` has it: traced already


def test_text_that_sees_what_follows(tmp_path: Path) -> None:
    """Gemma 3 as an embedding model: no graph here would answer like it."""
    folder = CASES["gemma3-window-6"](tmp_path / "gemma3")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = {**config["text_config"], "use_bidirectional_attention": True}
    write_json(folder / "config.json", {**config, "text_config": text})
    with pytest.raises(UnsupportedModel, match="Gemma 3 checkpoint not supported: use_bidirectional") as raised:
        plan_export(folder, ExportOptions(str(folder)).plan, 400, lambda *_: None)
    assert "\n" not in str(raised.value)
