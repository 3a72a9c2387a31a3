"""Tokenizers that panic, blow up, or are asked for more than fits: one line, before it costs anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

import edgevlm_runtime
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import BundleError, ContextOverflow, EdgeVLMError, PromptError
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import MOST_GROWTH, Tokenizer
from edgevlm_runtime.text.tokenizer_parts import UNKNOWN_CHARACTERS_A_TOKEN, TokenCount
from tests.runtime.text.test_tokenizer import BACKENDS, byte_fallback, byte_level, metaspace, word_piece

Content = dict[str, Any]


def changed(**parts: Any) -> str:
    """A byte-level tokenizer.json with other parts."""
    return json.dumps({**json.loads(byte_level().to_str()), **parts})


def charsmap(texts: bytes) -> Content:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(4) + texts).decode()}


def regex(pattern: str) -> Content:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(*pieces: Content) -> Content:
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": list(pieces), "special_tokens": {}}


def sequence_of(name: str) -> Content:
    return {"Sequence": {"id": name, "type_id": 0}}


PANICS = {
    "while it is read": {"normalizer": charsmap(b"\xff" * 40)},
    "chunks of nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a regular expression": {"pre_tokenizer": regex("(a+)+$")},
    "a regular expression that normalizes": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": "x"}
    },
    "a token that is not there": {"post_processor": template({"SpecialToken": {"id": "x", "type_id": 0}})},
    "a text that is not there": {"post_processor": template(sequence_of("B"))},
    "a decoder": {"decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 100}},
}


@pytest.mark.parametrize("name", PANICS)
def test_panics_of_the_library_are_one_line(name: str) -> None:
    """They are no `Exception`: `except Exception`, here or in a caller, would let them through."""

    def used() -> str:
        tokenizer = Tokenizer.from_json(changed(**PANICS[name]))
        return tokenizer.decode(tokenizer.encode("a" * 60 + "b"))

    with pytest.raises(EdgeVLMError) as raised:
        used()
    assert "\n" not in str(raised.value)


def test_a_panic_in_a_prompt_leaves_the_session_usable(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Tokenizer.from_json(changed(**PANICS["a regular expression"]))
    with vlm.session() as session:
        with monkeypatch.context() as patched:
            patched.setattr(vlm.pipeline.prompts, "tokenizer", bad)
            with pytest.raises(PromptError, match="the tokenizer fails on this text"):
                session.ask("a" * 60 + "!")
        assert session.ask("hello", max_new_tokens=2).token_ids


def replaced(old: str, new: str) -> Content:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def chain(kind: str, parts: list[Content]) -> Content:
    return {"type": "Sequence", kind: parts}


GROWING = {
    "doubled": {"normalizer": chain("normalizers", [replaced("a", "aa")] * 40)},
    "long": {"normalizer": replaced("a", "b" * 1_000_000)},
    "nothing replaced": {"normalizer": replaced("", "b" * 1_000)},
    "by a regular expression": {"normalizer": {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "b" * 1_000}},
    "prepended": {"normalizer": {"type": "Prepend", "prepend": "b" * 1_000_000}},
    "prepended, then doubled": {
        "normalizer": chain("normalizers", [{"type": "Prepend", "prepend": "a" * 4000}, *[replaced("a", "aa")] * 12])
    },
    "nested": {"normalizer": chain("normalizers", [chain("normalizers", [replaced("a", "a" * 100)])] * 3)},
    "bytes of bytes": {
        "pre_tokenizer": chain(
            "pretokenizers",
            [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 40,
        )
    },
    "decoded": {"decoder": chain("decoders", [replaced("a", "aa")] * 40)},
    "processed": {"post_processor": chain("processors", [template(sequence_of("A"), sequence_of("A"))] * 40)},
}


@pytest.mark.parametrize("name", GROWING)
def test_what_blows_texts_up_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"times longer, {MOST_GROWTH} is allowed"):
        Tokenizer.from_json(changed(**GROWING[name]))


def test_what_models_in_use_do_is_allowed() -> None:
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend = byte_fallback()
    backend.normalizer = normalizer
    assert Tokenizer.from_json(backend.to_str()).encode("hello")
    for make in BACKENDS.values():
        Tokenizer.from_json(make().to_str())


# How few tokens a text can have.


def with_normalizer(make: Callable[[], tokenizers.Tokenizer], normalizer: Any) -> Callable[[], tokenizers.Tokenizer]:
    def made() -> tokenizers.Tokenizer:
        backend = make()
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizer, *before])
        return backend

    return made


def greedy_spaces() -> tokenizers.Tokenizer:
    """Special tokens that take the spaces around them, as Phi-3's do."""
    backend = byte_level()
    backend.add_special_tokens([AddedToken("<|end|>", rstrip=True, lstrip=True, normalized=False)])
    return backend


