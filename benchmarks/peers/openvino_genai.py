"""OpenVINO GenAI: `VLMPipeline` on the models of the peer `openvino`, with its chat for the second question.

Its second question therefore has the first one and its answer in the context, and pays for the question alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import openvino
from benchmarks.peers.base import Measures, PeerError, Room, Task, Variant
from benchmarks.peers.child import WARMUP_TOKENS
from benchmarks.peers.tools import module, run, turn

NAME = "openvino-genai"
_REMARK = (
    "the second question follows the first one's answer in a chat; prefill without the embedding of image and text"
)
VARIANTS = (
    Variant("int8", "int8 weights (nncf), computed as the plugin chooses", remark=_REMARK),
    Variant("int4", "int4 decoder, int8 vision (nncf), computed as the plugin chooses", remark=_REMARK),
)


def install(room: Room) -> dict[str, str]:
    """See `Peer`. It shares the environment of `openvino`."""
    return openvino.install(room)


def convert(room: Room, variant: Variant) -> None:
    """See `Peer`. It shares the models of `openvino`; the pipeline also needs the tokenizer, converted with them.

    It knows fewer architectures than the converter: whether it takes this one, it says itself.
    """
    openvino.convert(room, variant)
    folder = room.models(openvino.NAME) / openvino.FORMATS[variant.name]
    command = module(openvino.python(room), "benchmarks.peers.openvino_genai", "check", folder)
    run(command, room.models(NAME) / f"{variant.name}.log")
    tokenizer = folder / "openvino_tokenizer.xml"
    if not tokenizer.exists():
        raise PeerError(f"openvino-tokenizers did not convert the tokenizer: {tokenizer} is missing")


def model_files(room: Room, variant: Variant) -> list[Path]:
    """See `Peer`."""
    return openvino.model_files(room, variant)


def measure(room: Room, variant: Variant, task: Task) -> Measures:
    """See `Peer`."""
    job = {"folder": str(room.models(openvino.NAME) / openvino.FORMATS[variant.name])}
    return turn(openvino.python(room), "openvino_genai", job, task)


def check(folder: str) -> None:
    """Child side: load the pipeline, or end with its own error."""
    import openvino_genai as genai  # type: ignore[import-not-found]

    genai.VLMPipeline(folder, "CPU")


def main() -> None:
    """Child side: warm up, two questions in one chat, `Measures` as JSON on the last line."""
    import numpy as np
    import openvino as runtime  # type: ignore[import-not-found]
    import openvino_genai as genai
    from PIL import Image

    job = json.loads(sys.argv[1])
    task = job["task"]
    start = time.perf_counter()
    options = {"INFERENCE_NUM_THREADS": task["threads"], "PERFORMANCE_HINT": "LATENCY"}
    pipeline = genai.VLMPipeline(job["folder"], "CPU", **options)
    loaded = (time.perf_counter() - start) * 1e3

    def ask(question: str, count: int, *images: Any) -> Any:
        limits = pipeline.get_generation_config()
        limits.set_eos_token_id(1)  # the checkpoint has none
        limits.stop_token_ids, limits.ignore_eos, limits.do_sample = set(), True, False
        limits.max_new_tokens = limits.min_new_tokens = count
        return pipeline.generate(question, images=list(images), generation_config=limits).perf_metrics

    def picture() -> Any:
        with Image.open(task["image"]) as opened:
            return np.asarray(opened.convert("RGB"), np.uint8)[None]

    pipeline.start_chat()
    # Another picture and question: it keeps the KV cache of what it has seen, from one chat to the next.
    ask(task["second"], WARMUP_TOKENS, runtime.Tensor(255 - picture()))
    pipeline.finish_chat()
    pipeline.start_chat()
    start = time.perf_counter()
    image = runtime.Tensor(picture())
    decoded = (time.perf_counter() - start) * 1e3
    first = ask(task["first"], task["new_tokens"], image)
    again = ask(task["second"], 2)
    pipeline.finish_chat()
    print(
        "\n"
        + json.dumps(
            {**read_metrics(first, decoded), "repeat_question_ttft_ms": again.get_ttft().mean, "load_ms": loaded}
        )
    )


def read_metrics(metrics: Any, decoded: float) -> dict[str, Any]:
    """`Measures` of a question from `VLMPerfMetrics`; `decoded` is the image's decoding in milliseconds."""
    embedded, first = metrics.get_prepare_embeddings_duration().mean, metrics.get_ttft().mean
    return {
        "vision_ms": embedded,
        "prefill_tokens_per_s": 1e3 * metrics.get_num_input_tokens() / (first - embedded),
        "decode_tokens_per_s": 1e3 / metrics.get_tpot().mean,
        "time_to_first_token_ms": decoded + first,
    }


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(sys.argv[2])
    else:
        main()
