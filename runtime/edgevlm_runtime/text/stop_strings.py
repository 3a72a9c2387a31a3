"""Stopping an answer at given strings while it is streamed.

    stops = StopStrings(("\\nUser:", "###"))
    for piece in pieces:
        text = stops.push(piece)       # what cannot be part of a stop string any more
        if stops.found is not None:    # the stop string that ended the answer; it and what follows are not given out
            break
    text = stops.finish()              # the rest, when the answer ended otherwise

A stop string that is a special token of the model ends the answer at that token as well, which is no text
(`stop_tokens`).

Where several could match, the one that is complete first wins, and of those the longest. So the outcome does not depend
on how the text is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgevlm_runtime.errors import PromptError
from edgevlm_runtime.text.tokenizer import Tokenizer


def stop_tokens(strings: Sequence[str], tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that stop strings stand for.

    Raises `PromptError` for a string that has a special token in it beside other text: no answer's text can match it.
    """
    special = tokenizer.unseen_tokens
    for string in (string for string in strings if string not in special):
        within = next((token for token in special if token in string), None)
        if within is not None:
            raise PromptError(
                f"stop string {string!r} holds the special token {within!r}, which is no text of an answer: "
                "give the token alone, or take it out"
            )
    return frozenset(special[string] for string in strings if string in special)


class StopStrings:
    """State of one answer; see the module's docstring. Raises `PromptError` for an empty stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        if isinstance(strings, str) or not all(strings):
            raise PromptError("stop strings must be a list of texts, none of them empty")
        self._strings = tuple(strings)
        self._held = ""
        self.found: str | None = None
        """The stop string that was met."""

    def push(self, piece: str) -> str:
        """Add text; returns what is certain to belong to the answer. Returns "" once a stop string was met."""
        if self.found is not None:
            return ""
        text = self._held + piece
        ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self._strings if stop in text]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return text[: end - len(self.found)]
        keep = self._beginning_at_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text still held back, when the answer ends without a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _beginning_at_end(self, text: str) -> int:
        """How many characters at the end of `text` could begin a stop string."""
        longest = min(len(text), max((len(stop) for stop in self._strings), default=1) - 1)
        return next(
            (size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in self._strings)), 0
        )
