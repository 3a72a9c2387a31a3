"""Every family, decoder and tower: the bundle answers like transformers, token for token, and its logits agree.

The reference is transformers' own model, generate() and processors (`edgevlm_export.reference`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_export.proof.certificate import certify, inputs
from edgevlm_export.reference import Reference
from edgevlm_runtime.errors import PromptError
from tests.support import checkpoints
from tests.support.references import Remembered

TOKENS = 24
QUESTIONS = ("what is in the picture", "is there a scratch", "describe this image", "no")
SIZES = ((50, 70), (28, 28), (200, 31), (64, 131))

VARIED = {"seed": 1, "gain": 1.3}
"""Weights at which answers vary; `test_answers_vary` holds them to it."""
CASES: dict[str, Callable[[Path], Path]] = {
    **{
        f"llava-{name}": lambda folder, name=name: checkpoints.llava(folder, decoder=name, **VARIED)
        for name in checkpoints.DECODERS
    },
    "llava-siglip": lambda folder: checkpoints.llava(folder, tower="siglip", **VARIED),
    "llava-two-layers": lambda folder: checkpoints.llava(folder, tower="clip-two-layers", **VARIED),
    **{
        f"vipllava-{name}": lambda folder, name=name: checkpoints.vipllava(folder, name, **VARIED)
        for name in checkpoints.VIPLLAVA_SHAPES
    },
    **{
        f"llava_next-{name}": lambda folder, name=name: checkpoints.llava_next(folder, name, **{**VARIED, "seed": 3})
        for name in checkpoints.LLAVA_NEXT_SHAPES
    },
    **{
        f"llava_onevision-{name}": lambda folder, name=name: checkpoints.llava_onevision(folder, name, seed=2, gain=1.6)
        for name in checkpoints.LLAVA_ONEVISION_SHAPES
    },
    **{
        f"smolvlm-{name}": lambda folder, name=name: checkpoints.smolvlm(folder, name, **VARIED)
        for name in checkpoints.SMOLVLM_SHAPES
    },
    **{
        f"gemma3-{name}": lambda folder, name=name: checkpoints.gemma3(folder, name, **VARIED)
        for name in checkpoints.GEMMA3_SHAPES
    },
    **{
        f"gemma4-{name}": lambda folder, name=name: checkpoints.gemma4(folder, name, **VARIED)
        for name in checkpoints.GEMMA4_SHAPES
    },
    **{
        f"paligemma-{name}": lambda folder, name=name: checkpoints.paligemma(folder, name, **VARIED)
        for name in checkpoints.PALIGEMMA_SHAPES
    },
    **{
        f"lfm2_vl-{name}": lambda folder, name=name: checkpoints.lfm2_vl(folder, name, **VARIED)
        for name in checkpoints.LFM2_SHAPES
    },
    **{
        f"llava-pixtral-{name}": lambda folder, name=name: checkpoints.pixtral(folder, name, **VARIED)
        for name in checkpoints.PIXTRAL_SHAPES
    },
    **{
        f"mistral3-{name}": lambda folder, name=name: checkpoints.mistral3(folder, name, **VARIED)
        for name in checkpoints.MISTRAL3_SHAPES
    },
    **{
        f"internvl-{name}": lambda folder, name=name: checkpoints.internvl(
            folder, name, **({**VARIED, "gain": 2.3} if name == "qwen3-tied" else VARIED)
        )
        for name in checkpoints.INTERNVL_SHAPES
    },
    **{
        f"fast_vlm-{name}": lambda folder, name=name: checkpoints.fast_vlm(folder, name, **VARIED)
        for name in (checkpoints.FAST_VLM_SHAPES if checkpoints.TIMM else ())
    },
    "idefics3": lambda folder: checkpoints.idefics3(folder, "odd-shuffle", **VARIED),
    **{
        f"qwen2_vl-{name}": lambda folder, name=name: checkpoints.qwen2_vl(folder, name, **VARIED)
        for name in checkpoints.QWEN2_VL_SHAPES
    },
    **{
        f"qwen3_vl-{name}": lambda folder, name=name: checkpoints.qwen3_vl(folder, name, **{**VARIED, "seed": 5})
        for name in checkpoints.QWEN3_VL_SHAPES
    },
    **{
        f"qwen3_5-{name}": lambda folder, name=name: checkpoints.qwen3_5(folder, name, **VARIED)
        for name in checkpoints.QWEN3_5_SHAPES
    },
    **{
        f"paddleocr_vl-{name}": lambda folder, name=name: checkpoints.paddleocr_vl(folder, name, **VARIED)
        for name in checkpoints.PADDLEOCR_VL_SHAPES
    },
    **{
        f"qwen2_5_vl-{name}": lambda folder, name=name: checkpoints.qwen2_5_vl(folder, name, **VARIED)
        for name in checkpoints.QWEN_SHAPES
    },
}


@dataclass(frozen=True)
class Pair:
    """A bundle and the model it came from."""

    vlm: edgevlm_runtime.VLM
    reference: Reference
    known: dict[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)

    @property
    def baked(self) -> int:
        """Tokens at the beginning of every prompt that the bundle knows from its export."""
        prefix = self.vlm.manifest.decoder.prefix
        return len(prefix.token_ids) if prefix else 0

    @property
    def reuses(self) -> bool:
        """Whether a prompt's keys and values serve the next one: not where every token of it sees all the others."""
        return self.vlm.manifest.decoder.attention != "prefix"

    def about(self, picture: int, question: str) -> tuple[int, ...]:
        """The reference's answer about one of `pictures`, asked once."""
        if (picture, question) not in self.known:
            self.known[picture, question] = self.expected(question, [pictures()[picture]])
        return self.known[picture, question]

    def expected(self, question: object, images: list[Image.Image]) -> tuple[int, ...]:
        return self.reference.answer(question, images, max_new_tokens=TOKENS).token_ids


