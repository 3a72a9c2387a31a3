"""Files that hold somebody's work: checked before the work begins, complete or not there at all, never lost.

check_file(report, force)                  # before hours of work: it can be written, and nothing is lost by it
write_atomic(report, text)                 # another file's place is taken in one step
problems = keep({report: render, ...})     # each that cannot be written is kept aside, and the line says where
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgevlm_runtime.errors import EdgeVLMError

log = logging.getLogger(__name__)

REPLACE = "choose another name, or replace it with --force"
_PROBE = b"\0" * 65536
"""Written and removed again: a disk that is full takes a name, but no bytes."""


def check_file(path: Path, force: bool = False, remedy: str = REPLACE) -> None:
    """Before the work: `path` can be written, and is no file that is there already, unless `force` replaces it.

    Raises `EdgeVLMError`, with `remedy` for a file that is there.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode) if path.exists() else None
    except (OSError, ValueError) as error:
        raise EdgeVLMError(f"cannot write {str(path)!r}: {_why(error)}: choose another file") from error
    if path.name in ("", "..") or kind == stat.S_IFDIR:
        raise EdgeVLMError(f"a folder, not a file: {path}: choose another file")
    if kind not in (None, stat.S_IFREG):
        raise EdgeVLMError(f"not a regular file: {path}: choose another file")  # would be replaced, /dev/null too
    if kind is not None and not force:
        raise EdgeVLMError(f"file exists: {path}: {remedy}")
    _probe(path)


def check_distinct(*paths: Path | None) -> None:
    """Before the work: no two of these results have one place. Raises `EdgeVLMError`."""
    places = [path.resolve() for path in paths if path is not None]
    twice = next((place for number, place in enumerate(places) if place in places[:number]), None)
    if twice is not None:
        raise EdgeVLMError(f"two results for one file: {twice}: give each a name of its own")


def check_folder(path: Path, force: bool = False, remedy: str = REPLACE) -> None:
    """Likewise for a folder that files are to be written into: it is not there, or empty, unless `force` is given."""
    try:
        if path.exists() and not path.is_dir():
            raise EdgeVLMError(f"not a folder: {path}: choose another")
        if path.is_dir() and any(path.iterdir()) and not force:
            raise EdgeVLMError(f"folder is not empty: {path}: {remedy}")
    except (OSError, ValueError) as error:
        raise EdgeVLMError(f"cannot write {str(path)!r}: {_why(error)}: choose another folder") from error
    _probe(path / "file")


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file that appears complete or not at all, folders above it included; a link's target is replaced.

    Raises `EdgeVLMError`.
    """
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _create(target, data.encode() if isinstance(data, str) else data)
        try:
            with contextlib.suppress(OSError):
                shutil.copymode(target, partial)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except (OSError, ValueError, RuntimeError) as error:  # a RuntimeError: links in a circle
        raise EdgeVLMError(f"cannot write {str(path)!r}: {_why(error)}") from error


def sync_folder(folder: Path) -> None:
    """Names made or replaced in `folder` outlive a power failure. Raises `OSError`."""
    if os.name != "posix":  # has no such call: the file system does it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def keep(files: Mapping[Path, Callable[[], str]]) -> list[str]:
    """Write every file, whatever becomes of the others. Returns a line for each that is not where it should be: kept in
    the system's temporary folder instead, or not to be made.
    """
    problems = []
    for path, render in files.items():
        try:
            text = render()
        except Exception as error:  # whatever it is, the other files are to be written
            log.debug("making %s failed", path, exc_info=True)
            problems.append(f"cannot make {path}: {type(error).__name__}: {_why(error)}")
            continue
        try:
            write_atomic(path, text)
        except EdgeVLMError as error:
            problems.append(f"{error}: {_set_aside(path.name, text)}")
    return problems


def _set_aside(name: str, text: str) -> str:
    try:
        folder = Path(tempfile.mkdtemp(prefix="edgevlm-kept-"))
        write_atomic(folder / name, text)
    except (OSError, EdgeVLMError) as error:
        return f"nor can it be kept elsewhere ({_why(error)})"
    return f"it is kept as {folder / name}"


def _probe(path: Path) -> None:
    """Raise `EdgeVLMError` when nothing can be written beside `path`."""
    try:
        target = path.resolve()
        above = next(parent for parent in target.parents if parent.exists())
        _create(above / target.name, _PROBE).unlink()
    except (OSError, ValueError, RuntimeError) as error:
        raise EdgeVLMError(f"cannot write {str(path)!r}: {_why(error)}: choose another place") from error


def _create(target: Path, data: bytes) -> Path:
    """A new file beside `target` with `data` in it, on the disk. Raises `OSError`."""
    partial = target.with_name(f".edgevlm-{secrets.token_hex(8)}.partial")
    try:
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise  # another's, however unlikely
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _why(error: Exception) -> str:
    """What an error says, without the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
