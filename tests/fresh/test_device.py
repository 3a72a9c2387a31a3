"""The device install of README.md: what it brings, how much it takes, and that it does what it promises."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.fresh.conftest import BOOTSTRAP, README, Machine
from tests.support.repository import ROOT

pytestmark = pytest.mark.fresh

MOST_MIB = 48
APART = ("numpy", "onnxruntime")
"""Not counted: what any runtime of this kind has."""
OF_VENV = {*BOOTSTRAP, "pkg_resources", "_distutils_hack", "distutils-precedence.pth"}
ASK = "Is the part defective?"


def mebibytes(folder: Path) -> float:
    """What `du` counts of everything in the folder but `APART` and what an empty environment has."""
    counted = [
        entry
        for entry in folder.iterdir()
        if entry.name not in OF_VENV
        and not entry.name.startswith(tuple(f"{name}-" for name in BOOTSTRAP))
        and not re.match(rf"({'|'.join(APART)})([-.]|$)", entry.name)
    ]
    told = subprocess.run(["du", "-skc", *counted], capture_output=True, text=True, check=True).stdout
    return int(told.splitlines()[-1].split()[0]) / 1024


def test_brings_what_the_readme_lists(device: Machine) -> None:
    listed = re.search(r"and nothing else:\s([\w\s,-]+)\.", README)
    assert listed is not None
    assert device.installed() == {*re.split(r",\s", listed[1]), *APART}


def test_takes_what_the_readme_says(device: Machine) -> None:
    stated = re.search(r"Beside onnxruntime and numpy stand (\d+) MB", README)
    assert stated is not None
    found = mebibytes(device.site_packages)
    assert found <= MOST_MIB
    assert abs(found - int(stated[1])) <= 1, found


def test_lacks_what_the_readme_says_and_no_more(device: Machine) -> None:
    said = device.run("pip", "check", expect=1).stdout.splitlines()
    assert [re.sub(r"[\d.]+ ", "", line, count=1) for line in said] == [
        "tokenizers requires huggingface-hub, which is not installed."
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "{bundle}", "--image", "{picture}", "--prompt", ASK, "--choices", "yes,no", "--json"),
        ("verify", "{bundle}", "--json"),
        ("inspect", "{bundle}", "--json"),
        ("tune", "{bundle}", "--json"),
        ("bench", "{bundle}", "--repeats", "1", "--warmup", "0", "--new-tokens", "2", "--json"),
        ("eval", "{bundle}", "--dataset", "{parts}", "--json"),
        ("doctor", "--json"),
        ("models", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands(arguments: tuple[str, ...], device: Machine, bundle: Path, picture: Path, tmp_path: Path) -> None:
    row = {"image": str(picture), "question": ASK, "answer": "yes"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    places = {"bundle": bundle, "picture": picture, "parts": tmp_path}
    done = device.run("edgevlm", *(word.format(**places) for word in arguments), cwd=tmp_path)
    assert isinstance(json.loads(done.stdout), dict)


def test_answers_as_the_workstation_does(device: Machine, workstation: Machine, bundle: Path, picture: Path) -> None:
    command = ("edgevlm", "run", bundle, "--image", picture, "--prompt", ASK, "--json")
    device_says, workstation_says = (json.loads(each.run(*command).stdout) for each in (device, workstation))
    assert device_says["answers"][0]["token_ids"] == workstation_says["answers"][0]["token_ids"]


def test_what_it_lacks_it_says_how_to_get(device: Machine, clone: Path, tmp_path: Path) -> None:
    refused = device.run("edgevlm", "export", "inspector", cwd=tmp_path, expect=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: the package edgevlm_export is not installed: pip install ")
    assert shlex.split(line)[-1] == str(clone / "export")
    # The line as it stands, but that what it would bring is left where it is.
    tried = shlex.split(line.partition(" is not installed: ")[2])
    assert "edgevlm-export" in device.run(*tried, "--dry-run", "--no-deps", cwd=tmp_path).stdout


def test_bill_of_materials(device: Machine, clone: Path) -> None:
    device.run("make", "sbom")
    text = (clone / "dist" / "sbom-device.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "edgevlm")
    versions = {one["name"].lower(): one["version"] for one in found["components"]}
    assert {*versions, "edgevlm"} == device.installed()
    held = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert versions["tokenizers"] == held["tokenizers"]
    assert "file:" not in text


def test_without_tokenizers(device: Machine, bundle: Path, picture: Path) -> None:
    """The last test: it takes the package away."""
    device.run("pip", "uninstall", "--yes", "tokenizers")
    refused = device.run("edgevlm", "run", bundle, "--image", picture, "--prompt", ASK, expect=2)
    line = "tokenizers is not installed: pip install --no-deps tokenizers"
    assert refused.stderr == f"Error: {line}\n"
    told = json.loads(device.run("edgevlm", "doctor", "--json", expect=1).stdout)
    assert [finding["what"] for finding in told["findings"] if finding["problem"]] == ["tokenizers is not installed"]
