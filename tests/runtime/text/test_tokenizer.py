"""Tokenizer and streaming: what a stream gives, put together, is what decoding everything at once gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgevlm_runtime.errors import BundleError, BundleIncomplete
from edgevlm_runtime.text.tokenizer import Tokenizer

LINES = [
    "Is there a scratch on this part? No, the part is good.",
    "你好，世界 👋🏽 🇩🇪 naïve café",
    "ÄÖÜ ß — … 12,345.67",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<image>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level() -> tokenizers.Tokenizer:
    """GPT-2, Qwen2, Llama 3: pieces of UTF-8 characters are tokens of their own."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(LINES * 2, trainer)
    return tokenizer


def byte_fallback() -> tokenizers.Tokenizer:
    """Llama 2, Vicuna: SentencePiece words, bytes for what is not in the vocabulary, no space before the first word."""
    letters = sorted(set(LINES[0]) - {" "} | {"▁", "é", "你"})
    vocab = {token: index for index, token in enumerate([*SPECIAL, *BYTES, *letters, "▁p", "▁pa", "▁▁"])}
    merges = [("▁", "p"), ("▁p", "a"), ("▁", "▁")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    """Unigram with the Metaspace decoder (T5, Gemma in part)."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("▁part", -3.5), ("ial", -4.0), ("👋", -5.0), ("a", -5.0)]
    tokenizer = tokenizers.Tokenizer(
        models.Unigram([*pieces, *((byte, -9.0) for byte in BYTES)], 0, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    """BERT's decoder: the first token has no space before it, and punctuation loses its own."""
    words = ["<unk>", "part", "##ial", "good", "is", ".", "'", "s", "not", "##."]
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


BACKENDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "metaspace": metaspace,
    "word_piece": word_piece,
}
TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(["👋🏽", "🇩🇪", "👨‍👩‍👧", "你好", "é", " ", "  ", "\n", "part", " scratch", "<image>", "\ufffd"])
    ).map("".join),
)


@pytest.fixture(scope="module", params=BACKENDS, ids=str)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.from_json(BACKENDS[request.param]().to_str())


