"""A bundle appears whole or not at all: it is written to a hidden sibling and renamed when complete.

`reserve` is the one door to an output folder, for exports and for `edgevlm compile`. Who holds a folder's lock
(`edgevlm_runtime.disk.locks`) is the only one to write there: whatever it finds beside it is what a dead process left.

    .NAME.lock             held while somebody writes to NAME
    .NAME.partial-TOKEN    being written; TOKEN is random
    .NAME.replaced-TOKEN   the older bundle, from when it steps aside until the new one is sealed
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from edgevlm_runtime.bundle.manifest import MANIFEST_NAME
from edgevlm_runtime.disk.locks import exclusive
from edgevlm_runtime.errors import OutputError, reason

logger = logging.getLogger(__name__)

UNSEALED = "manifest.json.unsealed"
"""The manifest's name until its folder is in place: a folder without `manifest.json` is no bundle to any runtime."""
_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<kind>partial|replaced)-(?P<token>[0-9a-f]+)(-scratch-\w+)?$")


def _check_place(output: Path) -> None:
    """Refuse what is no folder, and a folder whose parent cannot be written. Raises `OutputError`."""
    try:
        if output.is_symlink() or (output.exists() and not output.is_dir()):
            raise OutputError(f"output exists and is not a folder: {output}: choose another --output")
        parent = existing_parent(output)
    except (OSError, ValueError) as error:
        raise OutputError(f"not a folder's name: {str(output)!r}: {reason(error)}") from error
    if output.name in ("", ".."):
        raise OutputError(f"not a folder's name: {str(output)!r}: choose another --output")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write here: {parent}: choose another --output")


def existing_parent(output: Path) -> Path:
    """The nearest folder above `output` that is there already."""
    return next((parent for parent in output.absolute().parents if parent.exists()), Path("/"))


@dataclass(frozen=True, slots=True)
class Place:
    """An output folder that is ours for now. `reserve` makes it."""

    output: Path
    force: bool
    token: str

    @property
    def partial(self) -> Path:
        """Where the bundle is written."""
        return self.output.parent / f".{self.output.name}.partial-{self.token}"

    @property
    def replaced(self) -> Path:
        """Where an older bundle steps aside."""
        return self.output.parent / f".{self.output.name}.replaced-{self.token}"

    def check(self) -> None:
        """Refuse a folder that exists, unless it is a bundle that `force` replaces. Raises `OutputError`."""
        _check_place(self.output)
        if not self.output.exists():
            return
        if not self.force:
            raise OutputError(
                f"output folder exists: {self.output}: choose another --output, or replace it with --force"
            )
        if any(self.output.iterdir()) and not _is_bundle(self.output):
            raise OutputError(f"output folder exists and is not a bundle: {self.output}: --force replaces bundles only")

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """A folder to write into; on success it takes `output`'s place and is sealed, on any failure it is removed.

        Raises `OutputError`.
        """
        try:
            self.partial.mkdir()
            yield self.partial
            if self.partial.exists():  # else `keep_aside` has taken it
                self.check()  # somebody may have put something there meanwhile
                _flush(self.partial)
                self._move()
        except OSError as error:
            raise OutputError(f"cannot write the bundle: {self.output}: {reason(error)}") from error
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    def keep_aside(self, kind: str) -> Path:
        """Move a finished bundle beside `output`, as NAME.KIND, in place of an older one there. Returns where.

        A folder of that name that is no bundle stays as it is; the name then gets a number.
        """
        suffixes = chain([""], map("-{}".format, count(2)))
        places = (self.output.parent / f"{self.output.name}.{kind}{suffix}" for suffix in suffixes)
        aside = next(place for place in places if not place.exists() or _is_bundle(place))
        _flush(self.partial)
        shutil.rmtree(aside, ignore_errors=True)
        self.partial.rename(aside)
        seal(aside)
        return aside

    def _move(self) -> None:
        """Rename into place and seal; an older bundle steps aside first, and comes back unless all of that is done."""
        if self.output.exists():
            self.output.rename(self.replaced)
        try:
            self.partial.rename(self.output)
            seal(self.output)
        except BaseException:
            if not self.partial.exists():
                self.output.rename(self.partial)
            if self.replaced.exists():
                self.replaced.rename(self.output)
            raise
        _sync(self.output)
        _sync(self.output.parent)
        shutil.rmtree(self.replaced, ignore_errors=True)


@contextmanager
def reserve(output: Path, force: bool) -> Iterator[Place]:
    """Be the only one to write to `output`, from before the work begins; what dead processes left is put in order.

    Raises `OutputError` at once when another writes there, or when nothing can be written there.
    """
    _check_place(output)
    made = [parent for parent in output.absolute().parents if not parent.exists()]
    place = Place(output, force, secrets.token_hex(8))
    try:
        with ExitStack() as stack:
            _lock(place, stack)
            yield place
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # only while it is empty
                parent.rmdir()


def _lock(place: Place, stack: ExitStack) -> None:
    output = place.output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if stack.enter_context(exclusive(output.parent / f".{output.name}.lock", place.token)):
            _recover(output)
        else:
            logger.warning("the file system has no locks: make no other export to %s meanwhile", output)
    except BlockingIOError as error:
        raise OutputError(
            f"another export or compile writes here: {output}: wait until it is done, or choose another folder"
        ) from error
    except (OSError, ValueError) as error:  # a ValueError: a name that no file system takes
        raise OutputError(f"cannot write here: {str(output)!r}: {reason(error)}") from error


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


def _is_bundle(path: Path) -> bool:
    """Sealed, or finished but for the seal when its export was killed."""
    return (path / MANIFEST_NAME).is_file() or (path / UNSEALED).is_file()


def _flush(folder: Path) -> None:
    """Have everything in `folder` on the disk before an older bundle goes: power may fail."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # there, folders cannot be opened
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _recover(output: Path) -> None:
    """Put in order what writers to `output` left when they were killed; the caller holds the lock.

    Half-written folders go; a new bundle that was in place is sealed; an older one that had stepped aside for one that
    never came takes its place again.
    """
    if (output / UNSEALED).is_file() and not (output / MANIFEST_NAME).is_file():
        seal(output)
    for sibling in sorted(output.parent.iterdir()):
        match = _LEFTOVER.match(sibling.name)
        if match is None or match["name"] != output.name:
            continue
        if match["kind"] == "replaced" and not _is_bundle(output):
            if output.exists():
                output.rmdir()  # an OSError for what somebody put there meanwhile
            logger.info("bringing back the bundle that an interrupted export replaced: %s", output)
            sibling.rename(output)
        else:
            logger.info("removing what an interrupted export left: %s", sibling)
            shutil.rmtree(sibling, ignore_errors=True)
