"""What README.md shows is run: every `edgevlm` command and every Python block, in order, in one folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [(match["language"], match["code"]) for match in BLOCK.finditer(README) if not match["skip"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_there_is_something_to_run():
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)])
def test_block(language, code, folder):
    if language == "python":
        assert run(["-c", code], folder).strip()
        return
    for line in code.splitlines():
        command, *arguments = shlex.split(line, comments=True)
        assert command == "edgevlm", f"only edgevlm commands are run: {line}"
        assert run(["-m", "edgevlm", *arguments], folder).strip()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