def split_off() -> tokenizers.Tokenizer:
    backend = byte_level()
    splits = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    return backend


def long_tokens() -> tokenizers.Tokenizer:
    backend = byte_fallback()
    backend.add_tokens(["part" * 10, " " * 20, "ﬁ" * 5])
    return backend


COUNTED: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    **BACKENDS,
    "NFC": with_normalizer(byte_level, normalizers.NFC()),
    "NFD": with_normalizer(byte_level, normalizers.NFD()),
    "NFKC": with_normalizer(byte_fallback, normalizers.NFKC()),
    "NFKD": with_normalizer(byte_level, normalizers.NFKD()),
    "shorter": with_normalizer(byte_level, normalizers.Replace("part", "p")),
    "emptied": with_normalizer(byte_level, normalizers.Replace("part", "")),
    "by pattern": with_normalizer(byte_level, normalizers.Replace(tokenizers.Regex("[a-z]+"), "x")),
    "stripped": with_normalizer(byte_fallback, normalizers.Strip()),
    "accents": with_normalizer(byte_level, normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "lowercase": with_normalizer(byte_level, normalizers.Lowercase()),
    "greedy spaces": greedy_spaces,
    "split off": split_off,
    "long tokens": long_tokens,
}
PIECES = [
    "part" * 10,
    " " * 20,
    "<|end|>",
    "\n\n",
    "e\u0301",
    "\u1f82",
    "ﬁ",
    "ﷺ",
    "क़",
    "가",
    "<image>",
    "</s>",
    "a",
    "0x",
]
LONG = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(PIECES)), max_size=30).map("".join)
_CACHE: dict[str, tuple[Tokenizer, TokenCount]] = {}


def counted(name: str) -> tuple[Tokenizer, TokenCount]:
    if name not in _CACHE:
        backend = COUNTED[name]()
        _CACHE[name] = (Tokenizer(backend), TokenCount(backend))
    return _CACHE[name]


@settings(max_examples=40, deadline=None)
@given(text=LONG, times=st.integers(1, 40))
@example(text=" " * 20, times=22)  # of an added token that is normalized, as a text is: a space is put before it
@pytest.mark.parametrize("name", COUNTED)
def test_no_text_has_fewer_tokens(name: str, text: str, times: int) -> None:
    """What is refused for its least number of tokens really has as many; where a tokenizer may drop any text, which no
    bound can know, a token is taken for a thousand characters."""
    tokenizer, count = counted(name)
    if count.known:
        assert count.least(text * times) <= len(tokenizer.encode(text * times))
    else:
        assert count.least(text * times) == len(text * times) // UNKNOWN_CHARACTERS_A_TOKEN


@pytest.mark.parametrize(
    "name", ["byte_level", "byte_fallback", "metaspace", "NFC", "NFKC", "shorter", "greedy spaces"]
)
def test_ordinary_text_is_counted_closely(name: str) -> None:
    """A bound of 0 would be no bound: here it is a fifth of the truth at least."""
    tokenizer, count = counted(name)
    text = "Is there a scratch on this part? No, the part is good. " * 50
    assert count.known
    assert count.least(text) * 5 > len(tokenizer.encode(text))


@pytest.mark.parametrize("make", [word_piece, metaspace])
def test_tokenizers_that_join_what_they_do_not_know(make: Callable[[], tokenizers.Tokenizer]) -> None:
    backend = make() if make is word_piece else tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    assert not TokenCount(backend).known


def test_a_prompt_beyond_the_context_is_refused_before_it_is_tokenized(
    vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenized(*args: object) -> None:
        raise AssertionError("tokenized")

    monkeypatch.setattr(Tokenizer, "encode", tokenized)
    monkeypatch.setattr(PromptEncoder, "tokenize", tokenized)
    long = "w" * 3_000_000
    for ask in (
        lambda: vlm.ask(None, long),
        lambda: vlm.ask(None, "x", system=long),
        lambda: vlm.chat().ask(long),
        lambda: next(vlm.session().stream(long)),
        lambda: vlm.session().choose(long, ["a", "b"]),
        lambda: vlm.prompt_logits([{"role": "user", "content": [{"type": "text", "text": long}]}]),
    ):
        with pytest.raises(ContextOverflow, match=r"3000\d+ characters need 3000\d+ tokens at least"):
            ask()


def test_a_choice_beyond_the_context_is_refused_likewise(vlm: VLM) -> None:
    with pytest.raises(ContextOverflow, match="characters need"):
        vlm.session().choose("x", ["a", "w" * 3_000_000])


def test_literal_text_beyond_the_context(fresh: Callable[..., edgevlm_runtime.VLM]) -> None:
    with pytest.raises(ContextOverflow, match="characters need"):
        fresh(text_tokens="literal").ask(None, "<image>" + "w" * 3_000_000)
