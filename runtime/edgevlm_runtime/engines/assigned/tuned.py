"""What `edgevlm tune` found out on this machine: which engine each graph runs on fastest, and in which chunks a prompt.

One file in the user's cache folder for a bundle, a processor and a number of threads, written in one step. It holds
what it was measured with; where that is another by now it is not used, and that is said. A seal tells a file that was
changed since, for an engine is only there when it passed the bundle's self-test.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec

from edgevlm_runtime._version import __version__
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.engines.cores import graph_threads
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_json
from edgevlm_runtime.saving import check_file, write_atomic

log = logging.getLogger(__name__)

_FOLDER = "edgevlm/tuning"
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured."""

    engines: dict[str, str] = field(default_factory=dict)
    """The fastest engine of each graph (`words`); empty where engines were not compared."""
    identities: dict[str, str] = field(default_factory=dict)
    """`Engine.identity` of each of them when it was measured."""
    prefill_chunks: dict[str, Annotated[int, msgspec.Meta(ge=1)]] = field(default_factory=dict)
    """The fastest chunk of a prompt, by the identity of the decoder's engine."""
    runtime: str = __version__
    """Version of edgevlm-runtime."""
    seal: str = ""
    """sha256 of the rest."""

    @property
    def current(self) -> Tuned:
        """The same; nothing, where another version of edgevlm-runtime measured it."""
        return self if self.runtime == __version__ else Tuned()

    def sealed(self) -> Tuned:
        """The same, with the seal that belongs to it."""
        return replace(self, seal=hashlib.sha256(msgspec.json.encode(replace(self, seal=""))).hexdigest())


def key(bundle_digest: str, threads: int) -> str:
    """Names what a measurement holds for: this bundle and number of threads, on this processor."""
    return hashlib.sha256("\n".join((bundle_digest, str(threads), _processor())).encode()).hexdigest()[:32]


def key_of(bundle: Bundle, threads: int | None) -> str:
    """`key` for a bundle that is loaded with so many `threads` (`RuntimeOptions.threads`)."""
    return key(bundle.content_digest, graph_threads(threads))


def recall(name: str) -> Tuned | None:
    """What was measured under this key, or None; a damaged or changed file counts as none, and is told."""
    try:
        file = _file(name)
        found = read_json(file, Tuned, "tuning file")
    except (FileNotFoundError, RuntimeError):  # RuntimeError: this user has no home folder
        return None
    except EdgeVLMError as error:
        log.warning("damaged tuning file, not used: %s", error)
        return None
    if found.sealed() != found:
        log.warning("the tuning file was changed since `edgevlm tune` wrote it, not used: %s", file)
        return None
    return found


def known(name: str) -> Tuned:
    """What this version of edgevlm-runtime measured under this key; nothing, where it did not."""
    return (recall(name) or Tuned()).current


def check_place(name: str) -> None:
    """Before anything is measured: it can be kept. Raises `EdgeVLMError`."""
    with _keeping():
        check_file(_file(name), force=True)


def remember(name: str, tuned: Tuned) -> Path:
    """Keep a measurement for `recall`. Raises `EdgeVLMError` when the cache folder cannot be written."""
    with _keeping():
        file = _file(name)
        write_atomic(file, msgspec.json.format(msgspec.json.encode(tuned.sealed()), indent=1) + b"\n")
    return file


def forget(name: str) -> Path | None:
    """Remove what was kept; the file, or None where nothing was. Raises `EdgeVLMError` when it cannot be removed."""
    try:
        file = _file(name)
        file.unlink()
    except (FileNotFoundError, RuntimeError):
        return None
    except OSError as error:
        raise EdgeVLMError(f"cannot remove {file}: {error.strerror or error}: remove it yourself") from error
    return file


@contextmanager
def _keeping() -> Iterator[None]:
    """Within, what keeps a measurement from being kept is an `EdgeVLMError` that says what to do."""
    try:
        yield
    except (EdgeVLMError, RuntimeError) as error:  # RuntimeError: this user has no home folder
        raise EdgeVLMError(f"tuning cannot be kept: {error}: set XDG_CACHE_HOME to a folder of yours") from error


def _file(name: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / _FOLDER / f"{name}.json"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(told, "") or platform.processor() or platform.machine()
