"""On PYTHONPATH, children that export find the traces of the run: `tests.support.traces.for_children`."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PLANNER = "edgevlm_export.planning.plan"
"""The module that plans an export: when it is there, what it traces with is replaced. Nothing is imported for it."""


class _Remembering(Loader):
    """Loads the planner, then has it remember."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        sys.path.append(str(Path(__file__).parents[3]))
        from tests.support import traces

        traces.remember()


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != PLANNER:
            return None
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None:
            spec.loader = _Remembering(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
