"""What quantization costs each family: exports the parity suite's configurations in int8 and int4, and writes
docs/families.md and benchmarks/results/families.json from their certificates.

    python -m tools.family_accuracy [NAME...]

Takes about a minute for each configuration and precision; with names, only these are measured anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgevlm_export.api import ExportOptions, export
from edgevlm_runtime.bundle.certificate import read_certificate
from edgevlm_runtime.bundle.folder import Bundle
from tests.export.parity.test_parity import CASES
from tests.support import shared, traces

ROOT = Path(__file__).parents[1]
RAW = ROOT / "benchmarks" / "results" / "families.json"
PAGE = ROOT / "docs" / "families.md"
PRECISIONS = ("int8", "int4")
KEPT = ("thresholds", "decoder", "decoder_text", "missed", "versions")
"""Of a certificate."""
HEAD = """# What quantization costs, family by family

Configurations of the parity suite (tests/export/parity), which are small models of the real architectures with random
weights, exported in int8 and int4 and compared with PyTorch in float32 by the certificate that every export writes.
KL is the mean Kullback-Leibler divergence of the next token in nats,
top-1 the share of positions with the same likeliest token; the last but one column says whether the certificate's
thresholds hold, or which are missed. *Rotations* are the transforms that apply to the decoder; what a graph refuses is
in the bundle's manifest, with the reason.

Random weights have no redundancy, so 4 bits cost them more than a trained model. For real weights see
[accuracy-smollm2](../benchmarks/results/accuracy-smollm2.md). `python -m tools.family_accuracy` writes this page, and
the raw figures into [families.json](../benchmarks/results/families.json).

| configuration | precision | KL with images | top-1 | KL of text | certificate | rotations |
| --- | --- | ---: | ---: | ---: | --- | --- |
"""


TAIL = """
## What TensorRT-RTX compiles

Small models of the families, exported in float16 with `--target tensorrt-rtx` and compiled by TensorRT-RTX 1.7.1.116 on
a machine without a GPU for compute capabilities 8.6 and 12.0:

| family | engines |
| --- | --- |
| `llava` (with Pixtral's tower too), `vipllava`, `llava_next`, `llava_onevision`, `fast_vlm`, `mistral3` | all three |
| `smolvlm`, `idefics3`, `internvl`, `lfm2_vl` | all three |
| `qwen2_vl`, `qwen2_5_vl`, `qwen3_vl`, `qwen3_5`, `paddleocr_vl` | all three |
| `gemma3`, `gemma4`, `paligemma` (the first) | all three |
| PaliGemma 2 | refused when it is exported: the dialect has no attention under a soft cap |

`make test-full` compiles every family in float16 and int8 (tests/export/compile/test_families.py). No engine has run on
a GPU yet; [jetson.md](jetson.md) says what is verified.

## What has no family

`glm4v` (GLM-4.1V) needs what no graph or image kind here has: positions interpolated from sixteen places each
(bicubic), a convolution that merges patches behind the tower, and a decoder that rotates neighbouring pairs of the
first half of a head.
"""


def measure(name: str, precision: str) -> dict[str, Any]:
    """Export one configuration; its certificate's figures."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = CASES[name](Path(folder) / name)
        options = ExportOptions(
            str(checkpoint), Path(folder) / "bundle", precision=precision, allow_drift="measured here"
        )
        bundle = Bundle.open(export(options).bundle)
        certificate = read_certificate(bundle)
        assert certificate is not None
        decoder = bundle.manifest.graphs["decoder"]
    return {
        "configuration": name,
        "precision": precision,
        "certificate": {name: value for name, value in asdict(certificate).items() if name in KEPT},
        "transforms": list(decoder.transforms),
        "refused": dict(decoder.refused),
    }


def row(entry: dict[str, Any]) -> str:
    """One line of the table."""
    found = entry["certificate"]
    images, text = found["decoder"], found["decoder_text"]
    figures = [f"{images['kl_mean']:.4f}", f"{images['top1_agreement']:.2f}", f"{text['kl_mean']:.4f}" if text else ""]
    verdict = "holds" if not found["missed"] else "; ".join(sorted({miss["what"] for miss in found["missed"]}))
    names = ", ".join(name.removeprefix("rotate-") for name in entry["transforms"]) or "none"
    return f"| {entry['configuration']} | {entry['precision']} | {' | '.join(figures)} | {verdict} | {names} |"


def main(names: list[str]) -> None:
    """Measure, and write both files after each configuration."""
    known = {(e["configuration"], e["precision"]): e for e in json.loads(RAW.read_text())} if RAW.exists() else {}
    for name in names or CASES:
        for precision in PRECISIONS:
            known[name, precision] = measure(name, precision)
            print(row(known[name, precision]), flush=True)
            entries = [known[key] for key in ((n, p) for n in CASES for p in PRECISIONS) if key in known]
            RAW.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            PAGE.write_text(HEAD + "\n".join(map(row, entries)) + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    made = shared.begin()
    assert made is not None
    traces.remember()
    try:
        main(sys.argv[1:])
    finally:
        shared.end(made)
