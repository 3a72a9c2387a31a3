"""What `tables` says of peers: their rows, what has to be known of them, those that are missing, the targets."""

from __future__ import annotations

from typing import Any

from benchmarks.targets import SHAPE, reached

BLANK = "-"
LEGEND = "A dash: the engine cannot give that figure; below is why."


def reference_of(found: dict[str, Any]) -> dict[str, Any] | None:
    """PyTorch's first row, which the others are compared with."""
    return next((one for one in found["bench"]["engines"] if one["label"].startswith("PyTorch ")), None)


def peer_lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """One tuple of cells a row, under the columns of `tables.COLUMNS`."""
    reference = reference_of(found)
    first = None if reference is None else reference["time_to_first_token_ms"]["p50"]
    return [_cells(peer, first) for peer in found.get("peers", ())]


def remarks(found: dict[str, Any]) -> str:
    """Precision, versions, and why cells are blank: a line for each row."""
    lines = []
    for peer in found.get("peers", ()):
        versions = ", ".join(f"{name} {version}" for name, version in peer["versions"].items())
        said = [f"{peer['precision']} ({versions})"]
        said += [f"{name.removesuffix('_ms').replace('_', ' ')}: {why}" for name, why in peer["blanks"].items()]
        said += [peer["remark"]] if peer["remark"] else []
        lines.append(f"- {peer['label']}: {'; '.join(said)}")
    return "\n".join([f"{LEGEND}\n", *lines]) if lines else ""


def missing(found: dict[str, Any]) -> str:
    """What was asked for and could not be measured."""
    lines = [f"- {label}: {why}" for label, why in found.get("missing", {}).items()]
    return "\n".join(["Missing:\n", *lines]) if lines else ""


def target_table(found: dict[str, Any]) -> str:
    """The project's targets and what this run reached; empty without peers, or for another shape or processor."""
    if not found.get("peers") or SHAPE not in found["bench"]["engines"][0]["label"]:
        return ""
    lines = ["| edgevlm | times faster than | reached | wanted |", "| --- | --- | ---: | ---: |"]
    table = reached(found)
    if all(ratio is None for _, _, ratio, _ in table):
        return ""
    for what, against, ratio, wanted in table:
        shown = "not measured" if ratio is None else f"{ratio:.2f}{'' if ratio >= wanted else ' (missed)'}"
        lines.append(f"| {what} | {against} | {shown} | {wanted:g} |")
    return "\n".join(lines)


def _cells(peer: dict[str, Any], first_of_reference: float | None) -> tuple[str, ...]:
    medians = peer["medians"]
    first = medians["time_to_first_token_ms"]
    ratio = None if first is None or first_of_reference is None else first_of_reference / first
    return (
        peer["label"],
        f"{peer['model_bytes'] / 2**20:.1f}",
        _shown(medians["vision_ms"], 1),
        _shown(medians["prefill_tokens_per_s"], 0),
        _shown(medians["decode_tokens_per_s"], 1),
        _shown(first, 1),
        _shown(medians["repeat_question_ttft_ms"], 1),
        _shown(medians["load_ms"], 0),
        _shown(medians["peak_rss_mib"], 0),
        _shown(ratio, 2),
    )


def _shown(value: float | None, digits: int) -> str:
    return BLANK if value is None else f"{value:.{digits}f}"
