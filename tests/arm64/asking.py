"""Asks a bundle, and prints what it answered as JSON. Runs by itself: on this machine, and on the emulated device.

One argument, JSON: `paths` to import from, `bundle`, `threads`, `questions` [picture, question], and `verdicts`
[picture, question, choices].
"""

from __future__ import annotations

import ctypes
import json
import platform
import re
import sys
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

AT_HWCAP = 16
DOT_PRODUCT = 1 << 20


def main(job: dict[str, Any]) -> dict[str, Any]:
    """What this processor is, and what it answered."""
    sys.path[:0] = job["paths"]
    import edgevlm_runtime

    vlm = edgevlm_runtime.load(job["bundle"], threads=job["threads"])
    answers, verdicts = [], []
    for picture, group in groupby(job["questions"], key=lambda asked: asked[0]):
        with vlm.session(picture) as session:
            for _, question in group:
                answer = session.ask(question)
                said = {"token_ids": answer.token_ids, "text": answer.text, "logprobs": answer.logprobs}
                answers.append({"picture": Path(picture).name, "question": question, **said})
    for picture, question, choices in job["verdicts"]:
        with vlm.session(picture) as session:
            probabilities = session.choose(question, choices).probabilities
        verdicts.append({"picture": Path(picture).name, "question": question, "probabilities": probabilities})
    machine = {"machine": platform.machine(), "part": part_number(), "dot_product": dot_product()}
    return {**machine, "onnxruntime": version("onnxruntime"), "answers": answers, "verdicts": verdicts}


def part_number() -> str | None:
    """The part number of an Arm core, as /proc/cpuinfo says."""
    found = re.search(r"^CPU part\s*: (\w+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def dot_product() -> bool:
    """Whether this is an Arm core that says it has int8 dot products."""
    hardware = ctypes.CDLL(None).getauxval
    hardware.restype, hardware.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return platform.machine() == "aarch64" and bool(hardware(AT_HWCAP) & DOT_PRODUCT)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
