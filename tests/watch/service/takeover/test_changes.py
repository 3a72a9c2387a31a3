"""Whether something has changed on disk, however it was replaced."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgevlm.watch.service.takeover.changes import follow, look
from tests.support.polling import until


def bundle(folder: Path, content: str) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text(content)
    return folder


def rewritten(folder: Path) -> None:
    (folder / "deep" / "weights").write_text("other, longer")


def renamed(folder: Path) -> None:
    new = bundle(folder.with_name("new"), "other")
    folder.rename(folder.with_name("old"))
    new.rename(folder)


def relinked(folder: Path) -> None:
    new = bundle(folder.with_name("new"), "aaaaa")
    folder.rename(folder.with_name("old"))
    folder.symlink_to(new)


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[Path, list[object]]]:
    folder, stop = bundle(tmp_path / "bundle", "first"), threading.Event()
    seen: list[object] = []
    looks: list[None] = []

    def paths() -> list[Path]:
        looks.append(None)
        return [folder, tmp_path / "not-there"]

    def changed() -> None:
        seen.append(look([folder]))

    thread = threading.Thread(target=follow, args=(paths, stop, changed, 0.02))
    thread.start()
    until(lambda: len(looks) > 2, "it has begun")
    assert seen == []
    yield folder, seen
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("change", [rewritten, renamed, relinked, removed])
def test_a_change_is_told_once(followed: tuple[Path, list[object]], change: Callable[[Path], None]) -> None:
    folder, seen = followed
    change(folder)
    until(lambda: seen, "the change")
    assert seen == [look([folder])]


def test_a_copy_is_told_of_when_it_has_come_to_rest(followed: tuple[Path, list[object]]) -> None:
    folder, seen = followed
    with (folder / "deep" / "weights").open("a") as copied:
        for _ in range(50):
            copied.write("more")
            copied.flush()
    until(lambda: look([folder]) in seen, "the whole copy")
