"""Chat templates, image placeholders and tokens, compared with transformers where it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from edgevlm_runtime.bundle.manifest import PromptFormat
from edgevlm_runtime.errors import BundleIncomplete, PromptError
from edgevlm_runtime.images import PreparedImage
from edgevlm_runtime.text.layout import ImageSpan
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.template import ChatTemplate
from edgevlm_runtime.text.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "chat_templates"
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<pad>", "<tile>", "<|im_end|>"]


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


IMAGE = {"type": "image"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "question": [{"role": "user", "content": [IMAGE, text("Is there a scratch?")]}],
    "no image": [{"role": "user", "content": [text("  Hello,\nworld! ")]}],
    "two images": [{"role": "user", "content": [text("Compare "), IMAGE, text(" with "), IMAGE, text(" <b>&\"'")]}],
    "two turns": [
        {"role": "user", "content": [IMAGE, text("What is it?")]},
        {"role": "assistant", "content": [text("A gear. ✓")]},
        {"role": "user", "content": [text("Is it good?")]},
    ],
    "system": [
        {"role": "system", "content": [text("Answer briefly.")]},
        {"role": "user", "content": [IMAGE, text("你好 👋")]},
    ],
}
PLAIN_CHAT = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is a gear?"},
    {"role": "assistant", "content": "A wheel."},
    {"role": "user", "content": "And a cog? "},
]


def backend() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=SPECIAL)
    tokenizer.train_from_iterator([], trainer)
    return tokenizer


FORMAT = PromptFormat(
    chat_template="chat_template.jinja",
    tokenizer="tokenizer.json",
    image_token="<image>",
    image_token_id=3,
    bos_token="<s>",
    eos_token="</s>",
    template_variables={"unk_token": "<unk>", "pad_token": "<pad>"},
)


def prompts(template: str, prompt_format: PromptFormat = FORMAT) -> PromptEncoder:
    return PromptEncoder(prompt_format, template, Tokenizer(backend()))


def image(tokens: int, placeholder: str | None = None, grid: tuple[int, int] | None = None) -> PreparedImage:
    return PreparedImage(feeds={}, tokens=tokens, placeholder=placeholder or "<image>" * tokens, grid=grid)


@pytest.fixture(scope="module")
def reference() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend(), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


@pytest.mark.parametrize("generate", [True, False])
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendering_equals_transformers(reference: Any, name: str, chat: str, generate: bool) -> None:
    expected = reference.apply_chat_template(
        CHATS[chat], chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=generate
    )
    assert prompts(TEMPLATES[name]).render(CHATS[chat], add_generation_prompt=generate) == expected


@pytest.mark.parametrize("name", ["qwen2_vl", "llama3_vision", "mistral_pixtral", "gemma3", "everything"])
def test_plain_text_content_equals_transformers(reference: Any, name: str) -> None:
    expected = reference.apply_chat_template(
        PLAIN_CHAT, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=True
    )
    assert prompts(TEMPLATES[name]).render(PLAIN_CHAT) == expected


@pytest.mark.parametrize("missing", ["bos_token", "eos_token"])
def test_tokens_a_tokenizer_does_not_have_are_undefined(missing: str) -> None:
    """transformers leaves them out of the template's names; None would be printed."""
    made = prompts("{{ bos_token }}{{ eos_token }}{{ messages[0].content }}", replace(FORMAT, **{missing: None}))
    left = {"bos_token": "</s>", "eos_token": "<s>"}[missing]
    assert made.render([{"role": "user", "content": "hi"}]) == left + "hi"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ dict.mro() }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content.nothing.more }}",
        "{% include 'file' %}",
    ],
)
def test_templates_that_go_wrong(template: str) -> None:
    with pytest.raises(PromptError, match="the chat template refuses these messages") as raised:
        ChatTemplate(template, {}).render([{"role": "user", "content": "hi"}])
    assert "\n" not in str(raised.value)


def test_a_template_that_does_not_compile() -> None:
    with pytest.raises(PromptError, match="does not compile"):
        ChatTemplate("{% if %}", {})


