"""Imported first, this lets torchvision be imported beside a CPU build of torch (Makefile's TIMM has it do so).

Its wheels are for CUDA builds: the library that registers its operators does not load, and then the import fails where
Python code adds to these operators. They are declared here, as far as that code names them; nobody calls one.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch


def declare() -> None:
    """Declare the operators; nothing where there is no torchvision, or one whose library loads."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    library = next(folder.glob("_C*.so"), None)
    try:
        torch.ops.load_library(library or folder / "none")
    except OSError:
        source = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
        named = {
            "nms",
            "qnms",
            *re.findall(r'register_meta\("(\w+)"', source),
            *re.findall(r"torchvision::(\w+)", source),
        }
        for name in sorted(named):
            LIBRARY.define(f"{name}(Tensor x) -> Tensor")


LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
declare()
