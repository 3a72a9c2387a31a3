"""What a tuning leaves: read again as it was written, and by nobody where it was damaged or changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.engines.assigned.tuned import Tuned
from edgevlm_runtime.errors import EdgeVLMError

FOUND = Tuned({"projector": "openvino"}, {"openvino": "openvino 1 CPU f32"}, {"ort 1": 64})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_kept_and_forgotten(own_cache: Path) -> None:
    assert tuned.recall("x") is None
    file = tuned.remember("x", FOUND)
    assert file.is_relative_to(own_cache)
    assert tuned.recall("x") == FOUND.sealed()
    assert tuned.forget("x") == file
    assert (tuned.recall("x"), tuned.forget("x")) == (None, None)


def test_keys_tell_bundles_threads_and_processors_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {tuned.key("a", 1), tuned.key("b", 1), tuned.key("a", 2)}
    monkeypatch.setattr(tuned, "_processor", lambda: "another")
    assert len({*keys, tuned.key("a", 1)}) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"prefill_chunks": {"ort 1": 0}}', '{"engines": {"decoder": 1}}'])
def test_damaged_files_count_as_none(content: str, caplog: pytest.LogCaptureFixture) -> None:
    tuned.remember("x", FOUND).write_text(content)
    assert tuned.recall("x") is None
    assert [record.getMessage().startswith("damaged tuning file, not used: ") for record in caplog.records] == [True]


def test_a_changed_file_counts_as_none(caplog: pytest.LogCaptureFixture) -> None:
    file = tuned.remember("x", FOUND)
    data = json.loads(file.read_text())
    data["engines"] = {"projector": "openvino:bf16"}
    file.write_text(json.dumps(data))
    assert tuned.recall("x") is None
    assert caplog.messages == [f"the tuning file was changed since `edgevlm tune` wrote it, not used: {file}"]


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have none: nothing is remembered, and nothing breaks."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    assert (tuned.recall("x"), tuned.forget("x")) == (None, None)
    with pytest.raises(EdgeVLMError, match="set XDG_CACHE_HOME"):
        tuned.remember("x", FOUND)


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_unwritable_cache_folder(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(EdgeVLMError, match=r"tuning cannot be kept: .*XDG_CACHE_HOME"):
        tuned.remember("x", FOUND)