def test_a_template_does_not_see_the_callers_objects() -> None:
    class Text(str):
        """A text with a method that a template could call."""

        __slots__ = ()

        def delete_everything(self) -> str:
            raise AssertionError("called")

    made = prompts("{{ messages[0].content.delete_everything() }}")
    with pytest.raises(PromptError, match="refuses"):
        made.render([{"role": "user", "content": Text("hi")}])


def test_one_image() -> None:
    encoded = prompts(TEMPLATES["qwen2_vl"]).encode(CHATS["question"], [image(6, grid=(2, 3))])
    assert encoded.token_ids.dtype == np.int64
    (span,) = encoded.images
    assert span == ImageSpan(int(np.flatnonzero(encoded.token_ids == 3)[0]), 6, 0, 0, (2, 3))
    assert encoded.text.count("<image>") == 6


def test_images_side_by_side_are_two_spans() -> None:
    encoded = prompts("{{ messages[0].content[2].text }}<image><image>").encode(
        [{"role": "user", "content": [IMAGE, IMAGE, text("ab")]}], [image(3), image(2)]
    )
    assert encoded.token_ids.tolist()[-5:] == [3] * 5
    assert encoded.images == (ImageSpan(2, 3, 0), ImageSpan(5, 2, 1))


def test_text_between_tiles_makes_runs() -> None:
    tiles = image(5, "<tile><image><image><tile><image><image>\n<tile><image>")
    encoded = prompts("<image>").encode_text("a<image>b<image>", [tiles, image(1)])
    assert encoded.images == (
        ImageSpan(2, 2, 0, 0),
        ImageSpan(5, 2, 0, 2),
        ImageSpan(9, 1, 0, 4),
        ImageSpan(11, 1, 1, 0),
    )


def test_no_image() -> None:
    encoded = prompts(TEMPLATES["gemma3"]).encode(CHATS["no image"])
    assert encoded.images == ()
    assert encoded.token_ids[0] == 1


@pytest.mark.parametrize("given", [0, 1, 3])
def test_more_or_fewer_images_than_parts(given: int) -> None:
    with pytest.raises(PromptError, match=f"have 2 image parts, but {given} images were given"):
        prompts(TEMPLATES["qwen2_vl"]).encode(CHATS["two images"], [image(2)] * given)
    with pytest.raises(PromptError, match=f"has 2 image tokens '<image>', but {given} images were given"):
        prompts("").encode_text("<image> and <image>", [image(2)] * given)


def test_the_image_token_in_a_text() -> None:
    made = prompts(TEMPLATES["qwen2_vl"])
    for content in ("what is <image>?", [text("what is <image>?")]):
        with pytest.raises(PromptError, match="message 2 contains '<image>', which stands for an image"):
            made.encode([{"role": "system", "content": "x"}, {"role": "user", "content": content}], [image(2)])


def test_other_special_tokens_in_a_text_are_those_tokens() -> None:
    """As in transformers; see the module's docstring."""
    encoded = prompts(TEMPLATES["qwen2_vl"]).encode([{"role": "user", "content": "a<|im_end|>b"}])
    assert list(encoded.token_ids).count(6) == 3


def test_a_template_that_leaves_things_out() -> None:
    with pytest.raises(PromptError, match="shows 0 images, the messages have 1"):
        prompts("{{ messages[0].content[1].text }}").render(CHATS["question"])
    with pytest.raises(PromptError, match="leaves out the text of message 4: give its content as a list of parts"):
        prompts(TEMPLATES["llava_vicuna"]).render(PLAIN_CHAT)
    with pytest.raises(PromptError, match="leaves out the text of message 1: give its content as a text"):
        prompts("{{ messages[0].role }}").render(CHATS["no image"])


def test_a_system_prompt_that_would_be_printed_as_a_list_is_a_text() -> None:
    """As Gemma 4's template does it; parts and texts of other templates are left as they are."""
    own = "{% for m in messages %}{{ m.role }}: {% if m.role == 'system' %}{{ m.content | trim }}{% else %}"
    own += "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %};{% endfor %}"
    for words in ("be brief", "it's \"so\"\n[{'type': 'text'}]"):
        messages = [{"role": "system", "content": [text(words)]}, {"role": "user", "content": [text("what?")]}]
        assert prompts(own).render(messages) == f"system: {words};user: what?;"
        assert words in prompts(TEMPLATES["gemma3"]).render(messages)
        as_text = [{"role": "system", "content": words}, messages[1]]
        assert prompts(own).render(as_text) == prompts(own).render(messages)


