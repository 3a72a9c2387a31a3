"""The Hugging Face hub and its cache on this machine: models--ORG--NAME/snapshots/COMMIT, refs/main."""

from __future__ import annotations

import logging
from pathlib import Path

from edgevlm_export.checkpoints.weights.files import weight_files
from edgevlm_runtime.errors import CheckpointError, reason
from edgevlm_runtime.reading import read_text

logger = logging.getLogger(__name__)

DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What an export needs of a repository."""
DOWNLOADED_LAST = ("pytorch_model*.bin",)
"""What it needs besides where there are no safetensors; most repositories hold the same weights in both."""
_CACHED = "models--"
_REF_BYTES = 4096
"""Far more than the name of a commit has."""


def download(repo_id: str) -> Path:
    """A repository's folder in the cache. Raises `CheckpointError`."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=list(DOWNLOADED)))
        try:
            weight_files(folder)
        except CheckpointError:
            folder = Path(snapshot_download(repo_id, allow_patterns=[*DOWNLOADED, *DOWNLOADED_LAST]))
        return folder
    except Exception as error:  # the hub client raises a different type for each way a network can be missing
        logger.debug("download failed", exc_info=True)
        raise CheckpointError(
            f"cannot download {repo_id} ({reason(error)}): copy the checkpoint here by other means and pass its folder"
        ) from error


def snapshot(folder: Path) -> Path:
    """`folder`, or the checkpoint within where it is a model's folder of the hub's cache: the one that refs/main names,
    or else the only one. Raises `CheckpointError` where there is none, or several."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    if folder.name == "snapshots" and folder.parent.name.startswith(_CACHED):
        folder = folder.parent
    snapshots = folder / "snapshots"
    if not folder.name.startswith(_CACHED) or not snapshots.is_dir():
        return folder
    found = {path.name: path for path in sorted(snapshots.iterdir()) if path.is_dir()}
    chosen = found.get(_main(folder)) or (next(iter(found.values())) if len(found) == 1 else None)
    if chosen is None:
        raise CheckpointError(
            f"a folder of the hub's cache with {len(found)} snapshots: {folder}: "
            + (f"pass one of {', '.join(map(str, found.values()))}" if found else "download the model again")
        )
    logger.info("a folder of the hub's cache: taking %s", chosen)
    return chosen


def readable_name(folder: Path) -> str:
    """The name of the checkpoint in `folder`: its repository's where it lies in the hub's cache."""
    for path in (folder, folder.parent.parent):
        if path.name.startswith(_CACHED) and (path is folder or folder.parent.name == "snapshots"):
            return path.name.rpartition("--")[2]
    return folder.name


def _main(folder: Path) -> str:
    try:
        return read_text(folder / "refs" / "main", _REF_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        return ""
