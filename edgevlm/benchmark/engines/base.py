"""What an engine is to the benchmark: something that answers the task's two questions and says what took how long.

An engine is a file in this folder with two functions, `imports(task)` (modules whose import is timed, comma-separated)
and `load(spec, task) -> Engine`; its name is the registry key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgevlm.benchmark.workload import Task


@dataclass(frozen=True, slots=True)
class Spec:
    """Which engine, on what."""

    engine: str
    source: str
    """Bundle folder; or the PyTorch model's alias, folder or id."""
    dtype: str | None = None
    """What weights compute in, where the engine leaves a choice."""
    label: str = ""
    """What results and pages call it; one of a kind."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: the first question about a fresh image, then a second one about the same image. Milliseconds."""

    preprocess_ms: float
    """Decoding, resizing and arranging the image."""
    vision_ms: float
    """Vision encoder."""
    projector_ms: float
    """Projector."""
    prefill_ms: float
    """Decoder, over the prompt."""
    prefill_tokens: int
    """Prompt positions computed in `prefill_ms`."""
    decode_ms_per_token: float
    """Mean over the tokens after the first."""
    time_to_first_token_ms: float
    """From the image file and the question to the first token."""
    total_ms: float
    """From the image file and the question to the last token."""
    repeat_question_ttft_ms: float
    """Time to the first token of the second question."""
    energy_j: float | None = None
    """What the processors took for the whole round, where the machine tells."""


class Engine(Protocol):
    """A loaded model."""

    precision: str
    """How its weights are stored."""
    model_bytes: int
    """Its weights' size, on disk for a bundle."""

    def ask(self, task: Task) -> tuple[Sample, tuple[int, ...]]:
        """Both questions; also the first answer's tokens. Raises `EdgeVLMError`."""
        ...
