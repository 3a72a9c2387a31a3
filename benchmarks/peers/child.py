"""What the peers' child sides have in common: pixels, one question's timings, the line that is printed.

Runs in a peer's environment: the standard library, numpy and Pillow.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

WARMUP_TOKENS = 3


class Model(Protocol):
    """A loaded peer, asked step by step. Greedy: `begin` and `step` return the likeliest token."""

    sees: bool
    """Whether it has a vision encoder."""

    def see(self, pixels: Any) -> Any:
        """Vision encoder and projector on float32 [1, 3, height, width]; asked of those that see."""
        ...

    def begin(self, ids: Sequence[int], seen: Any) -> int:
        """Forget what was, compute the prompt, return the first token."""
        ...

    def step(self, token: int) -> int:
        """One more token."""
        ...

    def resume(self, kept: int, ids: Sequence[int]) -> int | None:
        """Keep `kept` positions of the KV cache, compute `ids` after them, return the next token; None where the
        peer cannot."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Times of one question, milliseconds."""

    vision: float
    prefill: float
    decode_per_token: float
    first_token: float


def measure(load: Callable[[dict[str, Any]], Model]) -> None:
    """The child side: load, warm up with both questions, ask both, print `Measures` as JSON on the last line."""
    job = json.loads(sys.argv[1])
    task = job["task"]
    start = time.perf_counter()
    model = load(job)
    loaded = (time.perf_counter() - start) * 1e3
    ask(model, task, WARMUP_TOKENS)
    second_question(model, task)
    first = ask(model, task, task["new_tokens"])
    again = second_question(model, task)
    found = {
        "vision_ms": first.vision if model.sees else None,
        "prefill_tokens_per_s": 1e3 * len(task["first_ids"]) / first.prefill,
        "decode_tokens_per_s": 1e3 / first.decode_per_token,
        "time_to_first_token_ms": first.first_token if model.sees else None,
        "repeat_question_ttft_ms": again,
        "load_ms": loaded,
    }
    print("\n" + json.dumps(found), flush=True)


def ask(model: Model, task: dict[str, Any], new_tokens: int) -> Question:
    """The first question about the image."""
    start = time.perf_counter()
    pixels = pixel_values(task["image"], task) if model.sees else None
    prepared = time.perf_counter()
    seen = model.see(pixels) if model.sees else None
    looked = time.perf_counter()
    token = model.begin(task["first_ids"], seen)
    first = time.perf_counter()
    for _ in range(new_tokens - 1):
        token = model.step(token)
    end = time.perf_counter()
    return Question(
        vision=(looked - prepared) * 1e3,
        prefill=(first - looked) * 1e3,
        decode_per_token=(end - first) * 1e3 / (new_tokens - 1),
        first_token=(first - start) * 1e3,
    )


def second_question(model: Model, task: dict[str, Any]) -> float | None:
    """Time to first token of the second question, after the first; milliseconds."""
    first, second = task["first_ids"], task["second_ids"]
    pairs = zip(first, second, strict=False)
    kept = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
    start = time.perf_counter()
    token = model.resume(kept, second[kept:])
    return None if token is None else (time.perf_counter() - start) * 1e3


def pixel_values(image: str, task: dict[str, Any]) -> Any:
    """float32 [1, 3, height, width], normalised. The image has the model's own size: nothing is resized."""
    import numpy as np
    from PIL import Image

    with Image.open(image) as opened:
        pixels = np.asarray(opened.convert("RGB"), np.float32) / 255
    normal = (pixels - np.float32(task["image_mean"])) / np.float32(task["image_std"])
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def put_image(ids: Sequence[int], image_token_id: int, embeddings: Any, seen: Any) -> Any:
    """`embeddings` [1, tokens, width], the image's rows replaced by `seen` [1, image tokens, width]."""
    import numpy as np

    embeddings[0, np.asarray(ids) == image_token_id] = seen.reshape(-1, embeddings.shape[-1])
    return embeddings
