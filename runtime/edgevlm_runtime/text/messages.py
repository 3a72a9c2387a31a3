"""Messages of a conversation, checked, and in the form in which a chat template takes them.

Content is a text or a list of parts, `{"type": "text", "text": ...}` or `{"type": "image"}`. A part with
`"literal": True` is taken letter by letter: what looks like a control token in it is text (`text.letters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from edgevlm_runtime.errors import PromptError

Message: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A text, or an image (None)."""

    text: str | None
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One message out of plain types, which is all that a template may see."""

    role: str
    parts: tuple[Part, ...]
    whole: bool
    """Whether the content was given as one text, not as a list."""

    def texts(self) -> Iterator[Part]:
        """The parts that are text."""
        return (part for part in self.parts if part.text is not None)

    def with_texts(self, change: Callable[[Part], str]) -> Turn:
        """The same with other texts."""
        return replace(
            self, parts=tuple(part if part.text is None else replace(part, text=change(part)) for part in self.parts)
        )

    def for_template(self, flat_image: str | None) -> dict[str, Any]:
        """As the template gets it. `flat_image`: what stands for an image where it takes only strings, else None."""
        if self.whole or flat_image is not None:
            content = "".join(flat_image or "" if part.text is None else part.text for part in self.parts)
            return {"role": self.role, "content": content}
        shown = [{"type": "image"} if part.text is None else {"type": "text", "text": part.text} for part in self.parts]
        return {"role": self.role, "content": shown}


def read_messages(messages: Sequence[Message]) -> list[Turn]:
    """The conversation. Raises `PromptError` for messages of another form."""
    return [_turn(message, f"message {index + 1}") for index, message in enumerate(messages)]


def count_images(turns: Sequence[Turn]) -> int:
    """Image parts in a conversation."""
    return sum(part.text is None for turn in turns for part in turn.parts)


def check_unicode(text: str, where: str) -> str:
    """The text. Raises `PromptError`, with the place, for characters that are none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where} is not text: character {error.start + 1} is half of a surrogate pair, as bytes that are "
            "not UTF-8 become: give it in UTF-8"
        ) from None
    return text


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise PromptError(f"{where} must be a mapping with 'role' and 'content', nothing else")
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise PromptError(f"{where}: the role must be a text, not {type(role).__name__}")
    if isinstance(content, str):
        return Turn(str(role), (Part(check_unicode(str(content), where)),), whole=True)
    if not isinstance(content, list | tuple):
        raise PromptError(f"{where}: the content must be a text or a list of parts, not {type(content).__name__}")
    return Turn(str(role), tuple(_part(part, where) for part in content), whole=False)


def _part(part: Any, where: str) -> Part:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        return Part(None)
    if kind == "text" and isinstance(part.get("text"), str) and isinstance(part.get("literal", False), bool):
        return Part(check_unicode(str(part["text"]), where), part.get("literal", False))
    raise PromptError(
        f'{where}: a part must be {{"type": "text", "text": ...}} or {{"type": "image"}}, not {str(part)[:80]!r}'
    )
