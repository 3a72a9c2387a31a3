"""Rooms and circles: the folders of the three distributions, who imports whom, and whether imports run in a circle.

    python -m tools.rooms

Exits with 1 when modules, or the rooms of one distribution, import each other in a circle, or a room is too full.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = {"edgevlm_runtime": "runtime", "edgevlm_export": "export", "edgevlm": "."}
MOST_FILES = 14
"""In one room: what a person takes in at a glance."""

Arrows = dict[str, set[str]]


def modules(package: str) -> Arrows:
    """Every module of a package with the modules of the same package that it imports."""
    graph = grimp.build_graph(package, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def room(module: str) -> str:
    """The room a module stands in: the folder right below its package, or the module itself."""
    return ".".join(module.split(".")[:2])


def rooms(arrows: Arrows) -> Arrows:
    """The same arrows between rooms; the package's own face (`__init__`) is not a room."""
    found: Arrows = {room(module): set() for module in arrows if "." in module}
    for module, targets in arrows.items():
        if "." in module:
            found[room(module)] |= {room(target) for target in targets if "." in target} - {room(module)}
    return found


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups that import each other: strongly connected components of more than one (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in arrows.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def crowded() -> dict[str, int]:
    """Folders with more than `MOST_FILES` Python files, `__init__.py` not counted."""
    counts: Counter[str] = Counter()
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            if path.name != "__init__.py":
                counts[str(path.parent.relative_to(ROOT))] += 1
    return {folder: count for folder, count in counts.items() if count > MOST_FILES}


def main() -> int:
    """Print the picture; 1 when something in it is wrong."""
    wrong: list[str] = []
    for package in PACKAGES:
        arrows = modules(package)
        between = rooms(arrows)
        print(f"{package}: {len(arrows)} modules, {len(between)} rooms, {sum(map(len, between.values()))} arrows")
        for name in sorted(between):
            targets = ", ".join(sorted(target.partition(".")[2] for target in between[name]))
            print(f"  {name.partition('.')[2]:16} -> {targets or '-'}")
        wrong += [f"modules in a circle: {', '.join(group)}" for group in circles(arrows)]
        wrong += [f"rooms in a circle: {', '.join(group)}" for group in circles(between)]
    wrong += [f"crowded: {folder} has {count} files" for folder, count in crowded().items()]
    print("\n".join(wrong) or "No circle, no crowd.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