def streamed(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(id_) for id_ in ids), stream.finish()]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_tokens(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Any ids: broken characters, special tokens between the bytes of one, ids that do not exist."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=60))
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
@example(text="👋🏽 你好 part  scratch <image> é" * 4)
def test_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(text=TEXT.filter(lambda text: "\ufffd" not in text))
@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_never_half_a_character(make: Callable[[], tokenizers.Tokenizer], text: str) -> None:
    tokenizer = _cached(make)
    assert not any("\ufffd" in piece for piece in streamed(tokenizer, tokenizer.encode(text)))


_CACHE: dict[object, Tokenizer] = {}


def _cached(make: Callable[[], tokenizers.Tokenizer]) -> Tokenizer:
    return _CACHE.setdefault(make, Tokenizer(make()))


def test_text_comes_as_soon_as_it_is_certain() -> None:
    tokenizer = _cached(byte_level)
    ids = tokenizer.encode("a👋b")
    pieces = streamed(tokenizer, ids)
    assert pieces[0] == "a"
    assert [piece for piece in pieces if piece] == ["a", "👋", "b"]
    assert pieces[-1] == "", "nothing is left for the end"


def test_bytes_that_never_become_a_character() -> None:
    tokenizer = _cached(byte_level)
    ids = tokenizer.encode("a👋")[:-1]
    pieces = streamed(tokenizer, ids)
    assert pieces[:-1] == ["a", *[""] * (len(ids) - 1)]
    assert pieces[-1] == "\ufffd"


def test_a_run_of_bytes_waits_for_its_end() -> None:
    """One bad byte turns the whole run into replacement characters, so the good character before it was not certain."""
    tokenizer = _cached(byte_fallback)
    wave = [tokenizer.token_id(f"<0x{byte:02X}>") for byte in "👋".encode()]
    bad, word = tokenizer.token_id("<0xF0>"), tokenizer.token_id("▁pa")
    assert streamed(tokenizer, [*wave, word]) == ["", "", "", "", "👋 pa", ""]  # type: ignore[list-item]
    assert streamed(tokenizer, [*wave, bad, word])[-2:] == ["\ufffd" * 5 + " pa", ""]  # type: ignore[list-item]


def test_the_first_space_is_taken_off_once() -> None:
    tokenizer = _cached(byte_fallback)
    ids = tokenizer.encode("pa" + " pa" * 40)
    assert "".join(streamed(tokenizer, ids)) == "pa" + " pa" * 40


def test_a_long_stream_decodes_short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work for one token does not grow with the answer."""
    tokenizer = _cached(byte_level)
    ids = tokenizer.encode("the part is good. " * 60)
    lengths: list[int] = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: lengths.append(len(ids)) or decode(ids))
    assert "".join(streamed(tokenizer, ids)) == "the part is good. " * 60
    assert len(ids) > 200
    assert max(lengths) <= 16


def test_special_tokens_are_left_out() -> None:
    tokenizer = _cached(byte_level)
    ids = tokenizer.encode("<s>good</s>")
    assert ids[0] == 1
    assert ids[-1] == 2
    assert tokenizer.decode(ids) == "good"
    assert {1, 2} <= tokenizer.special_ids


@pytest.mark.parametrize(("text", "expected"), [("good", [1]), ("<s>good", [1]), ("</s>good", [1, 2])])
def test_a_beginning_token_is_not_doubled(text: str, expected: list[int]) -> None:
    backend = byte_level()
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = Tokenizer(backend)
    ids = tokenizer.encode(text, bos_token="<s>")
    assert ids[: len(expected)] == expected
    assert ids.count(1) == 1
    assert tokenizer.encode("<s>good")[:2] == [1, 1], "without the rule it is"


def test_padding_and_truncation_of_the_file_are_ignored() -> None:
    backend = byte_level()
    backend.enable_padding(length=500)
    backend.enable_truncation(3)
    assert Tokenizer.from_json(backend.to_str()).encode("a scratch on this part") == _cached(byte_level).encode(
        "a scratch on this part"
    )


def test_added_tokens_that_are_not_special_stay() -> None:
    backend = byte_level()
    backend.add_tokens([AddedToken("<loc>", special=False)])
    tokenizer = Tokenizer(backend)
    ids = tokenizer.encode("a<loc>b")
    assert tokenizer.decode(ids) == "a<loc>b" == "".join(streamed(tokenizer, ids))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(BundleIncomplete, match=r"cannot read the tokenizer: .*tokenizer\.json"):
        Tokenizer.load(path)
    path.write_text(byte_level().to_str(), encoding="utf-8")
    assert Tokenizer.load(path).encode("part") == _cached(byte_level).encode("part")
    for damage in ("", "{}", '{"version": "1.0"', "[1, 2]"):
        path.write_text(damage)
        with pytest.raises(BundleError, match=r"not a tokenizer: .*tokenizer\.json") as raised:
            Tokenizer.load(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)
def test_decoding_equals_transformers(make: Callable[[], tokenizers.Tokenizer]) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.PreTrainedTokenizerFast(tokenizer_object=make(), bos_token="<s>", eos_token="</s>")
    tokenizer = Tokenizer.from_json(reference.backend_tokenizer.to_str())
    for text in [*LINES, "part ial. 's", "<s>the partial</s>"]:
        ids = reference(text)["input_ids"]
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("line", LINES)
def test_tokens_as_bytes_make_up_the_text(make: Callable[[], tokenizers.Tokenizer], line: str) -> None:
    backend = make()
    if backend.token_to_id("<0x00>") is not None:
        line = line.replace("—", "-")
    tokenizer = Tokenizer.from_json(backend.to_str())
    pieces = [tokenizer.text_of(id_) for id_ in tokenizer.encode(line)]
    whole = b"".join(data or b"?" for _, data in pieces)
    assert whole.decode().strip() == tokenizer.decode(tokenizer.encode(line)).strip()
    assert all(text == data.decode(errors="replace") for text, data in pieces if data is not None)


def test_special_tokens_are_named() -> None:
    tokenizer = Tokenizer.from_json(byte_level().to_str())
    assert tokenizer.text_of(2) == ("</s>", None)
    assert tokenizer.text_of(1 << 40) == ("", None)
