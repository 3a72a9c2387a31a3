"""Chat templates: Jinja2 programs that come with a checkpoint and are rendered in a sandbox.

    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    text = template.render(messages, add_generation_prompt=True)

The environment is the one transformers gives a template (utils/chat_template_utils.py, 5.23): immutable sandbox, blocks
trimmed, loop controls, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, `{% generation %}` blocks,
`dict` and `namespace` without a way to Python's internals, `tools` and `documents` present and None.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgevlm_runtime.errors import PromptError


class ChatTemplate:
    """A compiled chat template. May be shared between threads."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        """`variables` are further names the template may use, special tokens above all.

        Raises `PromptError` when the template does not compile.
        """
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise PromptError(f"the chat template does not compile: {_line(error)}") from error
        self._variables = dict(variables)

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The prompt's text. Raises `PromptError` with the template's own words when it refuses the messages."""
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            # The template is a program: what is no TemplateError comes from its own expressions.
            raise PromptError(f"the chat template refuses these messages: {_line(error)}") from error


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant says, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 -- the base class declares it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` as templates see it: `dict(...)` and `dict.fromkeys(...)`, nothing of the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` that refuses names with a leading underscore, the way to CPython's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Without a named parameter, so that a template may write namespace(self=...).
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold a name that begins with an underscore: {name!r}")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(format: str) -> str:  # noqa: A002 -- the name templates may use for the argument
    return datetime.now().strftime(format)  # noqa: DTZ005 -- local time, as transformers gives it


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
