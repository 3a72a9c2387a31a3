"""Helpers of the command-line tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgevlm.cli import cli
from tests.support import traces

Invoke = Callable[..., Result]
Completed = subprocess.CompletedProcess[str]
Spawn = Callable[..., Completed]


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process: `invoke("inspect", path, "--json")`."""

    def run(*arguments: object) -> Result:
        if "export" in arguments:
            traces.remember()
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="edgevlm")

    return run


@pytest.fixture
def spawn() -> Spawn:
    """Run a command as users do, in a process of its own."""

    def run(*arguments: object, **environment: str) -> Completed:
        command = [sys.executable, "-c", "from edgevlm.cli import main; main()", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
        )

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small image with something on it."""
    path = tmp_path / "picture.png"
    image = Image.radial_gradient("L").resize((60, 44)).convert("RGB")
    image.paste((200, 30, 60), (5, 5, 30, 20))
    image.save(path)
    return path


@pytest.fixture
def refused() -> Callable[..., str]:
    """The one error line of a command that must have refused its input: exit code 2, stdout empty.

    Nothing else may be on stderr, unless work had begun: then, progress lines before it.
    """

    def line(result: Result | Completed, begun: bool = False) -> str:
        code = result.exit_code if isinstance(result, Result) else result.returncode
        assert code == 2, result.stderr
        assert result.stdout == ""
        *progress, last = result.stderr.splitlines()
        assert last.startswith("Error: ")
        assert "Traceback" not in result.stderr
        assert begun or not progress, result.stderr
        return last

    return line
