"""A dry run: look at the source, count the prompts' tokens, measure a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevlm.watch.frames.regions import cut
from edgevlm.watch.judging.cost import Cost, measure
from edgevlm.watch.judging.question import Question
from edgevlm.watch.links.urls import shown
from edgevlm.watch.plan.checks import check_size, words
from edgevlm.watch.plan.plan import Page, Part, Plan
from edgevlm.watch.plan.secrets import is_secret
from edgevlm.watch.preview.look import look
from edgevlm.watch.preview.report import Piece, PreviewReport, QuestionPreview
from edgevlm_runtime import VLM
from edgevlm_runtime.asking.session import system_message, user_message
from edgevlm_runtime.images.load import load_image

USUAL = (640, 480)
"""Width and height of the frames that are measured where the source gives none."""
ADDRESS = "://"
SHOWN = 3
"""Of a list, as of picture files."""

Say = Callable[[str], None]


def preview(plan: Plan, vlm: VLM, *, file: Path | None = None, say: Say = lambda text: None) -> PreviewReport:
    """What `plan` will do with the loaded bundle. Raises `EdgeVLMError` for what this bundle or source cannot do."""
    say(f"looking at the source {plan.source.kind}")
    seen = look(plan.source)
    size = seen.size or USUAL
    if seen.size is not None:
        check_size(plan, size)
    say("measuring frames")
    cost = measure(vlm, plan, size)
    deadline = plan.deadline.ms
    return PreviewReport(
        plan=None if file is None else str(file),
        name=plan.name,
        digest=plan.digest,
        bundle=str(plan.bundle),
        bundle_digest=vlm.bundle.content_digest,
        engine=vlm.engine.identity,
        source=_piece(plan.source),
        source_trouble=seen.trouble or None,
        trigger=_piece(plan.trigger),
        regions=tuple(region.name for region in plan.regions),
        golden=0 if plan.golden is None else len(plan.golden.images),
        questions=tuple(_question(plan, vlm, question, size) for question in plan.questions),
        order=plan.order,
        deadline_ms=deadline,
        default=plan.deadline.default,
        records=None if plan.records.file is None else str(plan.records.file),
        sinks=tuple(map(_piece, plan.sinks)),
        page=_address(plan.page),
        cost=_rounded(cost),
        frames_per_s=round(1e3 / cost.fresh.median, 2),
        meets_deadline=None if deadline is None else cost.fresh.p95 <= deadline,
    )


def _question(plan: Plan, vlm: VLM, question: Question, size: tuple[int, int]) -> QuestionPreview:
    pictures = _pictures(plan, vlm, question, size)
    parts = vlm.pipeline
    images = [parts.prepare(picture) for picture in pictures]
    before = f"{plan.golden.text}\n" if plan.golden is not None and plan.golden.text else ""
    system = vlm.manifest.prompt.system_prompt if plan.system is None else plan.system
    asked = user_message(before + question.text, images, literal=vlm.options.text_tokens == "literal")
    prompt = parts.assemble([*system_message(system), asked], images, parts.context_tokens)
    return QuestionPreview(
        name=question.name,
        text=question.text,
        kind=question.kind,
        region=question.region,
        verdicts=words(question),
        prompt_tokens=len(prompt.token_ids),
        image_tokens=sum(image.prepared.tokens for image in images),
    )


def _pictures(plan: Plan, vlm: VLM, question: Question, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Golden pictures and a grey frame, cut as the judge cuts them."""
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    golden = [] if plan.golden is None else list(plan.golden.images)
    loaded = [np.asarray(load_image(path, vlm.pipeline.image_loading)) for path in golden]
    region = next((one for one in plan.regions if one.name == question.region), None)
    if region is None:
        return [*loaded, frame]
    # A mask is of the camera's size, and changes no size: without it the cut is the same.
    bare = dataclasses.replace(region, mask=None)
    return [cut(one, bare) if one.shape == frame.shape else one for one in loaded] + [cut(frame, bare)]


def _piece(part: Part) -> Piece:
    """What differs from the defaults of the kind."""
    told: dict[str, str] = {}
    for field in dataclasses.fields(part.options):
        value, made = getattr(part.options, field.name), field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        if value != default and _may_be_seen(field, value):
            told[field.name] = _text(value)
    return Piece(kind=part.kind, options=told)


def _may_be_seen(field: dataclasses.Field[Any], value: Any) -> bool:
    """Addresses may, without what is secret in them; nothing else that a kind keeps out of its `repr`."""
    return not is_secret(field.name) and (field.repr or (isinstance(value, str) and ADDRESS in value))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        more = [f"and {len(value) - SHOWN} more"] if len(value) > SHOWN else []
        return " ".join([*map(_text, value[:SHOWN]), *more])
    return shown(value) if isinstance(value, str) and ADDRESS in value else str(value)


def _address(page: Page | None) -> str | None:
    if page is None:
        return None
    host = f"[{page.host}]" if ":" in page.host else page.host
    return f"http://{host}:{page.port}/" if page.port else f"http://{host}, at a free port"


def _rounded(cost: Cost) -> Cost:
    """Hundredths of a millisecond are enough."""
    rounded = {
        name: dataclasses.replace(spent, median=round(spent.median, 2), p95=round(spent.p95, 2))
        for name in ("fresh", "first", "further", "unchanged")
        if (spent := getattr(cost, name)) is not None
    }
    return dataclasses.replace(cost, **rounded)
