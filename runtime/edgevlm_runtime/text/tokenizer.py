"""Text to tokens and back, without torch or transformers.

    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode(prompt, bos_token="<s>")    # special tokens by the rule of transformers' processors
    text = tokenizer.decode(ids)                       # like processor.decode(ids, skip_special_tokens=True)
    stream = tokenizer.stream()                        # one for each answer
    for token in answer:
        piece = stream.push(token)                     # whole characters only, often ""
    piece = stream.finish()                            # what was held back

What a stream gives, put together, is exactly `decode` of the same tokens. A `Tokenizer` may be shared between threads,
a `TextStream` may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from edgevlm_runtime.errors import BundleError, BundleIncomplete, EdgeVLMError, PromptError, reason
from edgevlm_runtime.installing import pip_install
from edgevlm_runtime.reading import read_text, why
from edgevlm_runtime.text.messages import check_unicode
from edgevlm_runtime.text.tokenizer_parts import TokenCount, bytes_of, longest_growth, part_of

try:
    import tokenizers
except ModuleNotFoundError as _error:  # a device installs it with --no-deps
    _line = f"tokenizers is not installed: {pip_install('--no-deps', 'tokenizers')}"
    raise ModuleNotFoundError(_line, name="tokenizers") from _error

LARGEST_FILE = 256 << 20
"""Bytes of a tokenizer.json; the largest that are known have 35 MiB."""
MOST_GROWTH = 128
"""How many times longer than its text anything within a tokenizer may become. NFKC makes 33 bytes of 3."""
_IDS = 1 << 32
"""The library's ids are numbers of 32 bits."""
_CHEAP = 1 << 16
"""Characters that are tokenized without a thought: 13 MB at most."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_WINDOW = 16
"""Tokens a stream decodes again at most before it starts a new window (except while it waits for a character)."""


class Tokenizer:
    """A Hugging Face `tokenizer.json`."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # A tokenizer.json may carry the padding and truncation of its training; transformers switches both off.
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(id_ for id_, token in added.items() if token.special)
        self._added = {token.content: (id_, token) for id_, token in added.items()}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a `tokenizer.json`. Raises `BundleIncomplete` when it is missing, `BundleError` when it is damaged."""
        try:
            text = read_text(path, LARGEST_FILE)
        except OSError as error:
            raise BundleIncomplete(
                f"cannot read the tokenizer: {path}: {why(error)}: export the model again"
            ) from error
        return cls.from_json(text, str(path))

    @classmethod
    def from_json(cls, text: str, where: str = "tokenizer.json") -> Tokenizer:
        """Parse the contents of a `tokenizer.json`; `where` names it in errors. Raises `BundleError`."""
        with _told(BundleError, f"not a tokenizer: {where}", "export the model again"):
            backend = tokenizers.Tokenizer.from_str(text)
            _check_growth(backend)
            return cls(backend)

    @property
    def vocab_size(self) -> int:
        """Tokens in all, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that `decode` leaves out."""
        return self._special

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Added tokens that mean something of their own to the model: the special ones, and those that look it, between
        marks such as <...>. Words and spaces that somebody added are text."""
        return tuple(text for text, (_, token) in self._added.items() if _is_control(token))

    @property
    def unseen_tokens(self) -> dict[str, int]:
        """Those of them that `decode` leaves out, with their ids."""
        return {text: self._added[text][0] for text in self.control_tokens if self._added[text][1].special}

    def normalized(self, text: str) -> str:
        """`text` as the model's vocabulary sees it. Raises `PromptError` as `encode` does."""
        check_unicode(text, "the prompt")
        normalizer = self._backend.normalizer
        with _told(PromptError, *_FAILS):
            return text if normalizer is None else str(normalizer.normalize_str(text))

    def to_json(self) -> str:
        """As a `tokenizer.json`. Raises `BundleError`."""
        with _told(BundleError, "the tokenizer cannot be copied", "export the model again"):
            return str(self._backend.to_str())

    def least_tokens(self, text: str) -> int:
        """Tokens that `text` has at least, known without tokenizing it; 0 for texts that are cheap to tokenize."""
        return 0 if len(text) <= _CHEAP else self._count.least(text)

    @cached_property
    def _count(self) -> TokenCount:
        with _told(BundleError, "the tokenizer does not tell of its parts", "export the model again"):
            return TokenCount(self._backend)

    def token_id(self, token: str) -> int | None:
        """The id of `token`, None when the vocabulary does not have it."""
        return self._backend.token_to_id(token)

    def added_token(self, id_: int) -> str | None:
        """The text of an added token, None for an id that is none's."""
        return next((text for text, (own, _) in self._added.items() if own == id_), None)

    def encode(self, text: str, bos_token: str | None = None) -> list[int]:
        """Tokens of a rendered prompt.

        The tokenizer adds its own special tokens (a beginning-of-sequence token, for most) unless the text begins with
        `bos_token` already; that is what `processor.apply_chat_template(tokenize=True)` of transformers does. Special
        tokens written out in the text become those tokens. Raises `PromptError` for text that is not Unicode.
        """
        check_unicode(text, "the prompt")
        begun = bos_token is not None and text.startswith(bos_token)
        with _told(PromptError, *_FAILS):
            return self._backend.encode(text, add_special_tokens=not begun).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens. Raises `EdgeVLMError` where the tokenizer fails on them."""
        with _told(EdgeVLMError, "the tokenizer fails on these tokens", "use another bundle"):
            return self._backend.decode(list(ids), skip_special_tokens=True)

    def stream(self) -> TextStream:
        """A fresh incremental decoder."""
        return TextStream(self)

    def is_visible(self, id_: int) -> bool:
        """Whether `decode` takes notice of `id_`."""
        return id_ not in self._special and self._token(id_) is not None

    def is_byte(self, id_: int) -> bool:
        """Whether `id_` is a byte-fallback token, such as <0xE4>."""
        token = self._token(id_) or ""
        return len(token) == 6 and token.startswith("<0x") and token.endswith(">")

    def text_of(self, id_: int) -> tuple[str, bytes | None]:
        """One token as text within a text (replacement characters for a part of a character), and as bytes, where the
        tokenizer tells. Special tokens by their names, and without bytes: they are none of the text."""
        token = self._token(id_)
        if token is None or id_ in self._special:
            return token or "", None
        if self.is_byte(id_):
            one = bytes([int(token[3:5], 16)])
            return one.decode(errors="replace"), one
        text = self.decode([*self._before, id_])[len(self.decode(self._before)) :]
        return text, bytes_of(token) if _REPLACEMENT in text else text.encode()

    @cached_property
    def _before(self) -> list[int]:
        """A letter: what is decoded behind it is not taken for the beginning of a text, which loses its space."""
        return [id_ for id_ in self._backend.encode("a", add_special_tokens=False).ids if self.is_visible(id_)][-1:]

    def _token(self, id_: int) -> str | None:
        return self._backend.id_to_token(id_) if 0 <= id_ < _IDS else None


class TextStream:
    """Incremental decoding of one answer; see the module's docstring.

    Text is held back in two cases. At the end of byte-level text a replacement character may be the beginning of a
    character whose other bytes are still to come. A run of byte-fallback tokens is decoded as a whole (one bad byte
    turns all of it into replacement characters), so none of it is certain before the run ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0
        """Characters of the decoded window that were given out."""

    def push(self, id_: int) -> str:
        """Add one token; returns the text that is certain now."""
        if not self._tokenizer.is_visible(id_):
            return ""
        self._window.append(id_)
        if self._tokenizer.is_byte(id_):
            return ""
        text = self._tokenizer.decode(self._window)
        certain = len(text.rstrip(_REPLACEMENT))
        piece = text[self._given : certain]
        self._given = max(self._given, certain)
        if certain == len(text) and len(self._window) >= _WINDOW:
            # Keep one token, so that the next is not decoded as the beginning of a text (which loses its space).
            self._window = self._window[-1:]
            self._given = len(self._tokenizer.decode(self._window))
        return piece

    def finish(self) -> str:
        """The rest, at the end of the answer: bytes that never became a character are replacement characters."""
        piece = self._tokenizer.decode(self._window)[self._given :]
        self._window, self._given = [], 0
        return piece


