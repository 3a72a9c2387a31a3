"""What docs/serve.md shows, run as it stands against a server of its own: curl, and OpenAI's client."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from edgevlm.serve.fields import NOT_HERE, ChatRequest
from edgevlm.serve.options import ServeOptions
from tests.support.chatting import encoded, server

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
SHOWN = "http://127.0.0.1:8080/"


def blocks(language: str, word: str) -> list[str]:
    """Examples in the page that have `word` in them."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [block for block in found if word in block]


@pytest.fixture(scope="module")
def place(inspector: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server's address, and a folder with part.png."""
    folder = tmp_path_factory.mktemp("example")
    copied = Path(shutil.copytree(inspector, folder / "served" / "inspector-int8"))
    picture = Image.radial_gradient("L").convert("RGB").resize((96, 96))
    (folder / "part.png").write_bytes(encoded(picture))
    with server(copied) as (address, _):
        yield address, folder


def run(command: list[str], folder: Path) -> str:
    """What it prints."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_curl(place: tuple[str, Path]) -> None:
    address, folder = place
    question, verdict, others = (
        run(["bash", "-ec", block.replace(SHOWN, address)], folder) for block in blocks("bash", "curl")
    )
    assert json.loads(question)["choices"][0]["message"]["content"] in ("yes", "no")
    assert sum(json.loads(verdict)["edgevlm"]["verdict"]["probabilities"].values()) == pytest.approx(1)
    events, _, rest = others.partition("data: [DONE]\n\n")
    first, *_ = (json.loads(line[6:]) for line in events.splitlines() if line)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert '"id":"inspector-int8"' in rest
    assert "edgevlm_serve_requests_total" in rest


def test_openais_client(place: tuple[str, Path]) -> None:
    address, folder = place
    (script,) = blocks("python", "openai")
    report, verdict = run([sys.executable, "-c", script.replace(SHOWN, address)], folder).splitlines()
    assert re.fullmatch(r"defect=(True|False) kind='\w+'", report)
    assert re.fullmatch(r"(yes|no) \{'yes': .*, 'no': .*\}", verdict)


def test_every_field_is_in_the_table() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name in (*ChatRequest.__struct_fields__, *NOT_HERE) if f"`{name}`" not in text] == []
    defaults = ServeOptions(bundles=(Path(),))
    for name, value in (("queue", defaults.waiting), ("contexts", defaults.contexts), ("parallel", defaults.parallel)):
        assert f"| `--{name}` | {value} |" in text
    assert f"| `--max-body` | {defaults.max_body:g} MB |" in text
