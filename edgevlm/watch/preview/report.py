"""What a dry run says: the record of `edgevlm watch --dry-run --json`, and its lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgevlm.watch.judging.cost import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A source, a trigger or a sink."""

    kind: str
    """Its kind."""
    options: dict[str, str]
    """What differs from the kind's defaults; passwords and tokens are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPreview:
    """One question about every frame."""

    name: str
    """Its name."""
    text: str
    """What is asked."""
    kind: str
    """"choice", "text", "schema", or another package's."""
    region: str | None
    """What it is about; null is the whole picture."""
    verdicts: tuple[str, ...]
    """What it may give, beside "unsure"; none where it only records an answer."""
    prompt_tokens: int
    """Tokens of the prompt, those of all pictures included."""
    image_tokens: int
    """Those that stand for pictures, golden ones included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewReport:
    """With `--dry-run`: what will happen, and what a frame costs on this machine."""

    plan: str | None
    """The file; null where flags say it all."""
    name: str
    """Of the watch."""
    digest: str
    """sha256 of the plan, as in every record."""
    bundle: str
    """The folder."""
    bundle_digest: str
    """It names the bundle, as in every record."""
    engine: str
    """What answers."""
    source: Piece
    """Where pictures come from."""
    source_trouble: str | None
    """Why the source gave no picture now; null where it did."""
    trigger: Piece
    """Which frames are judged."""
    regions: tuple[str, ...]
    """Names of the regions."""
    golden: int
    """How many pictures of good parts are shown before every frame."""
    questions: tuple[QuestionPreview, ...]
    """In their order."""
    order: tuple[str, ...]
    """Verdicts from worst to best; none: the first question that gives verdicts decides."""
    deadline_ms: float | None
    """By when there is a verdict in any case."""
    default: str
    """The verdict when that has passed."""
    records: str | None
    """File of the records."""
    sinks: tuple[Piece, ...]
    """Who gets verdicts."""
    page: str | None
    """Address of the live page."""
    cost: Cost
    """Measured with frames of noise, of the source's size where that is known, else 640x480."""
    frames_per_s: float
    """How many fresh frames this machine can judge."""
    meets_deadline: bool | None
    """Whether 95 of 100 frames take less than the deadline; null without one. The exit code is 1 when not."""


def rows(report: PreviewReport) -> Iterator[tuple[str, ...]]:
    """The report as lines of two cells, what and how."""
    yield ("plan", f"{report.plan or 'from flags'}: {report.name}, {report.digest[:16]}")
    yield ("bundle", f"{report.bundle} on {report.engine}")
    size = f"{report.cost.width}x{report.cost.height}"
    yield ("source", f"{_piece(report.source)}: {size if report.source_trouble is None else report.source_trouble}")
    yield ("trigger", _piece(report.trigger))
    if report.regions:
        yield ("regions", ", ".join(report.regions))
    if report.golden:
        yield ("golden pictures", str(report.golden))
    for question in report.questions:
        yield (f"question {question.name}", _question(question))
    yield ("verdict", _verdict(report))
    yield ("records", report.records or "none are kept")
    for sink in report.sinks:
        yield ("sink", _piece(sink))
    yield ("page", report.page or "none")
    yield from _cost(report)


def _cost(report: PreviewReport) -> Iterator[tuple[str, ...]]:
    cost = report.cost
    shown = "" if report.source_trouble is None else f" of {cost.width}x{cost.height}, since the source gave none"
    most = f"{cost.fresh.median:.0f} ms, 95 of 100 below {cost.fresh.p95:.0f} ms"
    yield ("a fresh frame", f"{most}; {report.frames_per_s:.1f} a second{shown}")
    yield ("its first question", f"{cost.first.median:.0f} ms")
    if cost.further is not None:
        yield ("each further one", f"{cost.further.median:.0f} ms")
    yield ("an unchanged frame", f"{cost.unchanged.median:.1f} ms")
    if report.deadline_ms is not None:
        met = "is met" if report.meets_deadline else f"is NOT met: 95 of 100 frames take up to {cost.fresh.p95:.0f} ms"
        yield (f"deadline {report.deadline_ms:g} ms", met)


def _piece(piece: Piece) -> str:
    options = ", ".join(f"{name} {value}" for name, value in piece.options.items())
    return f"{piece.kind} {options}".rstrip()


def _question(question: QuestionPreview) -> str:
    about = f" about {question.region}" if question.region else ""
    words = ", ".join(question.verdicts) or "recorded alone"
    tokens = f"{question.prompt_tokens} tokens, {question.image_tokens} of pictures"
    return f"{question.text!r}{about}: {question.kind}: {words}; {tokens}"


def _verdict(report: PreviewReport) -> str:
    order = f"the worst in {' < '.join(report.order)}" if report.order else "the first question's"
    if report.deadline_ms is None:
        return f"{order}, whenever it comes"
    return f"{order}; {report.default} when {report.deadline_ms:g} ms have passed"
