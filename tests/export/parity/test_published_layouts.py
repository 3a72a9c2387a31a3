"""Twins of published checkpoints whose chat template knows strings alone, or is not there.

Expected is what a user of transformers gets who follows the model card: the prompt written out, transformers' processor
and generate(), told where an answer ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import edgevlm_runtime
from edgevlm_export.reference import Reference, StreamedReference, given_template
from edgevlm_export.streaming.inputs import Forced
from edgevlm_runtime.bundle.certificate import read_certificate
from tests.support import checkpoints

QUESTIONS = ("what is in the picture", "is there a scratch", "describe  this image ", "no")
TOKENS = 24


@dataclass(frozen=True)
class Twin:
    """A checkpoint and its bundle."""

    layout: checkpoints.Layout
    folder: Path
    vlm: edgevlm_runtime.VLM
    model: Any
    processor: Any

    def inputs(self, question: str, image: Image.Image) -> dict[str, Any]:
        """As the model card says."""
        return dict(self.processor(text=self.layout.prompt.format(question), images=[image], return_tensors="pt"))

    def answer(self, question: str, image: Image.Image) -> tuple[int, ...]:
        """transformers' own."""
        inputs = self.inputs(question, image)
        ends = self.processor.tokenizer.convert_tokens_to_ids([self.layout.eos, self.layout.turn_end])
        with torch.inference_mode():
            made = self.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, eos_token_id=ends)
        return tuple(made[0, inputs["input_ids"].shape[1] :].tolist())


@pytest.fixture(scope="module", params=checkpoints.LAYOUTS)
def twin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle: Callable[..., Path]
) -> Twin:
    """The one without a template is given one by name, has no generation config either, and carries a certificate."""
    name = request.param
    folder = checkpoints.published(tmp_path_factory.mktemp("published") / name, name)
    oldest = name == "llava-1.5"
    if oldest:
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        del config["text_config"]["_name_or_path"]  # nothing tells any more which template it had
        (folder / "config.json").write_text(json.dumps(config))
    processor = LlavaProcessor(
        CLIPImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    bundle = export_bundle(folder, certificate=oldest, chat_template=name if oldest else None)
    return Twin(checkpoints.LAYOUTS[name], folder, edgevlm_runtime.load(bundle, threads=1), model, processor)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((50, 70), (28, 28))]


def test_answers_are_those_of_the_model_card(twin: Twin) -> None:
    ended = 0
    for image in pictures():
        with twin.vlm.session(image) as session:
            for question in QUESTIONS:
                # Llama 3's template trims what it is given
                shown = question.strip() if twin.layout.turn_end == "<|eot_id|>" else question
                expected = twin.answer(shown, image)
                answer = session.ask(question, max_new_tokens=TOKENS)
                assert answer.token_ids == expected
                assert answer.prompt_tokens == twin.inputs(shown, image)["input_ids"].shape[1]
                ended += answer.finish_reason == "stop"
    assert ended > 0, "an answer ends by itself now and then"


def test_the_reference_says_the_same(twin: Twin) -> None:
    image = pictures()[0]
    expected = twin.answer(QUESTIONS[0], image)
    template = given_template(twin.vlm.bundle)
    assert (template is None) == (twin.layout.template is not None)
    reference = Reference.load(str(twin.folder), chat_template=template)
    assert reference.answer(QUESTIONS[0], [image], max_new_tokens=TOKENS).token_ids == expected
    streamed = StreamedReference.load(str(twin.folder), template)
    (read,) = streamed.read([Forced(QUESTIONS[0], (image,), expected)], TOKENS)
    assert read.own == expected
    assert read.whole


def test_a_conversation(twin: Twin) -> None:
    """Two images in two turns, and an answer between them."""
    first, second = pictures()
    with twin.vlm.chat(first) as chat:
        chat.ask(QUESTIONS[0], max_new_tokens=6)
        chat.ask(QUESTIONS[1], images=second, max_new_tokens=6)
        said = [message["content"][-1]["text"] for message in chat.messages]
    messages = [
        {"role": role, "content": [*parts, {"type": "text", "text": text}]}
        for role, parts, text in zip(
            ("user", "assistant", "user"), ([{"type": "image"}], [], [{"type": "image"}]), said, strict=False
        )
    ]
    reference = Reference.load(str(twin.folder), chat_template=given_template(twin.vlm.bundle))
    ids, logits = twin.vlm.prompt_logits(messages, [first, second])
    expected_ids, expected = reference.prompt_logits(messages, [first, second])
    assert ids.tolist() == expected_ids.tolist()
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    image = twin.vlm.manifest.prompt.image_token_id
    assert np.count_nonzero(np.diff((ids == image).astype(int)) == 1) == 2


def test_a_certificate_without_a_generation_config(twin: Twin) -> None:
    certificate = read_certificate(twin.vlm.bundle)
    if twin.layout.template is not None:
        assert certificate is None
        return
    assert certificate is not None
    assert certificate.verdict == "passed"
    assert not certificate.missed
