"""Files that hold somebody's work: refused before the work where they cannot be written, and never lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_runtime import saving
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.saving import check_distinct, check_file, check_folder, keep, write_atomic

ONLY_POSIX = pytest.mark.skipif(os.name != "posix", reason="has no such files")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", ["new", "sub/new", "a/b/c/new", "new.html", "n" * 255, "\N{EURO SIGN}" * 80])
def test_a_place_that_is_free_is_left_as_it_was_and_can_then_be_written(tmp_path, name):
    check_file(tmp_path / name)
    check_folder(tmp_path / name)
    assert tree(tmp_path) == {}
    write_atomic(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a\0b", "n" * 256, "folder", "file/below", "circle", "/dev/null", "pipe"]
)
@ONLY_POSIX
def test_what_is_no_place_for_a_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe")
    names = sorted(path.name for path in tmp_path.iterdir())
    for force in (False, True):
        with pytest.raises(EdgeVLMError) as caught:
            check_file(tmp_path / name if name else Path(), force)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_is_there_is_replaced_by_force_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(EdgeVLMError, match=r"file exists: .*--force"):
        check_file(tmp_path / "mine")
    with pytest.raises(EdgeVLMError, match=r"not empty: .*--force"):
        check_folder(tmp_path / "full")
    check_file(tmp_path / "mine", force=True)
    check_folder(tmp_path / "full", force=True)
    assert tree(tmp_path) == before
    for path in (tmp_path / "mine", tmp_path / "mine" / "below"):
        with pytest.raises(EdgeVLMError):
            check_folder(path, force=True)


@given(st.lists(st.text(max_size=20) | st.binary(max_size=20), min_size=1, max_size=4))
def test_what_is_read_is_what_was_written_last(tmp_path_factory, contents):
    file = tmp_path_factory.mktemp("written") / "file"
    for data in contents:
        write_atomic(file, data)
        assert file.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [path.name for path in file.parent.iterdir()] == ["file"]


@ONLY_POSIX
def test_a_link_stays_and_so_do_permissions(tmp_path):
    target = tmp_path / "elsewhere" / "file"
    write_atomic(target, "before")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    write_atomic(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "after"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_disk_that_fails_leaves_the_older_file(tmp_path, monkeypatch, call):
    file = tmp_path / "file"
    write_atomic(file, "before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(EdgeVLMError, match=r"cannot write '.*file': No space left"):
            write_atomic(file, "after")
        if call != "replace":
            with pytest.raises(EdgeVLMError, match="No space left"):
                check_file(file, force=True)
    assert tree(tmp_path) == {"file": b"before"}


def test_results_that_cannot_be_written_are_kept_elsewhere(tmp_path, monkeypatch):
    """One file's folder became a file, another cannot be made, the third is written."""
    aside = tmp_path / "temporary"
    aside.mkdir()
    monkeypatch.setattr(saving.tempfile, "tempdir", str(aside))
    (tmp_path / "blocked").write_text("in the way")

    def broken() -> str:
        raise ZeroDivisionError("a figure\nof nothing")

    problems = keep(
        {
            tmp_path / "blocked" / "report.html": lambda: "page",
            tmp_path / "page.html": broken,
            tmp_path / "results.json": lambda: "{}",
        }
    )
    assert (tmp_path / "results.json").read_text() == "{}"
    assert len(problems) == 2
    (kept,) = aside.rglob("report.html")
    assert kept.read_text() == "page"
    assert str(kept) in problems[0]
    assert "ZeroDivisionError: a figure of nothing" in problems[1]
    assert not (tmp_path / "page.html").exists()


def test_two_results_of_one_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    check_distinct(tmp_path / "a", tmp_path / "b", None, None)
    for other in (tmp_path / "a", tmp_path / "c" / ".." / "a", tmp_path / "link" / "a"):
        with pytest.raises(EdgeVLMError, match="two results for one file"):
            check_distinct(tmp_path / "a", tmp_path / "b", other)
