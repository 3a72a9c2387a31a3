"""device-requirements.txt, installed with --no-deps, is all that edgevlm needs on a device, and README.md says so.

What is installed here stands for what an index has: the closure of the packages' own metadata. `make fresh` installs.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = {"edgevlm", "edgevlm-runtime"}
NEVER_USED = "huggingface-hub"
"""Named by the metadata of tokenizers alone, for downloads by name."""
README = (ROOT / "README.md").read_text(encoding="utf-8")


def requirements() -> tuple[str, ...]:
    lines = (ROOT / "device-requirements.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if re.match(r"\w", line))


def needed(*names: str, without: str = "") -> set[str]:
    """The distributions that these require, themselves, and so on, by the metadata of what is installed here."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found or name == without:
            continue
        found.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(requirement.name))
    return found


DEVICE = needed(*OURS, "onnxruntime", without=NEVER_USED)


def test_requirements_are_exactly_what_is_needed():
    assert set(requirements()) == DEVICE - OURS - {"onnxruntime"}


def test_they_are_names_whose_versions_the_constraints_hold():
    text = (ROOT / "device-requirements.txt").read_text(encoding="utf-8")
    assert "\n-c constraints.txt\n" in text
    held = {canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(requirements()) - held == set()


def test_nothing_but_tokenizers_names_what_is_left_out():
    naming = {
        name
        for name in DEVICE
        if any(canonicalize_name(Requirement(line).name) == NEVER_USED for line in metadata.requires(name) or ())
    }
    assert naming == {"tokenizers"}


def test_readme_lists_what_a_device_gets():
    listed = re.search(r"stand (\d+) MB, and nothing else:\s([\w\s,-]+)\.", README)
    assert listed, "README.md has no list of the device's packages"
    assert set(re.split(r",\s", listed[2])) == DEVICE - {"onnxruntime", "numpy"}
    assert int(listed[1]) <= 48


def test_readme_says_what_the_other_line_would_bring():
    more = needed(*OURS, "onnxruntime") - DEVICE
    assert f"{len(more)} more packages" in " ".join(README.split())


@pytest.mark.parametrize("words", ["pip install {}", "DEVICE := {}"], ids=["README.md", "Makefile"])
def test_one_line_installs_a_device(words):
    line = "--no-deps -r device-requirements.txt ./runtime . onnxruntime"
    text = README if words.startswith("pip") else (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{words.format(line)}\n" in text
