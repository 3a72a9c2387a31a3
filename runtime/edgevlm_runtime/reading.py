"""How the runtime reads files: regular ones only, up to a size, and JSON by its type.

    data = read_bytes(path, limit=1 << 20)
    tuning = read_json(path, Tuning, "tuning file")

A name may stand for anything: a pipe blocks whoever opens it, a device may never end. Links to regular files are
followed. `OSError` is what the first three raise, for everything that keeps a file from being read; `read_json` and
`decode_json` raise the caller's own kind of error, in one line that names file and field.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import EdgeVLMError, one_line

MIB = 1 << 20
JSON_BYTES = 8 * MIB
"""A file of JSON read whole; decoded it may take thirty times as much."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_T = TypeVar("_T")
_KNOWN: set[Any] = set()
_LOOKING = threading.Lock()


def open_regular(path: str | os.PathLike[str]) -> FileIO:
    """Open a regular file for reading, unbuffered. Raises `OSError`, for other kinds of files too."""
    try:
        handle = os.open(path, _FLAGS)
    except ValueError as error:  # a zero byte, or half a surrogate pair, in the name
        raise FileNotFoundError(errno.ENOENT, f"no file can have this name ({error})", os.fspath(path)) from None
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"not a file but {_KINDS.get(kind, 'something else')}", os.fspath(path))
        return os.fdopen(handle, "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name, or a link to one, is there. Raises nothing."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):  # a zero byte, or half a surrogate pair, in the name
        return False


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The file's bytes. Raises `OSError`, for more than `limit` of them too; no more than that is ever read."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = _read(file, min(size, limit) + 1)  # one more: it may have grown since
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fspath(path))
    return data


def read_text(path: str | os.PathLike[str], limit: int, encoding: str = "utf-8") -> str:
    """The file's text. Raises `OSError` as `read_bytes` does, and for what is no such text."""
    try:
        return read_bytes(path, limit).decode(encoding)
    except UnicodeDecodeError as error:
        what = f"not a UTF-8 text ({error.reason} at byte {error.start})"
        raise OSError(errno.EILSEQ, what, os.fspath(path)) from None


def read_array(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """The one array of a `.npy` file, mapped read-only. Raises `OSError`, for what is none or is cut short too."""
    open_regular(path).close()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError, MemoryError, SyntaxError, RecursionError) as error:
        raise OSError(errno.EINVAL, f"not an array ({one_line(error)})", os.fspath(path)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise OSError(errno.EINVAL, "an archive, not an array", os.fspath(path))
    return np.asarray(array)


def read_json(
    path: str | os.PathLike[str],
    kind: type[_T],
    what: str,
    *,
    limit: int = JSON_BYTES,
    error: type[EdgeVLMError] = EdgeVLMError,
    remedy: str = "",
) -> _T:
    """The file's JSON as a `kind`; `what` it is, for the error. Raises `error`, with what can be done, `remedy`.

    A file that is not there raises `FileNotFoundError`, which callers mean different things by.
    """
    try:
        data = read_bytes(path, limit)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"cannot read {path}: {why(problem)}{_then(remedy)}") from problem
    return decode_json(data, kind, f"not a {what}: {path}", error=error, remedy=remedy)


def known(kind: type[_T]) -> type[_T]:
    """`kind`, of which msgspec knows everything. It looks at a type when it first decodes one, and a second thread that
    decodes one meanwhile crashes the process (0.22), so no type is looked at but here. Safe from any thread."""
    with _LOOKING:
        if kind not in _KNOWN:
            msgspec.json.Decoder(kind)
            _KNOWN.add(kind)
    return kind


def decode_json(
    data: bytes, kind: type[_T], complaint: str, *, error: type[EdgeVLMError] = EdgeVLMError, remedy: str = ""
) -> _T:
    """`data` as a `kind`. Raises `error`: the `complaint`, the field at fault and what is wrong with it, the remedy."""
    try:
        return msgspec.json.decode(data, type=known(kind))
    except UnicodeDecodeError as problem:
        raise error(f"{complaint}: it is not a UTF-8 text ({problem.reason}){_then(remedy)}") from problem
    except RecursionError as problem:
        raise error(f"{complaint}: it is nested too deeply{_then(remedy)}") from problem
    except (msgspec.MsgspecError, ValueError, MemoryError) as problem:
        raise error(f"{complaint}: {one_line(problem)}{_then(remedy)}") from problem


def why(error: OSError) -> str:
    """What an `OSError` says, without the file's name."""
    return error.strerror or one_line(error)


def _then(remedy: str) -> str:
    return f": {remedy}" if remedy else ""


def _read(file: FileIO, most: int) -> bytes:
    """Up to `most` bytes, in as many reads as it takes."""
    parts: list[bytes] = []
    while most > 0 and (part := file.read(min(most, 64 * MIB))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)
