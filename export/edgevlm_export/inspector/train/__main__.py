"""``python -m edgevlm_export.inspector.train --out DIR``: train `inspector` from nothing, or resume."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import fields
from pathlib import Path

from edgevlm_runtime import child

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "2",
}
"""glibc reads these before main. Without them each step hands its memory back to the kernel and faults it in again,
which made a step several times slower."""


def _arguments() -> argparse.Namespace:
    from edgevlm_export.inspector.train.schedule import Schedule

    parser = argparse.ArgumentParser(prog="python -m edgevlm_export.inspector.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for state.pt, curve.csv and checkpoint/")
    parser.add_argument(
        "--data", type=Path, help="folder with questions.jsonl to learn from instead of the drawn parts"
    )
    parser.add_argument("--start", type=Path, help="checkpoint to begin with instead of random weights")
    parser.add_argument("--until", type=int, help="stop at this step of the schedule (run again to continue)")
    for field in fields(Schedule):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if os.environ.get("MALLOC_ARENA_MAX") != ALLOCATOR["MALLOC_ARENA_MAX"]:
        child.become(["-m", "edgevlm_export.inspector.train", *sys.argv[1:]], **ALLOCATOR)
    from edgevlm_export.inspector.train.loop import Trainer
    from edgevlm_export.inspector.train.schedule import Schedule

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    chosen = {field.name: getattr(arguments, field.name) for field in fields(Schedule)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(Schedule(**chosen), arguments.out, arguments.data, arguments.start)
    trainer.resume()
    trainer.train(arguments.until)


if __name__ == "__main__":
    main()
