"""Every seed and every finding of `make fuzz`, once: succeeds, or is refused in one of the project's own errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevlm_runtime.images import KINDS
from fuzz.judge import judge
from fuzz.targets import HERE, TARGETS, get_target, image, inputs


@pytest.mark.parametrize("name", TARGETS)
def test_replay(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = inputs(name)
    assert files
    surface = get_target(name).Surface(tmp_path)
    taken = []

    def run(data: bytes) -> None:
        surface.run(data)
        taken.append(data)

    faults = {str(file.relative_to(HERE)): fault for file in files if (fault := judge(run, file.read_bytes()))}
    assert faults == {}
    assert taken, "no seed succeeds: changes of them try nothing"


def test_pictures_go_through_every_kind() -> None:
    assert set(image.KINDS) == set(KINDS.built_in)


def test_every_folder_of_inputs_has_its_target() -> None:
    folders = {path.name for folder in ("corpus", "findings") for path in (HERE / folder).glob("*")}
    assert folders == set(TARGETS)


def test_the_corpus_is_small() -> None:
    assert sum(file.stat().st_size for name in TARGETS for file in inputs(name)) < 1 << 20
