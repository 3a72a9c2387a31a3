"""A small watch without a camera: frames judged by a bundle, recorded, their pictures kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.question import Question
from edgevlm.watch.plan import digest as digests
from edgevlm.watch.plan import stored
from edgevlm.watch.plan.plan import Part, Plan, Records
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.record import Record
from edgevlm.watch.rules.choice import Options
from edgevlm.watch.sinks import pictures
from edgevlm.watch.sinks.base import About, Delivery
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm_runtime import VLM

DEFECT = Question(
    name="defect",
    text="Is the part defective?",
    options=Options(choices=("yes", "no"), verdicts={"yes": "reject", "no": "ok"}),
)


def plan_for(folder: Path, bundle: Path, questions: Sequence[Question] = (DEFECT,), **more: object) -> Plan:
    """A plan that keeps everything in `folder`."""
    made = Plan(
        bundle=bundle,
        source=Part(kind="pictures", options={"files": []}),
        trigger=Part(kind="every", options={"n": 1}),
        questions=tuple(questions),
        records=Records(file=folder / "records.jsonl"),
        sinks=(Part(kind="pictures", options=pictures.Options(folder=folder / "kept", of=("all",))),),
        **more,  # type: ignore[arg-type]
    )
    return replace(made, digest=digests.digest(made, folder))


def watch(plan: Plan, vlm: VLM, frames: Iterable[Frame]) -> list[Record]:
    """What a watch leaves on disk: records, pictures, the plan."""
    file, status, given = plan.records.file, Status(), []
    assert file is not None
    stored.keep(plan, file)
    about = About("watch", ("reject", "ok", "unsure"), (), file.parent, status, records=file)
    sinks = [pictures.make_sink(part.options, about) for part in plan.sinks]
    for sink in sinks:
        sink.start()
    digest = vlm.bundle.content_digest
    with Book(plan.records, bundle=digest, plan=plan.digest, status=status) as book, Judge(vlm, plan) as judge:
        judge.check()
        for frame in frames:
            judgement = judge.judge(frame)
            firing = Firing("every", f"part {frame.sequence}")
            given.append(book.add(frame, firing, judgement.verdict, judgement.answers))
            for sink in sinks:
                sink.deliver(Delivery(given[-1], frame))
    for sink in sinks:
        sink.close()
    return given


def frames(pictures: Iterable[Image.Image]) -> list[Frame]:
    """Numbered from 1."""
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    return [Frame(number, 1.75e9 + number, 0.0, array) for number, array in enumerate(arrays, start=1)]


def doubtful(count: int) -> list[Image.Image]:
    """Four drawn parts seen through each other: nothing is sure about them, and what is made out changes easily."""
    from edgevlm_export import inspection

    drawn = [np.asarray(one.image.convert("RGB"), np.float32) for one in inspection.examples("test", 4 * count)]
    return [Image.fromarray(np.mean(drawn[4 * i : 4 * i + 4], axis=0).astype(np.uint8)) for i in range(count)]
