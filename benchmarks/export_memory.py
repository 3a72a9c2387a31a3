"""Peak memory of an export, on a checkpoint with the exact shape of a real model and random weights.

    python -m benchmarks.export_memory --shape llava-1.5-7b --precision fp16 --work DIR

The checkpoint is written as sharded bfloat16 safetensors under DIR (about 14 GB for the 7B shape, and as much again for
the bundle), exported in a process of its own, and both are removed. The row printed is that process's own peak resident
set; `--limit-gib` makes the command fail (exit code 1) above a limit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.shapes import SHAPES, make_checkpoint
from edgevlm_runtime import child


def measure(shape: str, precision: str, work: Path) -> dict[str, object]:
    """Make, export, remove; returns the row."""
    checkpoint, bundle = work / shape, work / f"{shape}-{precision}"
    try:
        started = time.monotonic()
        parameters = make_checkpoint(checkpoint, shape)
        made = time.monotonic() - started
        size = sum(path.stat().st_size for path in checkpoint.iterdir())
        command = ["-m", "edgevlm", "export", checkpoint, f"--{precision}", "-o", bundle]
        with child.start([*command, "--no-self-test", "--no-certificate", "--json"], stdout=subprocess.PIPE) as process:
            stdout, _ = process.communicate()
        if process.returncode != 0:
            sys.exit(process.returncode)
        report = json.loads(stdout)
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
        shutil.rmtree(bundle, ignore_errors=True)
    return {
        "shape": shape,
        "precision": precision,
        "parameters": parameters,
        "checkpoint_bytes": size,
        "bundle_bytes": report["bytes_total"],
        "peak_rss_gib": round(report["peak_rss_mib"] / 1024, 2),
        "export_seconds": round(report["seconds"], 1),
        "making_the_checkpoint_seconds": round(made, 1),
    }


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llava-1.5-7b", show_default=True)
@click.option("--precision", default="fp16", show_default=True)
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), help="Where checkpoint and bundle go for a while."
)
@click.option("--limit-gib", type=float, help="Fail above this peak.")
def main(shape: str, precision: str, work: Path | None, limit_gib: float | None) -> None:
    """Measure the peak memory of an export."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        row = measure(shape, precision, Path(folder))
    print(json.dumps(row, indent=2))
    if limit_gib is not None and float(str(row["peak_rss_gib"])) > limit_gib:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
