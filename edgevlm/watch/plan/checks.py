"""Whether the parts of a plan fit each other, and the pictures it names are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgevlm.watch.frames import regions
from edgevlm.watch.frames.regions import Region, load_mask
from edgevlm.watch.judging.question import Question
from edgevlm.watch.judging.worst import check_order
from edgevlm.watch.plan.faults import Fault, Place
from edgevlm.watch.plan.plan import NAME, NAMES, Plan
from edgevlm.watch.plan.tables import located, names
from edgevlm.watch.rules import RULES
from edgevlm.watch.rules.base import UNSURE
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.sinks.base import About
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.images.load import load_image
from edgevlm_runtime.options import is_real

PARTS = ("box", "mask", "polygons")
"""Keys that say which part of a frame is meant."""
CORNERS = 3
"""Of a polygon, at least."""


def check(plan: Plan) -> None:
    """Raise `Fault` for the first thing that cannot be."""
    _distinct("region", [region.name for region in plan.regions])
    _distinct("question", [question.name for question in plan.questions])
    for number, region in enumerate(plan.regions):
        _check_region(region, ("region", number))
    _check_trigger(plan)
    _check_questions(plan)
    _check_golden(plan)
    _check_verdicts(plan)
    _check_sinks(plan)
    if plan.reload.max_flips is not None and plan.records.file is None:
        raise Fault(("reload", "max_flips"), "frames that were kept are found by their records: add [records] file")


def words(question: Question) -> tuple[str, ...]:
    """Every verdict that a question can give, without `UNSURE`."""
    found: tuple[str, ...] = RULES.get(question.kind).make_rule(question.options).words
    return found


def verdicts(plan: Plan) -> tuple[str, ...]:
    """Every verdict there can be: as the plan orders them, else as its questions give them; `UNSURE` among them."""
    given = [word for question in plan.questions for word in words(question)]
    return tuple(dict.fromkeys([*plan.order, *given, UNSURE]))


def check_size(plan: Plan, size: tuple[int, int]) -> None:
    """Raise `Fault` for the first region or mask that does not fit frames of `size` (width, height)."""
    for number, region in enumerate(plan.regions):
        try:
            regions.check(region, size)
        except EdgeVLMError as error:
            raise Fault(("region", number), str(error)) from None


def _distinct(key: str, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise Fault((key, number, "name"), f"{name!r} is no name: it must be {NAMES}")
        if name in names[:number]:
            raise Fault((key, number, "name"), f"{key} {names.index(name) + 1} is called {name} too: give it another")


def _check_region(region: Region, place: Place) -> None:
    if region.box is not None:
        _check_box(region.box, (*place, "box"))
    for number, polygon in enumerate(region.polygons):
        within = (*place, "polygons", number)
        if len(polygon) < CORNERS:
            raise Fault(within, f"it must have at least {CORNERS} corners, not {len(polygon)}")
        _check_units([value for corner in polygon for value in corner], within)
    if region.mask is not None:
        _check_picture(region.mask, (*place, "mask"), mask=True)


def _check_trigger(plan: Plan) -> None:
    """A trigger that looks at a part of the frame has the keys of a region."""
    options = plan.trigger.options
    part = Region(name="of the trigger", **{key: getattr(options, key) for key in PARTS if hasattr(options, key)})
    _check_region(part, ("trigger",))


def _check_box(box: Sequence[float], place: Place) -> None:
    _check_units(box, place)
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise Fault(place, "it is empty: it must be left, top, right, bottom, with left < right and top < bottom")


def _check_units(values: Sequence[float], place: Place) -> None:
    """Shares of the frame, or whole pixels; which of them, `Region` tells by the largest."""
    if not all(is_real(value) and value >= 0 for value in values):
        raise Fault(place, "it is outside of the frame: no number may be below 0")
    if max(values) > 1 and not all(float(value).is_integer() for value in values):
        raise Fault(place, "it must be all shares of the frame, from 0 to 1, or all whole pixels")


def _check_questions(plan: Plan) -> None:
    names = [region.name for region in plan.regions]
    for number, question in enumerate(plan.questions):
        place = ("question", number)
        if question.region is not None and question.region not in names:
            known = f"regions are {', '.join(names)}" if names else "there is no [[region]]"
            raise Fault((*place, "region"), f"there is no region {question.region!r}: {known}")
        try:
            RULES.get(question.kind).make_rule(question.options)
        except EdgeVLMError as error:
            raise Fault(place, str(error)) from None


def _check_sinks(plan: Plan) -> None:
    """Sinks know verdicts by name: those that they want to hear of, codes of a PLC."""
    asked = tuple(question.name for question in plan.questions)
    about = About(plan.name, verdicts(plan), asked, Path(), Status(), records=plan.records.file)
    for number, sink in enumerate(plan.sinks):
        try:
            SINKS.get(sink.kind).make_sink(sink.options, about)
        except EdgeVLMError as error:
            table = dict.fromkeys(names(type(sink.options)))
            raise located(error, table, ("sink", number)) from None


def _check_golden(plan: Plan) -> None:
    if plan.golden is None:
        return
    if not plan.golden.images:
        raise Fault(("golden", "images"), "there is none: name a picture of a good part, or leave [golden] out")
    for number, image in enumerate(plan.golden.images):
        _check_picture(image, ("golden", "images", number))


def _check_picture(path: Path, place: Place, *, mask: bool = False) -> None:
    try:
        load_mask(path) if mask else load_image(path)
    except EdgeVLMError as error:
        raise Fault(place, str(error)) from None


def _check_verdicts(plan: Plan) -> None:
    """The words that a plan names are those that its questions give."""
    by_question = {question.name: words(question) for question in plan.questions}
    given = list(dict.fromkeys(word for some in by_question.values() for word in some))
    for number, word in enumerate(plan.order):
        if word not in (*given, UNSURE):
            raise Fault(("verdict", "order", number), _nobody(word, given))
    place: Place = ("verdict", "order") if given else ()
    try:
        check_order(plan.order, by_question)
    except EdgeVLMError as error:
        raise Fault(place, str(error)) from None
    if plan.deadline.default not in (*given, UNSURE):
        raise Fault(("verdict", "default"), _nobody(plan.deadline.default, given))


def _nobody(word: str, given: Sequence[str]) -> str:
    return f"no question gives {word!r}: verdicts are {', '.join([*given, UNSURE])}"
