"""A chat template: compiled, and rendered with conversations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from edgevlm_runtime.text.template import ChatTemplate
from fuzz.mutate import as_text, mutate_bytes, mutate_text

_PIECES = r"""
{{
}}
{%
%}
{#
{%- for m in messages %}
{% for i in range(99999) %}
{% endfor %}
{% if x is defined %}
{% else %}
{% endif %}
{% set x = 10 ** 9 %}
{{ x * x }}
{{ 'a' * 10**9 }}
{{ range(10**9) | join }}
{{ lipsum(9999) }}
{{ '%999999999d' % 1 }}
{{ 'a'.center(10**9) }}
{{ '{:>999999999}'.format(1) }}
{{ messages | tojson(indent=9**9) }}
{{ messages[0]['content'] }}
| length
| trim
| string
| list
| sum
| replace('', 'aaaa')
| batch(0)
| indent(99999999)
{% macro m(a) %}{{ m(a) }}{% endmacro %}
{{ m(1) }}
{{ raise_exception('no') }}
{{ strftime_now('%Y' * 99) }}
{{ namespace(a=1).a }}
{{ ''.__class__ }}
{{ cycler }}
{{ self }}
{% include 'x' %}
{% import 'x' as y %}
{% extends 'x' %}
{% block b %}
{% endblock %}
{% generation %}
{% endgeneration %}
{% break %}
{{ 1 / 0 }}
{{ 2 ** 2 ** 99 }}
loop.index
**
//
%
~
<image>
"""
PIECES = (*_PIECES.strip().splitlines(), "\0", "(" * 300, "[" * 300, "not " * 99)
IMAGE = {"type": "image"}
CONVERSATIONS = (
    [{"role": "user", "content": [IMAGE, {"type": "text", "text": "what is this?"}]}],
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "hi {{ 7 }}"},
        {"role": "user", "content": [IMAGE, IMAGE, {"type": "text", "text": "and {% now %}?"}]},
    ],
    [],
)


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Pieces of the language put in, parts of the source cut out or repeated."""
    if rng.random() < 0.1:
        return mutate_bytes(data, rng, others)
    text = as_text(data)
    for _ in range(rng.randint(1, 3)):
        text = mutate_text(text, rng, PIECES)
    return text.encode("utf-8", "surrogatepass")


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        pass

    def run(self, data: bytes) -> None:
        template = ChatTemplate(as_text(data), {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"})
        for messages in CONVERSATIONS:
            template.render(messages)
