"""Where an answer ends: one decision, from everything that has a say, and a line where transformers' own differs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.checkpoints.generation import Generation, read_generation
from edgevlm_export.preprocessing import load_processor
from edgevlm_export.preprocessing.chat_template import choose
from edgevlm_runtime.errors import CheckpointError
from tests.runtime.text.test_prompt import TEMPLATES

CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>\n"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}<global-img>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
EOS, TURN = 2, 5
"""</s> is the tokenizer's own; <global-img> stands for an end of turn."""


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; the template in it writes no end of a turn."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    content = {**(json.loads(path.read_text()) if path.exists() else {}), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def read(folder: Path) -> Generation:
    config = load_config(folder)
    processor = load_processor(folder, config)
    return read_generation(folder, config, processor.tokenizer, processor.turn_end)


def without_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


def config_says_nothing(folder: Path) -> None:
    without_generation_config(folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    del text["eos_token_id"]
    change(folder / "config.json", text_config=text)


def llama_config_says_nothing(folder: Path) -> None:
    """Its class assumes 2, as transformers' config object does."""
    config_says_nothing(folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", text_config={**text, "model_type": "llama"})


def a_word(folder: Path) -> None:
    """Llama's 2 is a word here, and the tokenizer ends texts otherwise."""
    llama_config_says_nothing(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] != EOS]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    change(folder / "tokenizer_config.json", eos_token="<pad>")


def chatml(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)


def chatml_named_too(folder: Path) -> None:
    chatml(folder)
    change(folder / "generation_config.json", eos_token_id=[TURN, EOS])


CASES: dict[str, tuple[Callable[[Path], None], tuple[int, ...], str]] = {
    "as saved": (lambda _: None, (EOS,), ""),
    "several": (lambda f: change(f / "generation_config.json", eos_token_id=[EOS, 7]), (EOS, 7), ""),
    "another": (
        lambda f: change(f / "generation_config.json", eos_token_id=7),
        (7, EOS),
        r"'</s>' \(2\), which the tok",
    ),
    "no generation config": (without_generation_config, (EOS,), ""),
    "nothing but the tokenizer": (config_says_nothing, (EOS,), r"'</s>' \(2\), which the tokenizer .* names no token"),
    "the config's class": (llama_config_says_nothing, (EOS,), "names no token"),
    "a word": (a_word, (0,), r"'<pad>' \(0\), which the tokenizer"),
    "an empty file": (lambda f: (f / "generation_config.json").write_text("{}"), (EOS,), "names no token"),
    "chatml": (
        chatml,
        (EOS, TURN),
        r"'<global-img>' \(5\), which the chat template ends an answer with.* '</s>' \(2\)",
    ),
    "chatml, named": (chatml_named_too, (TURN, EOS), ""),
    "beyond the table": (lambda f: change(f / "generation_config.json", eos_token_id=[EOS, 99_999]), (EOS,), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_ends(folder: Path, case: str) -> None:
    prepare, ends, note = CASES[case]
    prepare(folder)
    found = read(folder)
    assert found.defaults.eos_token_ids == ends
    if not note:
        assert found.notes == ()
        return
    (line,) = found.notes
    assert re.search(note, line), line
    assert "\n" not in line


def test_nothing_ends_an_answer(folder: Path) -> None:
    config_says_nothing(folder)
    change(folder / "tokenizer_config.json", eos_token=None)
    found = read(folder)
    assert found.defaults.eos_token_ids == ()
    assert "nothing says where an answer ends" in found.notes[0]


@pytest.mark.parametrize(
    "prepare", [lambda _: None, without_generation_config, config_says_nothing, llama_config_says_nothing]
)
def test_what_is_stated_is_what_transformers_takes(folder: Path, prepare: Callable[[Path], None]) -> None:
    """No note, where generate() ends at the same tokens by itself."""
    from edgevlm_export.reference import Reference

    prepare(folder)
    reference = Reference.load(str(folder))
    own = reference.model.generation_config.eos_token_id
    theirs = {own} if isinstance(own, int) else set(own or ())
    assert (read(folder).notes == ()) == (set(reference.defaults.eos_token_ids) <= theirs)


@pytest.mark.parametrize("penalty", [1e39, 101.0, 0.001, -1.0])
def test_a_penalty_that_no_answer_can_have(folder: Path, penalty: float) -> None:
    """Found before the work: the runtime would refuse it when the bundle is done."""
    change(folder / "generation_config.json", repetition_penalty=penalty)
    with pytest.raises(CheckpointError, match="repetition_penalty"):
        read(folder)


def test_settings_that_are_not_taken_are_named(folder: Path) -> None:
    change(folder / "generation_config.json", num_beams=3)
    assert read(folder).notes == ("the checkpoint's generation config sets what edgevlm does not do: num_beams",)


ENDS = {"everything": None, "gemma3": "<end_of_turn>", "llama3_vision": "<|eot_id|>", "llava_vicuna": None}
ENDS |= {"mistral_pixtral": "</s>", "qwen2_vl": "<|im_end|>", "smolvlm": "<end_of_utterance>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_templates_write_after_an_answer(folder: Path, name: str) -> None:
    """One special token, as far as the tokenizer has it."""
    config = load_config(folder)
    tokenizer = load_processor(folder, config).tokenizer
    known = choose(folder, config, tokenizer, None, TEMPLATES[name])
    assert known.turn_end == (EOS if ENDS[name] == "</s>" else None)
    tokenizer.add_special_tokens({"additional_special_tokens": [token for token in ENDS.values() if token]})
    expected = ENDS[name]
    found = choose(folder, config, tokenizer, None, TEMPLATES[name])
    assert found.turn_end == (expected and tokenizer.convert_tokens_to_ids(expected))


SHOW = "{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (f"{{% for m in messages %}}{SHOW} </s>\n{{% endfor %}}", EOS),
        (f"{{% for m in messages %}}</s>: {SHOW}</s>{{% endfor %}}", EOS),
        (f"{{% for m in messages %}}<global-img>{SHOW}{{% endfor %}}<global-img>", TURN),  # between all messages
        (f"{{% for m in messages %}}{SHOW}</s><global-img>{{% endfor %}}", EOS),
        (
            f"{{% for m in messages %}}{SHOW}{{{{ '</s>' if m.role == 'user' }}}}<global-img>{{% endfor %}}",
            None,
        ),  # the next
        (f"{{% for m in messages %}}{SHOW} end </s>{{% endfor %}}", None),  # words, then a token
        (f"{{% for m in messages %}}{SHOW}<row_1_col_{{% endfor %}}", None),  # half of one
        (f"{{% for m in messages if m.role == 'user' %}}{SHOW}</s>{{% endfor %}}", None),  # the answer is not shown
    ],
)
def test_what_ends_an_answer(folder: Path, template: str, end: int | None) -> None:
    assert load_processor(folder, load_config(folder), template).turn_end == end
