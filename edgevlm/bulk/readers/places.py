"""Where inputs and pictures are: local paths, and addresses (`s3://...`), which fsspec opens."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import IO, Any, cast

from edgevlm_runtime.errors import EdgeVLMError, ImageError, reason
from edgevlm_runtime.reading import open_regular, why

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")


def is_address(place: str) -> bool:
    """Whether this is fsspec's to open, not a local path."""
    return _SCHEME.match(place) is not None


def is_folder(place: str) -> bool:
    """Whether a folder is there. Raises `EdgeVLMError` when that cannot be told."""
    if not is_address(place):
        try:
            return Path(place).is_dir()
        except ValueError:  # a zero byte in the name
            return False
    system, path = filesystem(place)
    try:
        return bool(system.isdir(path))
    except Exception as error:  # whatever a remote file system raises
        raise EdgeVLMError(f"cannot read {place}: {reason(error)}") from error


def filesystem(place: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it. Raises `EdgeVLMError`."""
    import fsspec

    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(place))
    except Exception as error:  # an unknown protocol, a package that is missing, a bad address
        raise EdgeVLMError(f"cannot open {place}: {reason(error)}") from error


def open_file(place: str) -> IO[bytes]:
    """A file to be read in order, or from any position. Raises `EdgeVLMError`."""
    if is_address(place):
        system, path = filesystem(place)
        try:
            return cast("IO[bytes]", system.open(path, "rb"))
        except Exception as error:  # whatever a remote file system raises
            raise EdgeVLMError(f"cannot read {place}: {reason(error)}") from error
    try:
        return io.BufferedReader(open_regular(place), 1 << 16)
    except OSError as error:
        raise EdgeVLMError(f"cannot read {place}: {why(error)}: choose another input") from error


def fetch(place: str, limit: int) -> bytes:
    """The bytes of a picture at an address, no more than `limit`. Raises `ImageError`."""
    try:
        with open_file(place) as file:
            data = file.read(limit + 1)
    except EdgeVLMError as error:
        raise ImageError(str(error)) from error
    except Exception as error:  # whatever a remote file system raises
        raise ImageError(f"cannot read {place}: {reason(error)}") from error
    if len(data) > limit:
        raise ImageError(f"image file too large (limit {limit} bytes): {place}")
    return data


def beside(table: str, name: str) -> str:
    """Where the picture is that a table calls `name`: paths are relative to the table's own folder."""
    if is_address(name):
        return name
    if is_address(table):
        head, _, path = table.partition("://")
        return f"{head}://{name}" if name.startswith("/") else f"{head}://{path.rpartition('/')[0]}/{name}"
    return str(Path(table).absolute().parent / name)
