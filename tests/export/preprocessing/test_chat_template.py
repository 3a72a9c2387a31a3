"""Which template a checkpoint gets, in what form content goes into it, and templates by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export import chat_templates
from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.preprocessing import CheckpointProcessor, load_processor
from edgevlm_export.preprocessing.chat_template import choose
from edgevlm_runtime.errors import CheckpointError, ExportError
from edgevlm_runtime.text.template import ChatTemplate
from tests.runtime.text.test_prompt import CHATS, TEMPLATES
from tests.support import checkpoints

SAME = {"llava-1.5": "llava_vicuna", "smolvlm": "smolvlm", "qwen2.5-vl": "qwen2_vl", "gemma3": "gemma3"}
"""Named templates and, among the published ones that the runtime is tested with, what they stand for."""


@pytest.fixture
def vicuna(tmp_path: Path) -> Path:
    """LLaVA 1.5 as it was first published: no template anywhere."""
    return checkpoints.published(tmp_path / "twin", "llava-1.5")


def load(folder: Path, template: str | None = None) -> CheckpointProcessor:
    return load_processor(folder, load_config(folder), template)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", SAME)
def test_named_templates_write_what_the_published_ones_write(name: str, chat: str) -> None:
    expected = ChatTemplate(TEMPLATES[SAME[name]], {}).render(CHATS[chat])
    rendered = ChatTemplate(chat_templates.named(name), {}).render(CHATS[chat])
    assert rendered.replace("<|image_pad|>", "<image>").replace("<start_of_image>", "<image>") == expected


@pytest.mark.parametrize("chat", ["question", "no image", "two turns"])
@pytest.mark.parametrize("name", ["llava-llama3", "llava-phi3"])
def test_named_templates_write_what_the_language_models_own_do(name: str, chat: str) -> None:
    """Of the same conversation with its images written into the text, as the model cards have it."""
    layout = checkpoints.LAYOUTS[name]
    flat = [
        {"role": one["role"], "content": "".join(part.get("text", "<image>\n") for part in one["content"])}
        for one in CHATS[chat]
    ]
    assert layout.template is not None
    variables = {"bos_token": layout.bos}
    expected = ChatTemplate(layout.template, variables).render(flat)
    assert ChatTemplate(chat_templates.named(name), variables).render(CHATS[chat]) == expected
    if chat == "question":
        assert expected == layout.bos + layout.prompt.format("Is there a scratch?")


def test_every_name_is_a_template_that_shows_images() -> None:
    assert set(chat_templates.NAMES) == {*SAME, "llava-llama3", "llava-phi3", "paligemma"}
    for name in chat_templates.NAMES:
        assert len(chat_templates.control_tokens(name)) >= 1


def test_a_published_checkpoint_gets_its_template(vicuna: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(vicuna).chat_template == chat_templates.named("llava-1.5")
    assert "no chat template in" in caplog.text
    (vicuna / "chat_template.jinja").write_text("own")
    assert load(vicuna).chat_template == "own"
    assert load(vicuna, "mine").chat_template == "mine"
    assert load(vicuna, "mine").template_given
    assert not load(vicuna).template_given


@pytest.mark.parametrize("name", [None, "someone/vicuna", "lmsys/vicuna-7b-v1.5-16k"])
def test_any_other_checkpoint_does_not(vicuna: Path, name: str | None) -> None:
    change(vicuna / "config.json", lambda config: config["text_config"].update(_name_or_path=name))
    words = "no chat template: .*: put one into chat_template.jinja, or pass --chat-template with a file or one of ge"
    with pytest.raises(CheckpointError, match=words):
        load(vicuna)


@pytest.mark.parametrize("make", [checkpoints.smolvlm, checkpoints.qwen2_5_vl])
def test_a_family_with_one_template_needs_its_tokens(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """The tiny checkpoints lack some of the control tokens that the published ones write."""
    folder = make(tmp_path / "checkpoint")
    own = load(folder)
    config, tokenizer = load_config(folder), own.tokenizer
    with pytest.raises(CheckpointError, match="no chat template"):
        choose(folder, config, tokenizer, None, None)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<|vision_start|>"]}
    )
    name = {"smolvlm": "smolvlm", "qwen2_5_vl": "qwen2.5-vl"}[config.model_type]
    assert choose(folder, config, tokenizer, None, None).text == chat_templates.named(name)


FORMS = {
    "{% for m in messages %}{{ m.content }}{% endfor %}": "<image>\n",
    "{% for m in messages %}{{ '[' + m.content | trim + ']' }}{% endfor %}": "<image>\n",
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}": "<image>\n",
    "{% for m in messages %}{{ m.content if m.content is string else raise_exception('no') }}{% endfor %}": "<image>\n",
    "{% for m in messages %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}": None,
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ p.text or '<image>' }}{% endfor %}{% endif %}{% endfor %}": None,
    "{{ messages[0].role }}": None,
    "{% for %}": None,
}


@pytest.mark.parametrize("template", FORMS)
def test_the_form_in_which_a_template_takes_content(vicuna: Path, template: str) -> None:
    """Parts where it takes them; strings where it takes only those; parts, too, where neither works, which is refused
    when the template is put to use."""
    assert load(vicuna, template).flat_image == FORMS[template]


@pytest.mark.parametrize("make", [checkpoints.smolvlm, checkpoints.qwen2_5_vl])
def test_families_whose_images_are_not_written_into_text(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert load(make(tmp_path / "checkpoint"), next(iter(FORMS))).flat_image is None


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages }} é", encoding="utf-8")
    assert chat_templates.resolve(str(file)) == "{{ messages }} é"
    assert chat_templates.resolve("smolvlm") == chat_templates.named("smolvlm")


def _unreadable(folder: Path) -> Path:
    (folder / "mine.jinja").write_bytes(b"\xff\xfe")
    return folder / "mine.jinja"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _empty(folder: Path) -> Path:
    (folder / "mine.jinja").write_text(" \n")
    return folder / "mine.jinja"


def _huge(folder: Path) -> Path:
    with (folder / "mine.jinja").open("wb") as file:
        file.truncate(chat_templates.LARGEST + 1)
    return folder / "mine.jinja"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none", "no such chat template"),
        (lambda folder: folder, "no such chat template"),
        (lambda _: "llava", "no such chat template: llava: pass a file, or one of gemma3, llava-1.5, "),
        (lambda _: "a\0b", "no such chat template|cannot read the chat template"),
        (_fifo, "no such chat template"),
        (_unreadable, "cannot read the chat template"),
        (_empty, "is empty"),
        (_huge, "has more than"),
    ],
)
def test_files_that_are_no_template(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    with pytest.raises(ExportError, match=words) as raised:
        chat_templates.resolve(str(make(tmp_path)))
    assert "pass a file, or one of" in str(raised.value)
    assert "\n" not in str(raised.value)
