"""`python -m tests.arm64`: `inspector` answers on emulated Arm cores as it does on this machine, or this fails.

A bundle of each precision is exported here, asked on this machine, and asked again in emulated processes of a
Cortex-A72 and a Cortex-A76, which run the published aarch64 wheels. Exit codes: 0 all agree, 1 something differs or
broke, 2 it could not be checked. Emulation says nothing about speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.arm64.checking import Checked, check
from tests.arm64.commands import CannotCheckError, CommandError
from tests.arm64.comparing import TOLERANCE
from tests.arm64.cores import CORES
from tests.support.repository import ROOT

PRECISIONS = ("fp32", "fp16", "int8", "int4", "int8-fast", "int4-fast")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print a table; the exit code."""
    options = _options(arguments)
    try:
        checked = check(options.folder.resolve(), options.precision, options.pictures)
    except (CannotCheckError, CommandError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2 if isinstance(error, CannotCheckError) else 1
    _print_table(checked)
    _print_differences(checked)
    absent = [core.name for core in CORES if core not in {row.core for row in checked}]
    if absent:
        print(f"Error: this QEMU does not know {', '.join(absent)}: install 7.1 or newer", file=sys.stderr)
    return 1 if any(row.found for row in checked) else 2 if absent else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.arm64", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".arm64", help="keeps the arm64 root (default: .arm64)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["int8"])
    parser.add_argument("--pictures", type=int, default=4, help="drawn parts, eight questions about each (default: 4)")
    options = parser.parse_args(arguments)
    if options.pictures < 1:
        parser.error(f"--pictures must be 1 or more, not {options.pictures}")
    return options


def _print_table(checked: list[Checked]) -> None:
    """One line per bundle and core; gaps are the largest between probabilities of tokens, and of choices."""
    head = f"{'bundle':8}{'core':12}{'answers':>9}{'verdicts':>10}{'differ':>8}{'token gap':>12}{'choice gap':>12}"
    for number, row in enumerate(checked):
        here = row.reference
        if number == 0:
            as_here = f"tokens as on this {here.machine}, probabilities to {TOLERANCE}"
            print(f"inspector, onnxruntime {here.onnxruntime}: {as_here}\n\n{head}{'seconds':>9}")
        token, choice = (f"{gap:.6f}" for gap in row.gaps) if row.gaps else ("-", "-")
        counts = f"{len(here.answers):>9}{len(here.verdicts):>10}{len(row.found):>8}"
        print(f"{row.precision:8}{row.core.name:12}{counts}{token:>12}{choice:>12}{row.seconds:>9.1f}")


def _print_differences(checked: list[Checked]) -> None:
    for row in checked:
        for difference in row.found:
            print(f"\n{row.precision} on {row.core.name}, {difference.where}")
            print(f"  should be: {difference.here}\n  is:        {difference.there}")


if __name__ == "__main__":
    sys.exit(main())
