"""An output folder belongs to one writer at a time, and no crash at any step loses the bundle that was there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgevlm_export.writing.output import UNSEALED, reserve
from edgevlm_runtime.disk import locks
from edgevlm_runtime.errors import OutputError

ONLY_POSIX = pytest.mark.skipif(os.name != "posix", reason="forks")

CRASHES = '''
"""Replace a bundle once for every call that changes the disk, and die at that call, before or after it."""
import os, shutil, sys
from pathlib import Path
from edgevlm_export.writing.output import UNSEALED, reserve

CHANGES = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync")


def write(output, text, force=True):
    with reserve(output, force) as place, place.filled() as partial:
        (partial / "weights").write_text(text)
        (partial / UNSEALED).write_text(text)


def dying(name, at, after):
    call = getattr(os, name)
    def changed(*args, **options):
        count[0] += 1
        if count[0] == at and not after:
            os._exit(9)
        mine = count[0] == at
        try:
            return call(*args, **options)
        finally:
            if mine:
                os._exit(9)
    return changed


count = [0]
root, older = Path(sys.argv[1]), sys.argv[2] == "older"
for at in range(1, 200):
    for after in (False, True):
        output = root / f"{at}-{after}" / "bundle"
        if older:
            write(output, "older")
        child = os.fork()
        if child == 0:
            for name in CHANGES:
                setattr(os, name, dying(name, at, after))
            write(output, "newer")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
    if status == 0:
        break
print(at)
'''


def found(output: Path) -> str | None:
    """The text of a bundle that loads, None where there is none. Anything between the two is an error."""
    if not (output / "manifest.json").exists():
        return None
    text = (output / "manifest.json").read_text()
    assert (output / "weights").read_text() == text
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "weights"]
    return text


@ONLY_POSIX
@pytest.mark.parametrize("older", [True, False])
def test_whenever_a_writer_dies_a_bundle_is_there(tmp_path, older):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CRASHES, str(tmp_path), "older" if older else ""],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8  # places to die at
    places = [tmp_path / f"{at}-{after}" for at in range(1, int(done.stdout) + 1) for after in (False, True)]
    seen = set()
    for place in places:
        output = place / "bundle"
        before = found(output)
        place.mkdir(exist_ok=True)
        with reserve(output, force=False):
            assert sorted(path.name for path in place.iterdir() if path != output) == [".bundle.lock"]
            after = found(output)
        seen.add(after)
        assert sorted(path.name for path in place.iterdir()) == (["bundle"] if after else [])
        assert after in ("older", "newer") or not older
        assert before in (None, after)
    assert seen == {"older", "newer"} if older else {None, "newer"}


HOLD = """
import sys, time
from pathlib import Path
from edgevlm_export.writing.output import UNSEALED, reserve
with reserve(Path(sys.argv[1]), force=True) as place, place.filled() as partial:
    (partial / "weights").write_text("half")
    print("holding", flush=True)
    time.sleep(600)
"""


def test_who_comes_second_is_refused_until_the_first_is_gone(tmp_path):
    output = tmp_path / "made" / "bundle"
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding\n"
        with (
            pytest.raises(OutputError, match=r"another export or compile writes here: .*bundle"),
            reserve(output, True),
        ):
            pass
        assert len([path for path in output.parent.iterdir() if ".partial-" in path.name]) == 1
    finally:
        first.kill()
        first.wait()
        assert first.stdout is not None
        first.stdout.close()
    with reserve(output, True) as place, place.filled() as partial:
        assert [path.name for path in output.parent.iterdir() if "partial" in path.name] == [partial.name]
        (partial / UNSEALED).touch()
    assert sorted(path.name for path in output.parent.iterdir()) == ["bundle"]


def test_of_many_at_once_one_writes(tmp_path):
    """Threads of one process, all at the same moment: nobody is let in twice, nobody waits, nothing is left."""
    output, inside, refused = tmp_path / "bundle", [], []
    start, done = threading.Barrier(8), threading.Barrier(8)

    def write() -> None:
        start.wait()
        try:
            with reserve(output, force=True) as place:
                inside.append(place.token)
                done.wait()
        except OutputError as error:
            refused.append(str(error))
            done.wait()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 7)
    assert list(tmp_path.iterdir()) == []


def test_other_folders_with_like_names_are_left_alone(tmp_path):
    kept = [
        ".bundle.partial-of-mine",
        ".bundle.partial",
        "bundle.drifted",
        ".bundle.other.partial-00ff",
        ".b.replaced-00",
    ]
    for name in (*kept, ".bundle.partial-00ff", ".bundle.partial-00ff-scratch-x1"):
        (tmp_path / name).mkdir()
    with reserve(tmp_path / "bundle", force=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_nobody_elses_folder_is_touched(tmp_path, monkeypatch, caplog, code):
    def refuse(file: int) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(locks, "_lock", refuse)
    (tmp_path / ".bundle.partial-00ff").mkdir()
    with reserve(tmp_path / "bundle", force=False) as place, place.filled() as partial:
        (partial / UNSEALED).touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bundle.partial-00ff", "bundle"]
    assert "no locks" in caplog.text


@pytest.mark.parametrize("at", ["rename", "seal"])
def test_an_older_bundle_comes_back_when_its_successor_cannot_be_put_in_place(tmp_path, monkeypatch, at):
    output = tmp_path / "bundle"
    output.mkdir()
    (output / "manifest.json").write_text("older")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if at == "rename" and ".partial-" in self.name:
            raise KeyboardInterrupt
        return real(self, target)

    def seal(folder: Path) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(Path, "rename", rename)
    if at == "seal":
        monkeypatch.setattr("edgevlm_export.writing.output.seal", seal)
    with pytest.raises((KeyboardInterrupt, OutputError)), reserve(output, True) as place, place.filled() as partial:
        (partial / UNSEALED).touch()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (output / "manifest.json").read_text() == "older"


@pytest.mark.parametrize("name", ["", "..", "a\0b", "n" * 300, "file", "file/below", "link"])
def test_what_is_no_place_for_a_folder_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError) as caught, reserve(tmp_path / name if name else Path(), force=True):
        pass
    assert "\n" not in str(caught.value)
