"""Packages of other people, as pip leaves them, without pip."""

from __future__ import annotations

from pathlib import Path


def installed(site: Path, package: str, group: str, points: dict[str, str], **modules: str) -> Path:
    """Put a distribution into the folder `site`: its `modules` by name, and `points` of one entry-point group."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", "utf-8")
    lines = [f"[{group}]", *(f"{name} = {where}" for name, where in points.items()), ""]
    (folder / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    for name, code in modules.items():
        (site / f"{name}.py").write_text(code, "utf-8")
    return site
