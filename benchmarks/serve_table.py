"""Times of benchmarks/results/serve.json as tables of docs/measured.md, between two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import kept

BEGIN, END = kept.marks("serve")
Figures = dict[str, Any]


def write(results: Path, page: Path) -> None:
    """Replace what stands between the marks of `page`."""
    kept.write_section(page, BEGIN, END, section(json.loads(results.read_text(encoding="utf-8"))))


def section(found: Figures) -> str:
    """What was measured, as Markdown."""
    machine = found["machine"]["processor"]
    where = f"{machine['name']}, {machine['usable_cores']} cores, shared by server and clients."
    parts = (_clients(found.get("clients", {})), _second(found.get("second", {})), _questions(found))
    return "\n\n".join([*filter(None, parts), where])


def _clients(rows: Figures) -> str:
    header = ("server", "clients", "requests a second", "first token p50 ms", "p95 ms")
    lines = [
        [name, count, one["requests_per_second"], one["first_token_p50_ms"], one["first_token_p95_ms"]]
        for name, counts in rows.items()
        for count, one in counts.items()
    ]
    return _table("**Clients at once**, each with a picture that nobody has seen:", header, lines)


def _second(rows: Figures) -> str:
    header = ("verdict on a second question, ms", "a session's", "a client's that sends the picture again", "times")
    lines = [[name, one["session_ms"], one["stateless_client_ms"], f"{one['times']:.2f}"] for name, one in rows.items()]
    return _table("**A picture asked about again** (the two take turns):", header, lines)


def _questions(found: Figures) -> str:
    header = ("first token of a client that sends the picture each time, ms", "first question", "second question")
    lines = [
        [name, one["first_question_ms"], one["second_question_ms"]] for name, one in found.get("questions", {}).items()
    ]
    return _table("**Beside llama-server**, one after the other:", header, lines)


def _table(title: str, header: tuple[str, ...], lines: list[list[Any]]) -> str:
    return f"{title}\n\n{kept.table(header, lines)}" if lines else ""