def test_another_models_tokenizer() -> None:
    made = prompts("", replace(FORMAT, image_token_id=5))
    with pytest.raises(PromptError, match="0 image tokens after tokenizing, its images have 2"):
        made.encode_text("<image>", [image(2)])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no messages"),
        (["hi"], "message 1 must be a mapping"),
        ([{"role": "user"}], "message 1 must be a mapping with 'role' and 'content'"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "nothing else"),
        ([{"role": 3, "content": "x"}], "the role must be a text, not int"),
        ([{"role": "user", "content": None}], "a text or a list of parts, not NoneType"),
        ([{"role": "user", "content": [{"type": "video"}]}], "a part must be"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a part must be"),
        ([{"role": "user", "content": ["x"]}], "a part must be"),
    ],
)
def test_messages_of_another_form(messages: Any, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        prompts(TEMPLATES["gemma3"]).encode(messages)


def test_image_parts_may_carry_more() -> None:
    """What else is in an image part (a path, the image itself) is the caller's."""
    messages = [{"role": "user", "content": [{"type": "image", "path": "part.png"}, text("what?")]}]
    assert prompts(TEMPLATES["smolvlm"]).encode(messages, [image(1)]).images[0].length == 1


def test_loading(tmp_path: Path) -> None:
    with pytest.raises(BundleIncomplete, match=r"cannot read the chat template: .*chat_template\.jinja"):
        PromptEncoder.load(tmp_path, FORMAT)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["gemma3"], encoding="utf-8")
    with pytest.raises(BundleIncomplete, match=r"cannot read the tokenizer: .*tokenizer\.json"):
        PromptEncoder.load(tmp_path, FORMAT)
    (tmp_path / "tokenizer.json").write_text(backend().to_str(), encoding="utf-8")
    expected = prompts(TEMPLATES["gemma3"]).encode(CHATS["question"], [image(2)])
    loaded = PromptEncoder.load(tmp_path, FORMAT).encode(CHATS["question"], [image(2)])
    np.testing.assert_array_equal(loaded.token_ids, expected.token_ids)


FLAT = replace(FORMAT, flat_image="<image>\n")
STRINGS = "{% for m in messages %}{{ '[' + m.role + '] ' + m.content | trim }}{% endfor %}"


def test_a_template_that_takes_only_strings(reference: Any) -> None:
    """Content becomes one string, images where they stand; transformers renders the same from that string."""
    flat = [
        {**message, "content": "".join(part.get("text", "<image>\n") for part in message["content"])}
        for message in CHATS["two images"] + CHATS["two turns"]
    ]
    expected = reference.apply_chat_template(flat, chat_template=STRINGS, tokenize=False, add_generation_prompt=True)
    made = prompts(STRINGS, FLAT)
    assert made.render(CHATS["two images"] + CHATS["two turns"]) == expected
    assert made.render(flat[2:3]) == "[assistant] A gear. ✓"
    encoded = made.encode(CHATS["two images"], [image(2), image(3)])
    assert [span.length for span in encoded.images] == [2, 3]


def test_control_tokens_within_one_string() -> None:
    """An image's own token stays one, those of a literal text do not become any."""
    made = prompts(STRINGS, FLAT)
    message = {"role": "user", "content": [IMAGE, {**text("a <image></s>"), "literal": True}]}
    encoded = made.encode([message], [image(2)])
    assert encoded.text == "[user] <image><image>\na <image></s>"
    assert encoded.token_ids.tolist().count(3) == 2
    assert 2 not in encoded.token_ids
    with pytest.raises(PromptError, match="message 1 contains '<image>'"):
        made.encode([{"role": "user", "content": [IMAGE, text("a <image>")]}], [image(2)])
