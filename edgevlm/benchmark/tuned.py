"""What `edgevlm tune --json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from edgevlm_runtime.checks.tune import Fit, GraphChoice


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What was measured, and where it is kept."""

    bundle: str
    """The folder, as it was given."""
    prefill_chunk: int
    """How many tokens of a prompt are computed fastest at once."""
    prefill_tokens_per_s: dict[str, float]
    """Tokens per second, by the size of the chunk."""
    positions: int
    """Tokens of the prompt that was measured."""
    engine: str | None
    """The fastest engines, as `--engine` has them; null where engines were not compared."""
    graphs: tuple[GraphChoice, ...]
    """Each graph's engine; none where engines were not compared."""
    not_compared: str | None
    """Why engines were not compared, or are not used though faster."""
    file: str | None
    """Where it is kept; null with `--dry-run`."""


@dataclass(frozen=True, slots=True)
class ResetReport:
    """With `--reset`: what was removed."""

    removed: str | None
    """The file; null where there was none."""


def report(bundle: str, found: Fit) -> TuneReport:
    """The record of what was found for a bundle."""
    chunk = found.chunk
    speeds = {str(size): round(speed, 1) for size, speed in chunk.tokens_per_s.items()}
    file = None if found.file is None else str(found.file)
    return TuneReport(
        bundle, chunk.prefill_chunk, speeds, chunk.positions, found.engine, found.choices, found.not_compared, file
    )
