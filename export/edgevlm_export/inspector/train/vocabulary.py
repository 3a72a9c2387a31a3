"""The tokenizer and the chat template: 512 byte-level tokens, digits always one by one.

A conversation reads ``<s><|user|><image>QUESTION<|assistant|>ANSWER</s><|user|>QUESTION<|assistant|>ANSWER</s>``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from edgevlm_export.inspection import QUESTIONS, part, seeds

SIZE = 512
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = "<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, BOS, EOS, IMAGE, USER, ASSISTANT)

CHAT_TEMPLATE = """\
{{- '<s>' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('inspector knows the roles user and assistant only, not ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] | trim -}}
{%- else -%}
{%- for item in message['content'] if item['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
{%- for item in message['content'] if item['type'] == 'text' -%}{{- item['text'] | trim -}}{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- '</s>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def corpus(parts: int = 4000) -> Iterator[str]:
    """Questions and answers without printed codes, so that no code becomes one token."""
    for seed in seeds("train")[:parts]:
        subject = part(seed)
        for questions in QUESTIONS.values():
            question = questions[seed % len(questions)]
            answer = question.answer(subject)
            yield question.text
            yield answer.replace(subject.code, "") if subject.code else answer


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same corpus gives the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    # A small corpus can run out of merges; named spares keep the vocabulary (and every tensor shape) at 512.
    spares = [f"<|spare{number}|>" for number in range(SIZE - tokenizer.get_vocab_size())]
    tokenizer.add_special_tokens(spares)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
