"""All parts of a plan at work, from `start` to `end`.

thread       does
source       reads pictures, fires the trigger, lets jobs wait          intake.py, jobs.py
judging      one job after the other: verdict, record, sinks, board     loop.py, takeover/judges.py, decisions.py
deadlines    the default verdict of frames whose time is over           deadlines.py
unseen       the same of parts that asked while no frame came           unseen.py
sink NAME    what that sink gets                                        sinks/delivery/line.py
reload       a bundle or plan that changed on disk                      takeover/reload.py, changes.py
page         the live page                                              page/app.py
main         waits for the end, tells the supervisor                    run.py
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edgevlm.installed import installed
from edgevlm.watch.frames.ring import Ring
from edgevlm.watch.page.board import Watched
from edgevlm.watch.plan import stored
from edgevlm.watch.plan.plan import Page, Plan
from edgevlm.watch.records import files
from edgevlm.watch.records.book import Book
from edgevlm.watch.records.marks import Marks, about
from edgevlm.watch.records.record import Record
from edgevlm.watch.replay.run import flips
from edgevlm.watch.service import parts
from edgevlm.watch.service.board import Board
from edgevlm.watch.service.deadlines import Deadlines
from edgevlm.watch.service.decisions import Decisions
from edgevlm.watch.service.health import Health
from edgevlm.watch.service.intake import Intake
from edgevlm.watch.service.jobs import Jobs
from edgevlm.watch.service.loop import Loop
from edgevlm.watch.service.takeover.changes import follow
from edgevlm.watch.service.takeover.judges import Judges, Seated
from edgevlm.watch.service.takeover.reload import Reload, seat
from edgevlm.watch.service.unseen import Unseen
from edgevlm.watch.service.workers import Worker
from edgevlm.watch.sinks.delivery.outlet import Outlet
from edgevlm.watch.sources.feed import Feed
from edgevlm.watch.status import Status
from edgevlm_runtime import VLM, __version__
from edgevlm_runtime.errors import EdgeVLMError

SOURCE_S = 5.0
"""How long the end waits for the source to stop."""
JUDGING_S = 30.0
"""How long the end waits for the frame under way."""
REPLAYED = 200
"""Kept frames that are asked again before another bundle is taken over, where the plan says so: the newest ones."""
RELOAD_S = 5.0
"""How long the end waits for a bundle that is being loaded: a process that ends inside of it may crash."""
DRAIN_S = 15.0
"""How long the end waits for sinks to send what is left."""


class Watch:
    """Made, it has opened what it needs; `start` begins, `end` lets the sinks finish, `close` gives everything back."""

    def __init__(self, plan: Plan, vlm: VLM) -> None:
        """Raises `EdgeVLMError` for what this bundle cannot answer, a record file that cannot be used, bad options."""
        self.plan = plan
        self.status = Status()
        self.health = Health(self.status)
        self.woken = threading.Event()
        """Set when a thread has ended."""
        self._stop = threading.Event()
        self._left_behind = False
        """Whether the judge did not come to its end."""
        self._held = ExitStack()
        try:
            self._open(plan, vlm)
        except BaseException:
            self._held.close()
            raise

    def _open(self, plan: Plan, vlm: VLM) -> None:
        status, held = self.status, self._held
        seated = seat(plan, vlm)
        self.judges = Judges(seated, self._follow, status)
        held.callback(self._close_judges)
        digest = vlm.bundle.content_digest
        self.book = held.enter_context(Book(plan.records, bundle=digest, plan=plan.digest, status=status))
        self._keep(plan)
        self._source = parts.open_source(plan, status)
        self._trigger = parts.make_trigger(plan, status)
        held.callback(self._trigger.close)
        self.outlet = Outlet(parts.make_sinks(plan, seated.judge.verdicts, status), status, lambda: self.health.healthy)
        self.board = Board(_watched(seated), status, self.health, self._mark)
        self.jobs = Jobs(live=self._source.live, waiting=plan.waiting)
        self.decisions = Decisions(self.book, self.outlet, self.board, self.jobs, status, plan.deadline.default)
        self._deadlines = Deadlines(self.decisions.default, self.woken)
        held.callback(self._deadlines.close)
        self.intake = Intake(
            self._trigger, Ring(plan.before_s), self.jobs, self._deadlines, self.board, self.health.intake, status
        )
        self.intake.deadline_ms = plan.deadline.ms
        self.loop = Loop(
            self.jobs, self.judges, self._deadlines, self.decisions, self.outlet, self.health.judging, status
        )
        frames = Feed(self._source, status, at_start=plan.at_start).frames(self._stop)
        take = partial(self.intake.run, frames, self.decisions.skip)
        judge = partial(self.loop.run, live=self._source.live, max_frames=plan.max_frames, idle=self.book.flush)
        self._unseen = Unseen(
            self._trigger, lambda: self.intake.deadline_ms, self.decisions.default, self.decisions.skip
        )
        self._unseen_thread = Worker("unseen", partial(self._unseen.run, self._stop), self.woken)
        self._reload_thread: Worker | None = None
        self._source_thread = Worker("source", take, self.woken)
        self._judging_thread = Worker("judging", judge, self.woken)

    def start(
        self, show: Callable[[str], None], plan_file: Path | None, read_plan: Callable[[Path], Plan] | None
    ) -> None:
        """Begin. Raises `EdgeVLMError` for ports that are taken."""
        self._trigger.start()
        if self.plan.page is not None:
            show(f"page: {self._serve(self.plan.page)}")
        self.health.running = True
        self.outlet.start()
        self._deadlines.start()
        self._unseen_thread.start()
        self._judging_thread.start()
        self._source_thread.start()
        if self.plan.reload.watch:
            replay = partial(flips, last=REPLAYED, stop=self._stop)
            reload = Reload(self.judges, self.status, replay, show, plan_file, read_plan)
            looking = partial(follow, reload.paths, self._stop, reload.changed)
            self._reload_thread = Worker("reload", looking, threading.Event())
            self._reload_thread.start()

    def check(self) -> None:
        """What has to be looked at now and then. Raises what a thread has ended with."""
        self.outlet.check()
        for thread in (self._judging_thread, self._source_thread, self._deadlines.thread, self._unseen_thread):
            if thread.error is not None:
                raise thread.error

    @property
    def finished(self) -> bool:
        """Whether the last frame is judged."""
        return not self._judging_thread.is_alive()

    def end(self, show: Callable[[str], None]) -> dict[str, int]:
        """Judge the frame under way, let sinks send what is left, all within bounds; what did not get out, by sink."""
        self.health.running = False
        self._stop.set()
        self._unseen.end()
        self._trigger.close()  # whoever asks now is not told that it was taken
        for job in self.jobs.clear():
            if self._deadlines.finish(job) is None:
                self.decisions.skip(job)
        self._source_thread.join(SOURCE_S)
        if self._unseen_thread.is_alive():
            self._unseen_thread.join(SOURCE_S)
        self._judging_thread.join(JUDGING_S)
        self._left_behind = self._judging_thread.is_alive()
        if self._left_behind:
            show(f"the frame under way has no answer after {JUDGING_S:g} s: it gets the default")
            left = self.loop.leave()
            if left is not None and self._deadlines.finish(left) is None:
                self.decisions.default(left)
        self._deadlines.close()
        undelivered = self.outlet.close(DRAIN_S)
        if self._reload_thread is not None:
            self._reload_thread.join(RELOAD_S)
        return undelivered

    def close(self) -> None:
        """Give everything back."""
        self._stop.set()
        self._held.close()

    def _close_judges(self) -> None:
        """A session is not taken from under a judge that hangs."""
        if not self._left_behind:
            self.judges.close()

    def _serve(self, page: Page) -> str:
        with installed("camera"):
            from edgevlm.watch.page.app import page_server
        server = page_server(self.board, page.host, page.port, page.token)
        self._held.callback(server.stop)
        return server.start()

    def _follow(self, seated: Seated) -> None:
        """Another judge has the seat: on the judging thread, between two frames."""
        plan = seated.plan
        self.book.use(bundle=seated.bundle, plan=plan.digest)
        self._keep(plan)
        self.decisions.default_verdict = plan.deadline.default
        self.intake.deadline_ms = plan.deadline.ms
        self.board.about = _watched(seated, self.board.about.started_at)

    def _keep(self, plan: Plan) -> None:
        """The plan beside its records, to be asked again by it."""
        if plan.records.file is None:
            return
        try:
            stored.keep(plan, plan.records.file)
        except (EdgeVLMError, OSError) as error:
            self.status.raise_condition("plan", f"not kept beside the records: {error}")

    def _mark(self, record: Record, right: str, note: str) -> None:
        file = self.plan.records.file
        if file is None:
            raise EdgeVLMError("marks are kept beside records, and there are none: add [records] file to the plan")
        Marks(files.marks(file)).add(about(record, right, note=note, who="page"))


def _watched(seated: Seated, started_at: float | None = None) -> Watched:
    plan = seated.plan
    return Watched(
        name=plan.name,
        verdicts=seated.judge.verdicts,
        questions=tuple(question.name for question in plan.questions),
        regions=plan.regions,
        deadline_ms=plan.deadline.ms,
        bundle=seated.bundle,
        version=__version__,
        started_at=time.time() if started_at is None else started_at,
    )
