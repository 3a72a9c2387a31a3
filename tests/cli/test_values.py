"""Values of options and arguments: what is no number, out of range or empty is refused before anything is done."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm.cli import COMMANDS, cli
from edgevlm.terminal.types import MOST, FilePath, Name, Number, Whole

NUMBERS = (Whole, Number)
OTHERS_OWN = ("Size", "ComputeCapabilities")
"""Types of one option, in its command's file."""
TEXTS = {
    "choices", "engine", "layers", "matcher", "prompt", "prompts", "provider", "reference_dtype", "split",
    "stop", "system", "system_prompt", "target", "precision",
}  # fmt: skip
"""Parameters that take any text: an empty one has a meaning, or is refused below the command line."""
ARGUMENTS = {"eval": ["--dataset", "x"], "run": ["-p", "x"], "compile": ["--target", "x"]}
"""What a command needs beside what is tested."""


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from ((name, one) for one in command.params if not getattr(one, "is_flag", False))


PARAMETERS = list(parameters())


def of(*kinds: type[click.ParamType]) -> list[tuple[str, click.Parameter]]:
    return [(name, one) for name, one in PARAMETERS if isinstance(one.type, kinds)]


def ids(pairs: list[tuple[str, click.Parameter]]) -> list[str]:
    return [f"{name} {one.opts[-1]}" for name, one in pairs]


def test_every_parameter_has_one_of_our_types():
    plain = [
        f"{name} {one.opts[-1]}"
        for name, one in PARAMETERS
        if not isinstance(one.type, (*NUMBERS, Name, FilePath, click.Choice))
        and type(one.type).__name__ not in OTHERS_OWN
        and not (one.type is click.STRING and one.name in TEXTS)
    ]
    assert plain == [], "give it a type of edgevlm.terminal.types"


def refusal(invoke, refused, name, one, value) -> str:
    bundle = [] if name in ("models", "doctor") or isinstance(one, click.Argument) else ["nowhere"]
    words = [value] if isinstance(one, click.Argument) else [f"{one.opts[-1]}={value}"]
    return refused(invoke(name, *bundle, *ARGUMENTS.get(name, []), *words))


@pytest.mark.parametrize(("name", "one"), of(*NUMBERS), ids=ids(of(*NUMBERS)))
@pytest.mark.parametrize("value", ["nan", "-inf", "1e999", "", "x", "-1", "9" * 400, "0x10", "1/0", "\u0663\u0660x"])
def test_numbers(invoke, refused, name, one, value):
    if one.opts[-1] == "--max-kl" and value in ("1e999", "9" * 400):
        value = "-1e999"  # infinity means there: lift no layer
    line = refusal(invoke, refused, name, one, value)
    assert one.opts[-1] in line
    assert f"edgevlm {name} --help" in line


@pytest.mark.parametrize(("name", "one"), of(Name, FilePath), ids=ids(of(Name, FilePath)))
def test_an_empty_name_or_path(invoke, refused, name, one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if one.name == "dataset_name":
        monkeypatch.setitem(ARGUMENTS, "eval", [])
    line = refusal(invoke, refused, name, one, "")
    assert "it is empty" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["verify", "nowhere", "--threads", "0"], "--threads"),
        (["bench", "nowhere", "--new-tokens", "1"], "--new-tokens"),
        (["bench", "nowhere", "--repeats", "0"], "--repeats"),
        (["bench", "nowhere", "--image-size", "0x5"], "size"),
        (["run", "nowhere", "-p", "x", "--top-p", "1.5"], "--top-p"),
        (["eval", "nowhere", "--dataset", "x", "--min-exact-match", "99"], "--min-exact-match"),
        (["tune", "nowhere", "--rounds", "101"], "--rounds"),
    ],
)
def test_ranges(invoke, refused, words, option):
    assert option in refused(invoke(*words))


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_a_number_that_passes_is_one(text: str):
    for kind in (Number(), Number(0, 1), Whole(), Whole(1, 9)):
        with contextlib.suppress(click.BadParameter):
            value = kind.convert(text, None, None)
            assert math.isfinite(value)
            assert not isinstance(kind, Whole) or 0 <= value <= MOST
