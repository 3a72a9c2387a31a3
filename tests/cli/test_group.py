"""The group: which commands there are, how fast it starts, and what becomes of errors."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from edgevlm import __version__
from edgevlm.cli import COMMANDS, cli
from edgevlm.cli import doctor as doctor_module


def test_help_lists_every_command(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    listed = result.stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_examples(invoke, name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert f"Examples:\n    edgevlm {name}" in result.stdout


def test_version(invoke):
    assert invoke("--version").stdout == f"edgevlm {__version__}\n"


def test_no_arguments_shows_the_help(invoke):
    result = invoke()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["polish"], "polish"),
        (["run"], "BUNDLE"),
        (["run", "somewhere"], "--prompt"),
        (["run", "somewhere", "--prompt", "x", "--seed", "many"], "many"),
        (["export"], "MODEL"),
        (["export", "x", "--max-context", "0"], "--max-context"),
        (["inspect", "a", "b"], "b"),
        (["doctor", "--frobnicate"], "--frobnicate"),
    ],
)
def test_bad_usage_is_one_line(invoke, refused, arguments, named):
    line = refused(invoke(*arguments))
    assert named in line
    assert "--help" in line


def test_help_and_completion_start_without_heavy_packages():
    heavy = [
        "edgevlm_export",
        "edgevlm_runtime",
        "edgevlm.watch",
        "numpy",
        "onnxruntime",
        "rich",
        "torch",
        "transformers",
    ]
    code = (
        "import sys, click, json\n"
        "from edgevlm.cli import COMMANDS, cli\n"
        "for name in COMMANDS: cli.get_command(click.Context(cli), name)\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_completion_knows_commands_and_options(spawn):
    words = {"COMP_WORDS": "edgevlm run --im", "COMP_CWORD": "2", "_EDGEVLM_COMPLETE": "bash_complete"}
    done = spawn(**words)
    assert done.stdout.split() == ["plain,--image", "plain,--image-cache", "plain,--image-depth"]


class TestFailuresOfOurOwn:
    @pytest.fixture(autouse=True)
    def broken_command(self, monkeypatch):
        @click.command("doctor")
        def command() -> None:
            raise RuntimeError("two\nlines")

        monkeypatch.setattr(doctor_module, "command", command)

    def test_are_one_line_too(self, invoke, refused):
        line = refused(invoke("doctor"))
        assert "unexpected RuntimeError: two lines" in line
        assert "EDGEVLM_DEBUG=1" in line

    def test_show_the_traceback_when_asked(self, invoke):
        result = invoke("--debug", "doctor")
        assert result.exit_code == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: unexpected RuntimeError")


def test_ctrl_c_is_quiet(invoke, monkeypatch):
    @click.command("doctor")
    def command() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_module, "command", command)
    result = invoke("doctor")
    assert result.exit_code == 130
    assert result.stderr.split() == ["Interrupted."]


def test_other_callers_get_the_exception_itself():
    with pytest.raises(click.UsageError):
        cli.main(["polish"], standalone_mode=False)
