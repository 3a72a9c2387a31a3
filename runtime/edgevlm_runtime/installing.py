"""The lines that tell a user what to install: they work for the Python that runs, and from where edgevlm came.

    pip_install("edgevlm[export]")
    from an index        pip install 'edgevlm[export]'
    from a clone         pip install /srv/edgevlm/export
    from git             pip install 'edgevlm-export @ git+https://...@1a2b3c#subdirectory=export'
    pip of another Python comes first on PATH    /srv/venv/bin/python -m pip install ...

An index may know our names for something of somebody else's. Where pip got us from stands in `direct_url.json`
(PEP 610). This module imports the standard library alone, for it speaks when other packages are missing.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edgevlm_runtime._version import __version__

FOLDERS = {"edgevlm": "", "edgevlm-runtime": "runtime", "edgevlm-export": "export"}
"""Our distributions, and where each is in the repository."""
IN_REPOSITORY = {
    "edgevlm[export]": ("edgevlm-export", ""),
    "edgevlm[camera]": ("edgevlm", "[camera]"),
    "edgevlm[opcua]": ("edgevlm", "[opcua]"),
    "edgevlm-export[tensorrt-rtx]": ("edgevlm-export", "[tensorrt-rtx]"),
    "edgevlm-export[fast-vlm]": ("edgevlm-export", "[fast-vlm]"),
    "edgevlm-runtime[openvino]": ("edgevlm-runtime", "[openvino]"),
    "edgevlm-runtime[structured]": ("edgevlm-runtime", "[structured]"),
}
"""What hints ask for of our own: in the repository the distribution that brings it, and that one's extra."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where our distributions came from; an index, unless one of the fields says otherwise."""

    clone: Path | None = None
    """The folder of a clone; one that is gone is replaced by the current folder."""
    editable: bool = False
    git: str = ""
    """`git+URL@COMMIT`, as pip writes it."""
    wheels: str = ""
    """URL of the folder that a wheel came from."""

    def words(self, distribution: str, extra: str = "") -> tuple[str, ...]:
        """The words after `pip install` that get one of `FOLDERS` from here."""
        folder = FOLDERS[distribution]
        if self.clone is not None:
            path = f"{self.clone / folder if self.clone.is_absolute() else f'./{folder}'}{extra}"
            return ("-e", path) if self.editable else (path,)
        if self.git:
            return (f"{distribution}{extra} @ {self.git}{folder and f'#subdirectory={folder}'}",)
        if self.wheels:
            wheel = f"{distribution.replace('-', '_')}-{__version__}-py3-none-any.whl"
            return (f"{distribution}{extra} @ {self.wheels}/{wheel}",)
        return (f"{distribution}{extra}",)


def pip_install(*requirements: str) -> str:
    """The line that installs these: those of `IN_REPOSITORY` from where edgevlm came, others by their name."""
    origin, words, ours = _origin(), list[str](), False
    for requirement in requirements:
        known = IN_REPOSITORY.get(requirement) if origin != Origin() else None
        words += origin.words(*known) if known else (requirement,)
        ours = ours or known is not None
    where = "in a clone of edgevlm, " if ours and origin.clone == Path() else ""
    return f"{where}{_pip()} install {shlex.join(words)}"


def pip_replace(old: str, *new: str) -> str:
    """What takes a package away before those that would overwrite its files come."""
    return f"{_pip()} uninstall {old}, then {pip_install(*new)}"


def upgrade() -> str:
    """What brings a newer edgevlm: all of its distributions that are here, which share one version."""
    origin, here = _origin(), [name for name in FOLDERS if _direct_url(name) is not None]
    if origin.wheels:
        return f"install newer wheels of {', '.join(here)}"
    latest = replace(origin, git=origin.git.rpartition("@")[0])
    words = shlex.join([word for name in here or ("edgevlm-runtime",) for word in latest.words(name)])
    if origin.clone is None:
        return f"{_pip()} install --upgrade {words}"
    return f"git -C {shlex.quote(str(origin.clone))} pull, then {_pip()} install {words}"


def _origin() -> Origin:
    for distribution, folder in FOLDERS.items():
        found = _direct_url(distribution) or {}
        url, git, folder_info = str(found.get("url", "")), found.get("vcs_info"), found.get("dir_info")
        if isinstance(git, dict):
            return Origin(git=f"{git.get('vcs')}+{url}@{git.get('commit_id')}")
        if isinstance(folder_info, dict):
            path = Path(url2pathname(urlsplit(url).path))
            clone = path.parent if folder else path
            whole = all((clone / other / "pyproject.toml").is_file() for other in FOLDERS.values())
            return Origin(clone if whole else Path(), editable=whole and bool(folder_info.get("editable")))
        if url.endswith(".whl"):
            return Origin(wheels=url.rpartition("/")[0])
    return Origin()


def _direct_url(distribution: str) -> dict[str, Any] | None:
    """What pip noted of where it came from, {} when it came from an index; None when it is not installed."""
    try:
        text = metadata.distribution(distribution).read_text("direct_url.json")
        found = json.loads(text) if text else {}
    except metadata.PackageNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _pip() -> str:
    """pip of the Python that runs: by its name alone where a shell would find that one."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sysconfig.get_path("scripts")):
        return "pip"
    return f"{shlex.quote(sys.executable or 'python')} -m pip"
