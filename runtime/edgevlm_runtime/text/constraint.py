"""Tokens that keep an answer in its form, by llguidance (extra `structured`), which reads the tokenizer as bytes.

Where the form leaves no choice, the tokens that must follow are known without asking the model: they are run through
the decoder together, as a prompt is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import FormError, one_line, reason
from edgevlm_runtime.form import Form
from edgevlm_runtime.installing import pip_install
from edgevlm_runtime.text.tokenizer import Tokenizer

JSON_LAYOUT = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""JSON on one line: where spaces and lines are free, small models fill them until they are cut."""
SILENT = 0


class Constraint:
    """One answer's way through its form."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher = matcher
        self._vocab = vocab

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens [vocab] may come next; at the end of the form, those that end the answer. Raises `FormError`
        when the form is too complex to go on with."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        known = np.unpackbits(bits, bitorder="little")[: self._vocab].astype(np.bool_)
        return known if known.size == self._vocab else np.pad(known, (0, self._vocab - known.size))

    def accept(self, token_id: int) -> list[int]:
        """The answer goes on with `token_id`. Returns the tokens that then follow in any case."""
        self._matcher.consume_token(token_id)
        self._check()
        if self._matcher.is_stopped():
            return []
        forced: list[int] = self._matcher.compute_ff_tokens()
        return forced

    def follow(self, token_ids: Sequence[int]) -> None:
        """Take those that follow in any case."""
        self._matcher.consume_tokens(list(token_ids))
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise FormError(f"the form of the answer cannot be followed: {_said(self._matcher.get_error())}")


class Constraints:
    """Makes constraints for one bundle. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab`: logits the decoder gives for each position."""
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._eos = list(eos_token_ids)
        self._made: Any = None

    def make(self, form: Form) -> Constraint:
        """A fresh constraint. The first takes a second for a large vocabulary.

        Raises `FormError` for an expression or schema that is wrong or too complex, and where llguidance is not
        installed.
        """
        try:
            import llguidance
        except ModuleNotFoundError as error:
            install = pip_install("edgevlm-runtime[structured]")
            raise FormError(f"answers of a form need llguidance, which is not installed: {install}") from error
        if not self._eos:
            raise FormError("this bundle has no end-of-sequence token: its answers cannot be held to a form")
        if self._made is None:
            self._made = self._read_tokenizer(llguidance)
        try:
            grammar = _GRAMMARS[form.kind](llguidance.LLMatcher, form.text)
        except ValueError as error:
            raise FormError(f"bad form of an answer: {reason(error)}") from error
        matcher = llguidance.LLMatcher(self._made, grammar, log_level=SILENT)
        if matcher.is_error():
            raise FormError(f"bad form of an answer: {_said(matcher.get_error())}")
        return Constraint(matcher, self._vocab)

    def _read_tokenizer(self, llguidance: Any) -> Any:
        size = max(self._vocab, self._tokenizer.vocab_size)
        try:
            return llguidance.LLTokenizer(self._tokenizer.to_json(), n_vocab=size, eos_token=self._eos)
        except Exception as error:  # of a tokenizer that it does not know
            raise FormError(f"this bundle's answers cannot be held to a form: {reason(error)}") from error


def _regex(matcher: Any, text: str) -> Any:
    return matcher.grammar_from_regex(text)


def _list(matcher: Any, text: str) -> Any:
    return matcher.grammar_from_lark("start: " + " | ".join(json.dumps(one) for one in json.loads(text)))


def _json(matcher: Any, text: str) -> Any:
    return matcher.grammar_from_json_schema(text, overrides=JSON_LAYOUT)


_GRAMMARS = {"regex": _regex, "list": _list, "json": _json}


def _said(text: str) -> str:
    """The library's own words, without the grammar that some of its messages repeat."""
    return reason(ValueError(one_line(ValueError(text.partition("<state>")[0]))))
