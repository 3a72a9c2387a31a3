"""What the values of options and arguments may be: numbers that are numbers, names and paths that name something; and
the options that several commands have."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MOST = 2**31 - 1
"""No count is larger: native libraries keep them in 32 bits."""


class Whole(click.ParamType[int]):
    """A whole number from `least` to `most`."""

    name = "integer"

    def __init__(self, least: int = 0, most: int = MOST) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Refuses what is none, and what is out of range."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        if number < self._least:
            self.fail(f"{value} is less than {self._least}.", param, ctx)
        if number > self._most:
            self.fail(f"{value} is more than {self._most}.", param, ctx)
        return number


class Number(click.ParamType[float]):
    """A finite number, of at least `least` and at most `most`; or infinity, where `or_infinite` gives it a meaning."""

    name = "number"

    def __init__(self, least: float = -math.inf, most: float = math.inf, *, or_infinite: bool = False) -> None:
        self._least = least
        self._most = most
        self._or_infinite = or_infinite

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuses what is none ("nan" too), and what is out of range."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if math.isnan(number) or (math.isinf(number) and not self._or_infinite):
            self.fail(f"{value} is not a finite number.", param, ctx)
        if number < self._least:
            self.fail(f"{value} is less than {self._least:g}.", param, ctx)
        if number > self._most:
            self.fail(f"{value} is more than {self._most:g}.", param, ctx)
        return number


class Name(click.ParamType[str]):
    """A text that is not empty: an unset variable of the shell would be taken for "none", or for the current folder."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses the empty one."""
        if not value:
            self.fail("it is empty.", param, ctx)
        return str(value)


class FilePath(click.Path):
    """A `pathlib.Path`, with the checks of `click.Path`, but not the empty one, which would be the current folder."""

    def __init__(self, **checks: Any) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses the empty one."""
        if not str(value):
            self.fail("it is empty: give the path of a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


def _joined(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """As `RuntimeOptions.engine` has them."""
    del context, parameter
    return ",".join(values) if values else None


def loading_options(*, providers: bool = False) -> Callable[[F], Callable[..., Any]]:
    """Decorator for every command that loads bundles: on what. Passed together as `loading`, the arguments of
    `edgevlm_runtime.load` that were given; where there may be several `providers`, they are a tuple."""
    may_repeat = "; may repeat" if providers else ""
    options = {
        "provider": click.option(
            "--provider",
            multiple=providers,
            metavar="NAME",
            help=f"Execution provider: auto, cpu, cuda, ...; must load{may_repeat}. Default: cpu.",
        ),
        "engine": click.option(
            "--engine",
            multiple=True,
            metavar="[GRAPH=]NAME",
            callback=_joined,
            help="ort, openvino, tensorrt or tensorrt-rtx, for all graphs or, as vision_encoder=openvino, for one; may "
            "repeat. Default: as tuned (`edgevlm tune`), else ort; eval, verify and tune itself ask ort.",
        ),
        "threads": click.option(
            "--threads", type=Whole(1), metavar="N", help="Threads of a graph. Default: the physical cores."
        ),
    }

    def decorate(function: F) -> Callable[..., Any]:
        @wraps(function)
        def command(*arguments: Any, **values: Any) -> Any:
            found = {name: values.pop(name) for name in options}
            loading = {name: value for name, value in found.items() if value not in (None, ())}
            return function(*arguments, loading=loading, **values)

        decorated: Callable[..., Any] = command
        for option in reversed(options.values()):
            decorated = option(decorated)
        return decorated

    return decorate


def image_options(function: F) -> F:
    """Decorator for every command that opens pictures: how; passed by the names that `RuntimeOptions` has."""
    depth = click.option(
        "--image-depth",
        "image_bit_depth",
        type=Whole(1, 32),
        metavar="BITS",
        help="Bits used in 16-bit, 32-bit and float pictures, e.g. 12. Default: what the file says, else all.",
    )
    orientation = click.option(
        "--exif-orientation/--no-exif-orientation",
        "apply_exif_orientation",
        default=None,
        help="Turn pictures as their EXIF data say, or not. Default: as the bundle says.",
    )
    return orientation(depth(function))


def prefill_graph_option(function: F) -> F:
    """Decorator for commands that answer for long, or on small machines."""
    return click.option(
        "--prefill-graph/--no-prefill-graph",
        default=None,
        help="Compute prompts by the bundle's own graph for them, where it has one: faster, for the memory of its "
        "weights. Default: do.",
    )(function)