_FAILS = ("the tokenizer fails on this text", "ask otherwise, or use another bundle")


@contextmanager
def _told(kind: type[EdgeVLMError], what: str, remedy: str) -> Iterator[None]:
    """What the library raises within, its panics too, as a `kind` in one line. (A panic is no `Exception`: it would
    pass everything that keeps errors from users.)"""
    try:
        yield
    except EdgeVLMError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {reason(error)}: {remedy}") from error


def _check_growth(backend: tokenizers.Tokenizer) -> None:
    """Refuse what would turn a short text into gigabytes. Raises `ValueError`."""
    chains = {
        "normalizer": [*part_of(backend.normalizer), *part_of(backend.pre_tokenizer)],
        "decoder": part_of(backend.decoder),
        "post-processor": part_of(backend.post_processor),
    }
    for name, parts in chains.items():
        growth = longest_growth(parts)
        if growth > MOST_GROWTH:
            raise ValueError(f"its {name} may make a text {growth:.3g} times longer, {MOST_GROWTH} is allowed")


def _is_control(token: tokenizers.AddedToken) -> bool:
    text = token.content
    if not text.strip("\N{LOWER ONE EIGHTH BLOCK}").strip():  # SentencePiece's space
        return False
    return token.special or not (text[0].isalnum() or text[-1].isalnum() or text[0].isspace() or text[-1].isspace())
