"""The Jinja environment of chat templates: transformers' own, within a budget.

As transformers gives it (utils/chat_template_utils.py, 5.23): immutable sandbox, blocks trimmed, loop controls,
`tojson` without HTML escapes, `raise_exception`, `strftime_now`, `{% generation %}` blocks, `dict` and `namespace`
without a way to Python's internals. Left out are `lipsum`, `cycler` and `joiner`, and what `operations` does not name.
"""

from __future__ import annotations

import functools
import string
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_context

from edgevlm_runtime.text.sandbox import counting
from edgevlm_runtime.text.sandbox.budget import current
from edgevlm_runtime.text.sandbox.given import (
    Dict,
    Generation,
    Namespace,
    formatted_now,
    raise_exception,
    strftime_now,
    to_json,
)
from edgevlm_runtime.text.sandbox.operations import (
    COMPARING,
    FILTERS,
    GLANCES,
    METHODS,
    OPERATORS,
    Bound,
    formatted,
)

_compiling = threading.Lock()
"""`warnings.catch_warnings` is not safe from several threads."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates so that all they do is counted (`budget.current`). May be shared between threads."""

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
            optimized=False,  # it would compute what is constant while it compiles, before anything is counted
            finalize=_printed,
        )
        kept: dict[str, Any] = {**self.filters, "tojson": to_json}
        tests: dict[str, Any] = {**self.tests}
        self.filters = {name: _bounded(kept[name], bound, name in GLANCES) for name, bound in FILTERS.items()}
        self.filters |= _COUNTING
        self.tests = {name: _bounded(test, None, name not in COMPARING) for name, test in tests.items()}
        self.globals = {
            "range": self.globals["range"],
            "dict": Dict(),
            "namespace": Namespace,
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }
        self._known = frozenset(map(id, self.globals.values()))

    def program(self, source: str) -> jinja2.Template:
        """The template of this source. Raises what Jinja and Python raise where it does not compile."""
        tree = counting.counted(self.parse(source))
        with _compiling, warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of Python, about what it was translated to
            code = self.compile(tree)
        return self.template_class.from_code(self, code, self.make_globals(None), None)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As in the sandbox, with a `format` of its own."""
        if attribute == "format" and isinstance(obj, str):
            return _Format(self, obj)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """As in the sandbox. Looking for a key looks at all of it."""
        if argument == "format" and isinstance(obj, str):
            return _Format(self, obj)
        if not isinstance(argument, int):
            current().look(argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operation, if its result is not too large."""
        budget = current()
        budget.look(left)
        budget.look(right)
        budget.expect(OPERATORS[operator](left, right))
        result = super().call_binop(context, operator, left, right)
        budget.made(result)
        return result

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call of what templates may call, with its arguments looked at before and its result after."""
        budget = current()
        budget.step(8)
        if isinstance(called, _OWN):
            return super().call(context, called, *args, **kwargs)
        bound = self._bound(called)
        values = [_listed(value) for value in args]
        for value in (*values, *kwargs.values()):
            budget.look(value)
        if bound is not None:
            budget.expect(bound(*values, **kwargs))
        result = super().call(context, called, *values, **kwargs)
        budget.made(result)
        return result

    def _bound(self, called: Any) -> Bound:
        """What bounds the result of a call, if anything has to. Raises `SecurityError` for what must not be called."""
        if id(called) in self._known:
            return formatted_now if called is strftime_now else None
        owner = getattr(called, "__self__", None)
        if isinstance(owner, _OWNERS):
            return None
        name = getattr(called, "__name__", "")
        for kind, methods in METHODS.items():
            if isinstance(owner, kind) and name in methods:
                current().look(owner)
                bound = methods[name]
                return None if bound is None else functools.partial(bound, owner)
        raise SecurityError(f"{name or type(called).__name__} is not for chat templates to call")


def _bounded(function: Callable[..., Any], bound: Bound, glances: bool) -> Callable[..., Any]:
    """A filter or test that counts what it is given and gives back."""
    own = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)  # keeps the mark that says what Jinja passes first
    def counting_it(*args: Any, **kwargs: Any) -> Any:
        budget = current()
        values = [_listed(value) for value in args[own:]]
        budget.step(2)
        for value in (*values[glances:], *kwargs.values()):
            budget.look(value)
        if bound is not None:
            budget.expect(bound(*values, **kwargs))
        result = function(*args[:own], *values, **kwargs)
        budget.made(result)
        return result

    return counting_it


def _listed(value: Any) -> Any:
    """What a filter makes one by one, all at once: it must be there to be counted."""
    if not isinstance(value, Iterator) or isinstance(value, LoopContext):
        return value
    budget, found = current(), []
    for one in value:
        budget.step(1)
        found.append(one)
    return found


@pass_context
def _printed(context: Context, value: Any) -> Any:
    """A value that is written out, as text. The context is asked for, so that Jinja leaves constants to this."""
    budget = current()
    found = budget.look(value)
    budget.expect(found.characters if isinstance(value, str) else 12 * found.characters)
    text = value if isinstance(value, str) else str(value)
    budget.make(len(text))
    return text


def _step(steps: int, characters: int) -> None:
    budget = current()
    budget.step(steps)
    budget.make(characters)


def _tested(value: Any, steps: int) -> Any:
    current().step(steps)
    return value


def _look(value: Any) -> Any:
    current().look(value)
    return value


def _look_within(value: Any) -> Any:
    return value if isinstance(value, dict) else _look(value)


def _sliced(value: Any) -> Any:
    if isinstance(value, str | list | tuple):
        budget = current()
        budget.step(len(value) // 64)
        budget.make(len(value) if isinstance(value, str) else 8 * len(value))
    return value


def _joined(values: list[Any]) -> str:
    return "".join([_printed(None, value) for value in values])  # type: ignore[arg-type]


_COUNTING: dict[str, Callable[..., Any]] = {
    counting.STEP: _step,
    counting.TESTED: _tested,
    counting.LOOK: _look,
    counting.LOOK_WITHIN: _look_within,
    counting.SLICED: _sliced,
    counting.JOINED: _joined,
}


class _Format:
    """The method `format` of a text."""

    def __init__(self, environment: BoundedEnvironment, text: str) -> None:
        self._formatter = SandboxedFormatter(environment)
        self._text = text

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if any("{" in (spec or "") for _, _, spec, _ in string.Formatter().parse(self._text)):
            raise SecurityError("a width that is given as an argument is not for chat templates")
        budget = current()
        for value in (self._text, *args, *kwargs.values()):
            budget.look(value)
        budget.expect(formatted(self._text, *args, **kwargs))
        text = str(self._formatter.vformat(self._text, args, kwargs))
        budget.made(text)
        return text


_OWN = (Macro, BlockReference, LoopContext, Undefined, _Format)
"""Types of objects that may be called: what they run is counted as it runs."""
_OWNERS = (LoopContext, Dict, Extension)
"""Types whose methods may be called."""
