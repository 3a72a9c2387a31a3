"""What a shape is, and the tokenizer of those without one of their family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How to make the config, and what else belongs into the folder."""

    config: Callable[[], Any]
    save_processor: Callable[[Path], None]


def tokenizer(image_token_id: int, others: list[str]) -> PreTrainedTokenizerFast:
    """One token per character; `others` are the special tokens before the image's, which is the last."""
    words = {"<unk>": 0, **{chr(code): code for code in range(32, 127)}}
    first = len(words) + 31
    words |= {f"<extra_{number}>": number for number in range(first, image_token_id - len(others))}
    words |= {f"<control_{number}>": number for number in range(1, 32)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([*others, "<image>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, extra_special_tokens={"image_token": "<image>"}, chat_template=TEMPLATE
    )
