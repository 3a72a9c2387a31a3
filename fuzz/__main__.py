"""`python -m fuzz [TARGET...] [--seconds N]`: every target in turn; exits with 1 when there are findings."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from fuzz.supervise import search
from fuzz.targets import HERE, TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each target; default: 30")
    parser.add_argument("--seed", type=int, default=1, help="of the changes; default: 1")
    parser.add_argument("--plain", action="store_true", help="without atheris, where it is installed")
    parser.add_argument("--findings", type=Path, default=HERE / "findings", metavar="DIR", help="where findings go")
    given = parser.parse_args()
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"no such target: {name}: known are {', '.join(TARGETS)}")
    guided = not given.plain and importlib.util.find_spec("atheris") is not None
    print("guided by coverage (atheris)" if guided else "not guided by coverage (atheris is not used)", flush=True)
    count = 0
    for name in given.targets or TARGETS:
        found = search(name, given.seconds, given.seed, given.findings / name, given.plain)
        count += len(found.findings)
        tried = f"{found.runs:8} inputs ({found.succeeded} taken) in {found.seconds:4.0f} s"
        print(f"{name:12} {tried}, {len(found.findings)} findings", flush=True)
        for finding, file in found.findings.items():
            text = file.with_name(f"{finding}.txt").read_text(encoding="utf-8").splitlines()
            print(f"    {text[0]}: {text[-1][:160] if text[1:] else ''}\n        {file}", flush=True)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
