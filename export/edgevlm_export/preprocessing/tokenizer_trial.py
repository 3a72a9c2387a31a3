"""Tries a checkpoint's tokenizer in a process of its own: it may panic, abort, or never end.

The tokenizers library is native code that trusts its file: one that is wrong ends the process it is loaded in, or keeps
it busy without end, and no exception handler of ours sees it. In a process with bounds on time and memory it ends that.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from pathlib import Path

from edgevlm_export.checkpoints.json_files import VOCABULARY_BYTES
from edgevlm_export.preprocessing import tokenizer_child
from edgevlm_runtime import child
from edgevlm_runtime.errors import CheckpointError, reason
from edgevlm_runtime.reading import MIB, read_bytes, why

LARGEST = VOCABULARY_BYTES
"""Bytes of a tokenizer.json."""
SECONDS = 60
"""Processor time; the largest that are known take two."""
WALL_SECONDS = 600
BASE_MEMORY = 2048 * MIB
MEMORY_PER_BYTE = 64
"""Address space, over `BASE_MEMORY`, per byte of the file."""


def check_file(path: Path) -> None:
    """Raise `CheckpointError` when loading or using the tokenizer.json at `path` would end or hold up this process."""
    try:
        data = read_bytes(path, LARGEST)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {why(error)}") from error
    check(data, path)


def check(data: bytes, where: Path) -> None:
    """Likewise for a tokenizer's JSON. `where` is named in the error."""
    found = _tried(data)
    if found is not None:
        raise CheckpointError(
            f"tokenizer not usable: {where}: {found}: take tokenizer.json from the original checkpoint"
        )


@functools.lru_cache(maxsize=4)
def _tried(data: bytes) -> str | None:
    """What is wrong with it, None where nothing is."""
    memory = BASE_MEMORY + MEMORY_PER_BYTE * len(data)
    quiet = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    try:
        done = child.run([tokenizer_child.__file__, SECONDS, memory], WALL_SECONDS, data=data, env=quiet)
    except subprocess.TimeoutExpired:
        return f"it takes more than {WALL_SECONDS} s for a few sentences"
    return _verdict(done.returncode, done.stdout, memory)


def _verdict(code: int, said: str, memory: int) -> str | None:
    if code == 0:
        return None
    if code == tokenizer_child.PANICKED:
        return f"the tokenizers library panics on it ({reason(ValueError(said))})"
    if "SIGXCPU" in _signal(code):
        return f"it takes more than {SECONDS} s for a few sentences"
    return f"the tokenizers library dies on it ({_signal(code)}; more than {memory // MIB} MiB of memory?)"


def _signal(code: int) -> str:
    """An exit status in words."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
