"""A bundle appears whole or not at all: it is written to a hidden sibling and renamed when complete."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import psutil

from edgevlm_runtime.bundle.manifest import MANIFEST_NAME
from edgevlm_runtime.errors import OutputError, reason

logger = logging.getLogger(__name__)

UNSEALED = "manifest.json.unsealed"
"""The manifest's name until its folder is in place: a folder without `manifest.json` is no bundle to any runtime."""
_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<kind>partial|replaced)-(?P<pid>\d+)(-scratch-\w+)?$")


def check_output(output: Path, force: bool) -> None:
    """Refuse an output that exists (unless `force`) or whose parent cannot be written. Raises `OutputError`."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise OutputError(f"output exists and is not a folder: {output}: choose another --output")
    if output.exists() and not force:
        raise OutputError(f"output folder exists: {output}: choose another --output, or replace it with --force")
    if output.exists() and any(output.iterdir()) and not _is_bundle(output):
        raise OutputError(f"output folder exists and is not a bundle: {output}: --force replaces bundles only")
    parent = existing_parent(output)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write here: {parent}: choose another --output")


def existing_parent(output: Path) -> Path:
    """The nearest folder above `output` that is there already."""
    return next((parent for parent in output.absolute().parents if parent.exists()), Path("/"))


@contextmanager
def atomic_folder(output: Path, force: bool) -> Iterator[Path]:
    """A folder to write into; on success it takes `output`'s place and is sealed, on any failure it is removed."""
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    made = [parent for parent in output.absolute().parents if not parent.exists()]
    try:
        _make(partial)
        yield partial
        if partial.exists():  # else `keep_aside` has taken it
            check_output(output, force)  # another export may have finished meanwhile
            _move(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write the bundle: {output}: {reason(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # only while it is empty
                parent.rmdir()


def _make(partial: Path) -> None:
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except ValueError as error:  # a name that no file system takes; a ValueError from further on is no such thing
        raise OutputError(f"cannot write the bundle: {partial.name!r}: {reason(error)}") from error


def clear(partial: Path) -> None:
    """Empty a folder that is being filled, to fill it anew; what is still mapped from old files stays readable."""
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def seal(folder: Path) -> None:
    """Make a finished folder a bundle, in one step that cannot be interrupted halfway."""
    (folder / UNSEALED).replace(folder / MANIFEST_NAME)


def keep_aside(partial: Path, output: Path) -> Path:
    """Move a finished bundle beside `output`, as NAME.drifted, in place of an older one there. Returns where.

    A folder of that name that is no bundle stays as it is; the name then gets a number.
    """
    places = (output.parent / f"{output.name}.drifted{suffix}" for suffix in chain([""], map("-{}".format, count(2))))
    aside = next(place for place in places if not place.exists() or _is_bundle(place))
    shutil.rmtree(aside, ignore_errors=True)
    partial.rename(aside)
    seal(aside)
    return aside


def _is_bundle(path: Path) -> bool:
    """Sealed, or finished but for the seal when its export was killed."""
    return (path / MANIFEST_NAME).is_file() or (path / UNSEALED).is_file()


def _move(partial: Path, output: Path) -> None:
    """Rename into place and seal; an older bundle steps aside first, and comes back if the rename fails."""
    aside = output.parent / f".{output.name}.replaced-{os.getpid()}"
    if output.exists():
        output.rename(aside)
    try:
        partial.rename(output)
    except OSError:
        if aside.exists():
            aside.rename(output)
        raise
    seal(output)
    shutil.rmtree(aside, ignore_errors=True)


def recover(output: Path) -> None:
    """Put in order what exports to `output` left when they were killed.

    Half-written folders go; a bundle that had stepped aside for one that never came takes its place again.
    """
    siblings = sorted(output.parent.iterdir()) if output.parent.is_dir() else []
    for sibling in siblings:
        match = _LEFTOVER.match(sibling.name)
        if match is None or match["name"] != output.name or psutil.pid_exists(int(match["pid"])):
            continue
        if match["kind"] == "replaced" and not (output / MANIFEST_NAME).is_file():
            logger.info("bringing back the bundle that an interrupted export replaced: %s", output)
            shutil.rmtree(output, ignore_errors=True)
            sibling.rename(output)
        else:
            logger.info("removing what an interrupted export left: %s", sibling)
            shutil.rmtree(sibling, ignore_errors=True)