MORE = {
    "llava-llama-head-80",
    "llava-mistral-head-128",
    "llava-qwen2",
    "smolvlm-odd-shuffle",
    "qwen2_5_vl-window-3",
    "paligemma-1",
    "vipllava-heads-of-24",
    "llava_next-heads-of-24",
    "llava_onevision-heads-of-24",
    "llava-pixtral-window-24",
    "mistral3-ministral3",
    "internvl-qwen3-tied",
    "lfm2_vl-heads-of-24",
    "gemma3-window-24",
    "gemma4-large",
    "qwen2_vl-flat-config",
    "qwen3_vl-wide-heads",
    "qwen3_5-heads-of-40",
    "llava_next-siglip",
    "llava_next-tied",
    "llava_onevision-tied",
    "llava_onevision-never-interpolated",
    "vipllava-tied",
    "vipllava-one-layer",
    "gemma3-no-window",
    "gemma3-groups-of-5",
    "gemma4-shared-blocks",
    "gemma4-even",
    "paligemma-1-untied",
    "paligemma-2-window-40",
    "lfm2_vl-no-thumbnail",
    "lfm2_vl-full-heads",
    "llava-pixtral-two-layers",
    "llava-pixtral-full-heads",
    "mistral3-merge-3",
    "mistral3-ministral3-untied",
    "internvl-llama-large-tower",
    "internvl-heads-of-24",
    "llava-phi3-longrope",
    "qwen3_5-wide-keys",
    "qwen3_5-six-heads",
    "llava-phi3",
    "paddleocr_vl-heads-of-24",
}
"""Further configurations, for `make test-full`; tests of what is special about a family take some of them too."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in MORE else ()) for name in CASES]
)
def pair(request, tmp_path_factory, export_bundle) -> Pair:
    checkpoint = CASES[request.param](tmp_path_factory.mktemp("parity") / request.param)
    return Pair(edgevlm_runtime.load(export_bundle(checkpoint)), Remembered.load(str(checkpoint)))


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in SIZES]


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_many_questions_in_one_session(pair):
    for picture, image in enumerate(pictures()):
        with pair.vlm.session(image) as session:
            for number, question in enumerate(QUESTIONS):
                answer = session.ask(question, max_new_tokens=TOKENS)
                assert answer.token_ids == pair.about(picture, question), (image.size, question)
                reused = answer.prefix_tokens_reused
                assert (reused >= pair.baked + answer.image_tokens) == (number > 0) if pair.reuses else reused == 0


def test_answers_vary(pair):
    """With image and question, and from token to token: else the other tests here would compare little."""
    answers = [pair.about(picture, question) for picture in range(len(SIZES)) for question in QUESTIONS]
    assert len(set(answers)) >= len(answers) - 2
    assert sum(len(answer) == TOKENS for answer in answers) >= len(answers) / 2
    assert sum(len(set(answer)) >= TOKENS / 2 for answer in answers) >= len(answers) / 2


def test_two_images(pair):
    images = pictures()[:2]
    with pair.vlm.session(*images) as session:
        answer = session.ask(QUESTIONS[0], max_new_tokens=TOKENS)
    assert answer.token_ids == pair.expected(QUESTIONS[0], images)
    with pair.vlm.session(*reversed(images)) as session:
        swapped = session.ask(QUESTIONS[0], max_new_tokens=TOKENS)
    assert swapped.token_ids == pair.expected(QUESTIONS[0], images[::-1])


def test_no_image(pair):
    answer = pair.vlm.ask(None, QUESTIONS[0], max_new_tokens=TOKENS)
    assert answer.token_ids == pair.expected(QUESTIONS[0], [])


def test_two_turn_chat(pair):
    image = pictures()[2]
    if not pair.reuses:  # PaliGemma has no turns
        with pair.vlm.chat(image) as chat:
            chat.ask(QUESTIONS[0], max_new_tokens=8)
            with pytest.raises(PromptError, match="knows no system prompt and no turns"):
                chat.ask(QUESTIONS[1], max_new_tokens=TOKENS)
        return
    with pair.vlm.chat(image) as chat:
        first = chat.ask(QUESTIONS[0], max_new_tokens=8)
        second = chat.ask(QUESTIONS[1], max_new_tokens=TOKENS)
    conversation = [
        {"role": "user", "content": [{"type": "image"}, text_part(QUESTIONS[0])]},
        {"role": "assistant", "content": [text_part(str(first))]},
        {"role": "user", "content": [text_part(QUESTIONS[1])]},
    ]
    assert second.token_ids == pair.expected(conversation, [image])
    assert second.prefix_tokens_reused >= second.image_tokens


def test_logits(pair):
    for image in pictures()[1:3]:
        messages = [{"role": "user", "content": [{"type": "image"}, text_part(QUESTIONS[2])]}]
        ids, logits = pair.vlm.prompt_logits(messages, [image])
        expected_ids, expected = pair.reference.prompt_logits(messages, [image])
        assert np.array_equal(ids, expected_ids)
        assert np.abs(logits - expected).max() < 1e-3
        assert expected.std() > 0.1  # the comparison means something


def test_image_embeddings(pair):
    for image in pictures():
        embeddings = pair.vlm.pipeline.encoder.encode(pair.vlm.pipeline.prepare(image)).embeddings
        assert np.abs(embeddings - pair.reference.image_embeddings(image)).max() < 1e-4


def test_certificate(pair, monkeypatch):
    """It passes, and compares what the projector is given at the same place and in the same order as in PyTorch."""
    monkeypatch.setattr(inputs, "IMAGES", {name: inputs.IMAGES[name] for name in ("wide",)})
    monkeypatch.setattr(inputs, "TEXTS", ())
    found = certify(pair.vlm.bundle, pair.reference)
    assert found.missed == ()
    assert set(found.images) == {"wide"}
    for one in found.images.values():
        assert one.vision_cosine is not None
        assert min(one.vision_cosine, one.embeddings_cosine) > 0.9999
