"""The install of README.md for a device that watches and serves: no torch, and both do what they promise."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.fresh.conftest import Machine

pytestmark = pytest.mark.fresh

ASK = "Is there a defect on this part?"


def test_lacks_torch(camera: Machine) -> None:
    assert not {"torch", "transformers", "onnx", "edgevlm-export"} & camera.installed()
    camera.run("pip", "check")


def test_watches_pictures_and_asks_them_again(camera: Machine, bundle: Path, picture: Path, tmp_path: Path) -> None:
    flags = ("--question", ASK, "--choices", "yes,no", "--sink", "jsonl:r.jsonl", "--sink", "pictures:kept", "--json")
    done = camera.run("edgevlm", "watch", bundle, picture, *flags, cwd=tmp_path)
    assert json.loads(done.stdout)["verdicts"] == {"yes": 1}
    (record,) = (json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines())
    assert record["verdict"] == "yes"
    assert json.loads(camera.run("edgevlm", "replay", "r.jsonl", "--check", "--json", cwd=tmp_path).stdout)


def test_a_plan_to_begin_with(camera: Machine, tmp_path: Path) -> None:
    camera.run("edgevlm", "watch", "init", "line-1.toml", cwd=tmp_path)
    refused = camera.run("edgevlm", "watch", "line-1.toml", cwd=tmp_path, expect=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "inspector-int8" in line  # the bundle is not there


def test_serves(camera: Machine, bundle: Path) -> None:
    command = shlex.join(["edgevlm", "serve", str(bundle), "--port", "0"])
    variables = {**camera.variables, "PATH": f"{camera.scripts}:{camera.variables['PATH']}"}
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], env=variables, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"at (http://\S+/v1)$", server.stderr.readline().rstrip())
            assert found
            asked = {"model": bundle.name, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
            request = urllib.request.Request(
                f"{found[1]}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert json.load(answer)["choices"][0]["message"]["role"] == "assistant"
        finally:
            server.terminate()
