"""What transformers gives chat templates beside Jinja's own (utils/chat_template_utils.py, 5.23)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension

from edgevlm_runtime.text.sandbox.operations import formatted


class Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant says, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 -- the base class declares it so

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Callable[[], str]) -> str:
        return caller()


class Dict:
    """`dict` as templates see it: `dict(...)` and `dict.fromkeys(...)`, nothing of the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class Namespace(jinja2.utils.Namespace):
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

    def __repr__(self) -> str:
        return "<Namespace>"  # what is in it may hold the namespace itself


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold a name that begins with an underscore: {name!r}")


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> NoReturn:
    """How a template refuses a conversation."""
    raise TemplateError(message)


def formatted_now(format: str) -> int:  # noqa: A002 -- as of `strftime_now`
    """Characters of a date, at most: its format may hold widths."""
    return 100 * len(format) + formatted(str(format))


def strftime_now(format: str) -> str:  # noqa: A002 -- the name templates may use for the argument
    return datetime.now().strftime(format)  # noqa: DTZ005 -- local time, as transformers gives it
