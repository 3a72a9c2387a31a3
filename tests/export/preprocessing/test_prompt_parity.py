"""From messages to token ids: the runtime against a whole processor of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import processors
from transformers import CLIPVisionConfig, LlamaTokenizer, LlavaConfig, Qwen2Config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor

from edgevlm_export.preprocessing import CheckpointProcessor, translate
from edgevlm_runtime import images
from edgevlm_runtime.text.layout import Prompt
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

SETTINGS = {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
BODY = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ eos_token }}"
    "{% endfor %}"
)


def source() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def config(image_token_id: int) -> LlavaConfig:
    vision = CLIPVisionConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    text = Qwen2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=400)
    return LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token_id)


def both(parts: CheckpointProcessor, messages: list[dict[str, Any]], pictures: list[Image.Image]) -> tuple[Prompt, Any]:
    """The runtime's encoding and that of `processor.apply_chat_template(tokenize=True)`."""
    token_id = parts.tokenizer.convert_tokens_to_ids("<image>")
    made = translate(parts, config(token_id))
    prompts = PromptEncoder(
        made.prompt, made.files["chat_template.jinja"], Tokenizer.from_json(made.files["tokenizer.json"])
    )
    process = images.make_processor(made.image)
    encoded = prompts.encode(messages, [process(picture) for picture in pictures])
    reference = LlavaProcessor(
        parts.image_processor, parts.tokenizer, chat_template=parts.chat_template, **parts.settings
    )
    supply = iter(pictures)
    filled = [
        {"role": message["role"], "content": [_with_image(part, supply) for part in message["content"]]}
        for message in messages
    ]
    expected = reference.apply_chat_template(
        filled, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="np"
    )
    return encoded, expected["input_ids"][0]


def _with_image(part: dict[str, Any], supply: Iterator[Image.Image]) -> dict[str, Any]:
    return {**part, "image": next(supply)} if part["type"] == "image" else part


MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it? "}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a part."}]},
    {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "image"}, {"type": "text", "text": "?"}]},
]


@pytest.mark.parametrize("beginning", ["", "{{ bos_token }}", " {{ bos_token }}", "{{ bos_token }}{{ bos_token }}"])
@pytest.mark.parametrize("adds", [True, False])
def test_beginning_tokens(
    make_processor: Callable[..., CheckpointProcessor], make_image: Any, beginning: str, adds: bool
) -> None:
    """Whether the tokenizer adds <s> or not, and whether the template writes it or not."""
    made = make_processor(source(), ["<image>"], "<image>", **SETTINGS)
    if adds:
        made.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    parts = CheckpointProcessor(made.folder, made.image_processor, made.tokenizer, beginning + BODY, made.settings)
    encoded, expected = both(parts, MESSAGES, [make_image(30, 40), make_image(90, 20)])
    np.testing.assert_array_equal(encoded.token_ids, expected)
    written = beginning.count("bos_token")
    assert list(expected).count(0) == written + (adds and not beginning.startswith("{{"))


def test_a_tokenizer_that_transformers_builds_itself(make_image: Any) -> None:
    """LlamaTokenizer takes vocabulary and merges of the file and makes the rest anew: the bundle gets what it made."""
    letters = ["▁", *"abcdehinoprstuw?.,'", "▁p", "▁pa"]
    vocab = {
        token: index
        for index, token in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *letters])
    }
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[("▁", "p"), ("▁p", "a")], add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    parts = CheckpointProcessor(None, source(), tokenizer, BODY, SETTINGS)  # type: ignore[arg-type]
    encoded, expected = both(parts, MESSAGES, [make_image(30, 40), make_image(90, 20)])
    np.testing.assert_array_equal(encoded.token_ids, expected)
    assert encoded.token_ids[0] == 1
    runtime = Tokenizer.from_json(
        translate(parts, config(tokenizer.convert_tokens_to_ids("<image>"))).files["tokenizer.json"]
    )
    for text in ("a part, with scratches", " part", "👋 é", "<s>part</s> a"):
        ids = tokenizer(text)["input_ids"]
        assert runtime.encode(text) == ids
        assert runtime.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)
