"""Chat templates: Jinja2 programs that come with a checkpoint, rendered within bounds (`text.sandbox`).

    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    text = template.render(messages, add_generation_prompt=True)

`tools` and `documents` are present and None, as where transformers is given none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from edgevlm_runtime.errors import PromptError, one_line
from edgevlm_runtime.text.sandbox.budget import Budget, spending
from edgevlm_runtime.text.sandbox.environment import BoundedEnvironment

SOURCE_CHARACTERS = 1 << 17
"""Of a template; the longest that are known have 25,000."""
_SHOWN = 400


class ChatTemplate:
    """A compiled chat template. May be shared between threads."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        """`variables` are further names the template may use, special tokens above all.

        Raises `PromptError` when the template does not compile, or uses what no chat template needs.
        """
        if len(source) > SOURCE_CHARACTERS:
            raise PromptError(f"the chat template is too long: {len(source)} characters, {SOURCE_CHARACTERS} at most")
        try:
            self._template = _environment().program(source)
        except Exception as error:  # Jinja's, and those of Python's own compiler
            raise PromptError(f"the chat template does not compile: {_line(error)}") from error
        self._variables = dict(variables)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The prompt's text.

        Raises `PromptError` with the template's own words when it refuses the messages, and where it takes more time
        or memory than they can need.
        """
        try:
            with spending(Budget.for_messages(messages, self._variables)):
                return self._template.render(
                    messages=messages,
                    tools=None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **self._variables,
                )
        except Exception as error:  # the template is a program: its expressions may raise anything
            raise PromptError(f"the chat template refuses these messages: {_line(error)}") from error


@cache
def _environment() -> BoundedEnvironment:
    return BoundedEnvironment()


def _line(error: BaseException) -> str:
    line = one_line(error)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..."
