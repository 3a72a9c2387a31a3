"""Tokenizers that end or hold up the process they are loaded in are refused; others, broken ones too, go on."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.preprocessing import load_processor, tokenizer_trial
from edgevlm_runtime import child
from edgevlm_runtime.errors import CheckpointError


def changed(tokenizer: dict[str, Any], **parts: Any) -> bytes:
    made = copy.deepcopy(tokenizer)
    made.update(parts)
    return json.dumps(made).encode()


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tiny_checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    return content


def replaced(pattern: str, content: str, times: int = 1) -> dict[str, Any]:
    part = {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}
    return {"normalizer": {"type": "Sequence", "normalizers": [part] * times}}


PANICS = {
    "a regular expression without end": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "an empty match": replaced("", "xx"),
    "a character map that is none": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a token that is not there": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("parts", PANICS.values(), ids=PANICS)
def test_a_panic_is_one_line(tokenizer, parts):
    with pytest.raises(CheckpointError, match=r"tokenizer not usable: where: .*panics") as caught:
        tokenizer_trial.check(changed(tokenizer, **parts), Path("where"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="has no such limits")
def test_a_tokenizer_that_never_ends_or_takes_all_memory_is_stopped(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer_trial, "SECONDS", 2)
    monkeypatch.setattr(tokenizer_trial, "BASE_MEMORY", 512 << 20)
    with pytest.raises(CheckpointError, match=r"takes more than 2 s|dies on it"):
        tokenizer_trial.check(changed(tokenizer, **replaced("a", "a" * 1000, 4)), Path("where"))
    padding = {"strategy": {"Fixed": 10**15}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    tokenizer_trial.check(changed(tokenizer, padding=padding), Path("where"))  # ours does not pad


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_left_to_whoever_loads_it(data):
    tokenizer_trial.check(data, Path("where"))


def test_a_sound_one_is_tried_once(tokenizer, monkeypatch):
    tokenizer_trial._tried.cache_clear()
    started: list[Any] = []
    real = child.run

    def run(*args: Any, **options: Any) -> Any:
        started.append(args)
        return real(*args, **options)

    monkeypatch.setattr(child, "run", run)
    for _ in range(3):
        tokenizer_trial.check(changed(tokenizer), Path("where"))
    assert len(started) == 1


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
@pytest.mark.parametrize("kind", ["panic", "pipe", "folder", "huge"])
def test_a_processor_is_not_loaded_with_it(tiny_checkpoint, tokenizer, tmp_path, kind, monkeypatch):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    file = folder / "tokenizer.json"
    file.unlink()
    if kind == "panic":
        file.write_bytes(changed(tokenizer, **PANICS["an empty match"]))
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        monkeypatch.setattr(tokenizer_trial, "LARGEST", 1000)
        file.write_bytes(changed(tokenizer))
    with pytest.raises(CheckpointError) as caught:
        load_processor(folder, load_config(folder))
    assert "tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)
