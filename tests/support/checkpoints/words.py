"""One small tokenizer and chat template for all families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = ["describe this image what is in the picture is there a scratch user assistant no yes"] * 3
SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<|vision_start|>",
    "<|vision_end|>",
]
SPECIAL += ["<|image_pad|>", *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer(
    image_token: str, more: Sequence[str] = (), named: Mapping[str, str] = MappingProxyType({})
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of the first families, and `more`; `named` are attributes of it."""
    special = [*SPECIAL, *more]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=special[3:],
        extra_special_tokens={"image_token": image_token, **named},
        chat_template=CHAT_TEMPLATE.replace("IMAGE", image_token),
    )
