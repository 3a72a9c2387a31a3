"""One process at a time: a file that the operating system locks for as long as its holder lives.

A process id says nothing: two containers have the same ones, and a system gives them out again. A lock is given back
by the kernel, however its holder ends, and everyone who sees the same file sees it: other containers, and through NFS
and SMB other machines. File systems that only pass files through (sshfs, some shares of virtual machines) may keep
locks to each machine.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK, errno.EWOULDBLOCK})
_MISSING = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
_TRIES = 100
"""The file may be removed by its last holder between being opened and being locked; it is opened again then."""


@contextmanager
def exclusive(path: Path, token: str) -> Iterator[bool]:
    """Hold the lock file `path`, which is there only as long as somebody holds it or was killed holding it.

    Yields False where the file system has no locks, and nobody is kept out. `token` tells people whose it is.
    Raises `BlockingIOError` when another holds it, `OSError` when the file cannot be made.
    """
    file, locked = _acquire(path)
    try:
        with suppress(OSError):  # opened for reading alone where it is another user's
            os.truncate(file, 0)
            os.write(file, f"{socket.gethostname()} {os.getpid()} {token}\n".encode())
        yield locked
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(file)
        if sys.platform == "win32":
            path.unlink(missing_ok=True)  # not possible while it was open


def _acquire(path: Path) -> tuple[int, bool]:
    """The opened file, and whether it is locked."""
    for _ in range(_TRIES):
        file = _open(path)
        try:
            locked = _locked(file, path)
        except OSError:
            os.close(file)
            raise
        if not locked or _is_at(file, path):
            return file, locked
        os.close(file)
    raise BlockingIOError(errno.EAGAIN, "the lock file comes and goes", str(path))


def _open(path: Path) -> int:
    flags = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, flags & ~os.O_CREAT | os.O_RDONLY)


def _locked(file: int, path: Path) -> bool:
    """Whether the file system has locks, in which case it is held now. Raises `BlockingIOError`."""
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, "held by another process", str(path)) from error
        if error.errno in _MISSING:
            return False
        raise
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether `path` still is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
