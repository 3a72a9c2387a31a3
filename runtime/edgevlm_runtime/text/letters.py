"""Texts taken letter by letter: what looks like a control token in them stays text.

A control token has a meaning of its own to the model: an end of turn, a role, an image. The tokenizer finds them by
their text, whoever wrote it. Two steps keep what a user wrote out of their way:

1. While the template is rendered, a literal text has stand-ins for the characters with which control tokens begin and
   end (private code points that occur nowhere else). So every control token in the rendered prompt is the template's.
2. These are then given names that nobody can guess, the stand-ins become characters again, and all of it is
   tokenized at once by a copy of the tokenizer that knows the control tokens by those names alone.

Tokenized at once, so a text's tokens are the same as ever where it holds no control token: spaces that a tokenizer puts
before text, merges across the border to the template. A copy, because a model's own vocabulary may hold `</s>` as well
(Unigram finds it there, special or not), which is why `encode_special_tokens` of the library does not suffice.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from edgevlm_runtime.errors import BundleError, PromptError
from edgevlm_runtime.text.layout import TokenizedText
from edgevlm_runtime.text.messages import Part, Turn
from edgevlm_runtime.text.tokenizer import Tokenizer

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Code points that Unicode leaves to its users."""


@dataclass(frozen=True, slots=True)
class Shield:
    """Stand-ins of one conversation: character to stand-in, as code points."""

    table: Mapping[int, int]

    def on(self, part: Part) -> str:
        """A part's text, with stand-ins where it is literal."""
        text = part.text or ""
        return text.translate(self.table) if part.literal else text

    def off(self, text: str) -> str:
        """With the characters again."""
        return text.translate({stand_in: character for character, stand_in in self.table.items()})


class Letters:
    """The two steps, for one tokenizer and one template. May be shared between threads."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """`template`: its source; no stand-in is a character of it."""
        self._tokenizer = tokenizer
        self._template = template
        self._controls = tokenizer.control_tokens
        self._edges = frozenset(chain.from_iterable((token[0], token[-1]) for token in self._controls))

    def shield(self, turns: Sequence[Turn]) -> Shield | None:
        """What to render the conversation with; None where no literal text can hold a control token."""
        texts = [part for turn in turns for part in turn.texts()]
        if not any(part.literal and self._may_hold_a_control(part.text or "") for part in texts):
            return None
        taken = set(self._template).union(*(part.text or "" for part in texts), *self._controls)
        free = (code for codes in _PRIVATE for code in codes if chr(code) not in taken)
        table = {ord(edge): code for edge, code in zip(sorted(self._edges), free, strict=False)}
        if len(table) < len(self._edges):
            raise PromptError("the prompt uses every private character there is: take some out")
        return Shield(table)

    def source(self, rendered: str, shield: Shield) -> TokenizedText:
        """A rendered prompt as `encode` takes it: control tokens by their secret names, no stand-ins."""
        return TokenizedText(shield.off(self._copy.name_all(rendered)), letters=True)

    def encode(self, source: TokenizedText, bos_token: str | None) -> list[int]:
        """As `Tokenizer.encode`."""
        return self._copy.tokenizer.encode(source.text, self._copy.names.get(bos_token or "", bos_token))

    @cached_property
    def _copy(self) -> _Copy:
        return _Copy(self._tokenizer, self._controls)

    def _may_hold_a_control(self, text: str) -> bool:
        """Whether any of its characters, as they are or as the tokenizer reads them, could begin or end one."""
        return not self._edges.isdisjoint(text) or not self._edges.isdisjoint(self._tokenizer.normalized(text))


class _Copy:
    """A tokenizer whose control tokens have names that nobody can guess. Their ids are the same."""

    def __init__(self, tokenizer: Tokenizer, controls: Iterable[str]) -> None:
        """Raises `BundleError` when the tokenizer cannot be copied so."""
        nonce = secrets.token_hex(16)
        # with the same edges, since whether a token counts may depend on the characters next to it (`single_word`)
        self.names = {token: f"{token[0]}{nonce}{i:06x}{token[-1]}" for i, token in enumerate(controls)}
        self.tokenizer = Tokenizer.from_json(_renamed(tokenizer.to_json(), self.names))
        self._starts = re.compile("|".join(sorted({re.escape(token[0]) for token in self.names})) or r"(?!)")
        self._lengths = sorted({len(token) for token in self.names}, reverse=True)
        if any(self.tokenizer.token_id(name) != tokenizer.token_id(token) for token, name in self.names.items()):
            raise BundleError("this tokenizer cannot take text as letters: export the model again, or ask without")

    def name_all(self, text: str) -> str:
        """With every control token by its name; of several that begin at one place, the longest."""
        pieces, done = [], 0
        for start in (match.start() for match in self._starts.finditer(text)):
            candidates = (text[start : start + length] for length in self._lengths) if start >= done else ()
            token = next((candidate for candidate in candidates if candidate in self.names), None)
            if token is not None:
                pieces += [text[done:start], self.names[token]]
                done = start + len(token)
        return "".join([*pieces, text[done:]])


def _renamed(tokenizer: str, names: Mapping[str, str]) -> str:
    """A `tokenizer.json` with other names for some of its tokens.

    Merges that make or use such a token go: no text can hold it any more.
    """
    content = json.loads(tokenizer)
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model: dict[str, Any] = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): id_ for token, id_ in vocabulary.items()}
    else:  # Unigram's, with scores
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if names.keys().isdisjoint(_tokens_of(merge))]
    return json.dumps(content, ensure_ascii=False)


def _tokens_of(merge: str | Sequence[str]) -> tuple[str, str, str]:
    """Both sides of a merge, in either form of the file, and what it makes."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right
