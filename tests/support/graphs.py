"""A graph file alone, as an engine is asked to load it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import GraphInfo
from edgevlm_runtime.engines.base import GraphRequest


def alone(file: Path) -> GraphRequest:
    """The graph in `file`, of a bundle that has nothing else."""
    graph = GraphInfo(file.name, (), (), "fp32", 0, 0)
    manifest: Any = SimpleNamespace(graphs={file.stem: graph}, files={file.name: None})
    return GraphRequest(Bundle(file.parent, manifest, ""), file.stem)
