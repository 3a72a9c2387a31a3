"""A bundle or plan that changed on disk is taken over once it has proved itself; until then, and where it does not, the
old one goes on.

1. Loaded beside the old one, which goes on judging: both are in memory for that time.
2. The bundle's self-test, and every question of the plan asked once.
3. Where `plan.reload.max_flips` says so: the frames that were kept are asked again, and few enough verdicts differ.
4. Offered to `Judges`, which changes between two frames, and back when it fails on its first ones.

A bundle is replaced as a whole: a new folder renamed to the old name, or a link that is changed. Files overwritten in
place change under the model that is judging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.opening import open_bundle
from edgevlm.watch.plan.digest import pictures
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.service.takeover.judges import CONDITION, Judges, Seated
from edgevlm.watch.status import Status
from edgevlm_runtime import VLM
from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.errors import EdgeVLMError, reason

log = logging.getLogger(__name__)

TAKEN_OVER = frozenset(
    {"bundle", "loading", "regions", "golden", "system", "questions", "order", "deadline", "reuse", "reload", "digest"}
)
"""What of a plan can change while it runs; everything else has threads, connections and files that hang on it."""

Flips = Callable[[Path, VLM, Plan], int]
"""How many verdicts differ when the frames kept by a record file are asked again."""


def seat(plan: Plan, vlm: VLM) -> Seated:
    """A judge that can answer all of the plan's questions. Raises `EdgeVLMError`."""
    judge = Judge(vlm, plan)
    try:
        judge.check()
    except BaseException:
        judge.close()
        raise
    return Seated(judge, plan, vlm)


@dataclass(frozen=True, slots=True)
class Reload:
    """Looks at what has changed, and offers it."""

    judges: Judges
    status: Status
    flips: Flips
    show: Callable[[str], None]
    plan_file: Path | None = None
    read_plan: Callable[[Path], Plan] | None = None
    """Both None where the plan was made of flags: only the bundle can change then."""

    def paths(self) -> list[Path]:
        """What changes are looked for in: the bundle, the plan, its pictures and files of questions."""
        plan = self.judges.now.plan
        return [plan.bundle, *([self.plan_file] if self.plan_file is not None else []), *pictures(plan)]

    def changed(self) -> None:
        """Something has changed on disk: take it over, or say why not. Raises nothing."""
        try:
            new = self._proved()
        except Exception as error:
            log.log(logging.DEBUG if isinstance(error, EdgeVLMError) else logging.ERROR, "reload", exc_info=error)
            self.status.count("reloads.refused")
            text = f"what changed on disk is not taken over, the old goes on: {reason(error)}"
            self.status.raise_condition(CONDITION, text)
            return
        self.status.clear_condition(CONDITION)
        if new is not None:
            self.status.count("reloads.taken")
            self.show(f"taken over: plan {new.plan.digest[:12]}, bundle {new.bundle[:12]}")
            self.judges.offer(new)

    def _proved(self) -> Seated | None:
        """What is new, ready to judge; None where it is what judges now. Raises whatever keeps it from that."""
        now = self.judges.now
        plan = self._plan(now.plan)
        vlm = open_bundle(plan.bundle, plan.loading)
        same_bundle = vlm.bundle.digest == now.vlm.bundle.digest and plan.loading == now.plan.loading
        if same_bundle and plan.digest == now.plan.digest:
            return None
        if same_bundle:
            vlm = now.vlm
        else:
            _self_test(vlm)
        new = seat(plan, vlm)
        try:
            _check_verdicts(now, new)
            self._replay(plan, vlm)
        except BaseException:
            new.judge.close()
            raise
        return new

    def _plan(self, now: Plan) -> Plan:
        if self.plan_file is None or self.read_plan is None:
            return now
        new = self.read_plan(self.plan_file)
        names = [field.name for field in fields(Plan) if field.name not in TAKEN_OVER]
        fixed = [name for name in names if getattr(now, name) != getattr(new, name)]
        if fixed:
            raise EdgeVLMError(f"{self.plan_file}: {', '.join(fixed)} changed: start the watch again to follow that")
        return new

    def _replay(self, plan: Plan, vlm: VLM) -> None:
        most, file = plan.reload.max_flips, plan.records.file
        if most is None or file is None:
            return
        flips = self.flips(file, vlm, plan)
        if flips > most:
            raise EdgeVLMError(f"{flips} verdicts on kept frames differ, {most} may (reload.max_flips)")


def _check_verdicts(now: Seated, new: Seated) -> None:
    if set(now.judge.verdicts) != set(new.judge.verdicts):
        words = ", ".join(new.judge.verdicts)
        raise EdgeVLMError(f"verdicts are {words} now, which sinks do not know: start the watch again to follow that")


def _self_test(vlm: VLM) -> None:
    result = run_self_test(vlm)
    if not result.passed:
        raise EdgeVLMError(f"{vlm.bundle.path} failed its self-test: edgevlm verify {vlm.bundle.path} says more")
