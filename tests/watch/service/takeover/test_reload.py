"""A bundle or plan that changed on disk: taken over, refused, and left again. Real bundles, real files."""

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgevlm_runtime
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.plan.plan import Plan
from edgevlm.watch.plan.read import read
from edgevlm.watch.records.record import Record
from edgevlm.watch.service.run import run
from edgevlm.watch.service.takeover import changes
from edgevlm.watch.service.takeover.judges import Judges
from edgevlm.watch.service.takeover.reload import Reload, seat
from edgevlm.watch.status import Status
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.polling import until
from tests.support.running import make_plan, problems, records, write_plan
from tests.support.watching import frame

FOLLOWED = "[reload]\nwatch = true\n"


class Watched:
    """A judge that is followed; `changed` is what the reload thread calls."""

    def __init__(self, folder: Path, bundle: Path, flips: Any = None, more: str = FOLLOWED) -> None:
        self.file = write_plan(folder, bundle, more=more)
        self.plan = read(self.file)
        self.status = Status()
        self.followed: list[Plan] = []
        vlm = edgevlm_runtime.load(bundle)
        self.judges = Judges(seat(self.plan, vlm), lambda seated: self.followed.append(seated.plan), self.status)
        self.reload = Reload(self.judges, self.status, flips or _none, lambda _: None, self.file, read)

    def changed(self) -> str:
        """What the condition says after a look; empty when all is well. A frame is judged, where changes happen."""
        self.reload.changed()
        self.judges.judge(frame(1, side=64))
        return next((one.text for one in self.status.snapshot().conditions), "")

    def rewrite(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


def _none(*_: Any) -> int:
    raise AssertionError("nobody asked for it")


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def watched(tmp_path: Path, bundle: Path) -> Iterator[Watched]:
    made = Watched(tmp_path, bundle)
    yield made
    made.judges.close()


@pytest.fixture(scope="session")
def other_bundle(tiny_checkpoint: Path, export_bundle: Any) -> Path:
    """The same model in another format: another bundle, whose answers may differ."""
    made: Path = export_bundle(tiny_checkpoint, precision="int8", self_test=True)
    return made


def test_nothing_new_is_nothing_to_do(watched: Watched) -> None:
    watched.file.touch()
    before = watched.judges.now
    assert watched.changed() == ""
    assert watched.judges.now is before
    assert watched.status.snapshot().counters == {}


def test_another_bundle_is_taken_over(watched: Watched, bundle: Path, other_bundle: Path) -> None:
    bundle.rename(bundle.with_name("old"))
    shutil.copytree(other_bundle, bundle)
    assert watched.changed() == ""
    expected = edgevlm_runtime.load(other_bundle).bundle.content_digest
    assert watched.judges.now.bundle == expected
    assert watched.status.snapshot().counters == {"reloads.taken": 1}


def altered(bundle: Path) -> None:
    largest = max(bundle.iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 255
    largest.write_bytes(bytes(data))


def incomplete(bundle: Path) -> None:
    max(bundle.iterdir(), key=lambda file: file.stat().st_size).unlink()


@pytest.mark.parametrize(("spoil", "said"), [(altered, "is not the file"), (incomplete, "missing file")])
def test_a_bundle_that_is_not_whole_is_refused(
    watched: Watched, bundle: Path, other_bundle: Path, spoil: Any, said: str
) -> None:
    before = watched.judges.now
    bundle.rename(bundle.with_name("old"))
    shutil.copytree(other_bundle, bundle)
    spoil(bundle)
    assert said in watched.changed()
    assert watched.judges.now is before
    assert watched.status.healthy, "the old one goes on"
    shutil.rmtree(bundle)
    shutil.copytree(other_bundle, bundle)
    assert watched.changed() == ""
    assert watched.judges.now is not before
    assert watched.status.snapshot().counters == {"reloads.refused": 1, "reloads.taken": 1}


def test_a_bundle_that_answers_otherwise_than_its_exporter_stored_is_refused(
    watched: Watched, bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine whose kernels compute something else: the stored embeddings are not what comes out."""
    before = watched.judges.now
    bundle.rename(bundle.with_name("old"))
    shutil.copytree(other_bundle, bundle)
    compute = edgevlm_runtime.vision.encoder.ImageEncoder.compute

    def off(self: Any, image: Any, *more: Any) -> Any:
        found = compute(self, image, *more)
        return replace(found, embeddings=found.embeddings + 1)

    monkeypatch.setattr(edgevlm_runtime.vision.encoder.ImageEncoder, "compute", off)
    assert "failed its self-test" in watched.changed()
    assert watched.judges.now is before


def test_another_question_is_taken_over_without_loading_anything(watched: Watched) -> None:
    before = watched.judges.now
    watched.rewrite("Is there a scratch?", "Is there a dent?")
    assert watched.changed() == ""
    now = watched.judges.now
    assert now.plan.questions[0].text == "Is there a dent?"
    assert now.vlm is before.vlm
    assert watched.followed == [now.plan]


def test_every_file_that_questions_need_is_looked_at(tmp_path: Path, bundle: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    question = '[[question]]\nname = "holes"\ntext = "How many?"\nschema_file = "schema.json"\n'
    watched = Watched(tmp_path, bundle, more=FOLLOWED + question)
    try:
        assert {bundle, watched.file, schema} <= set(watched.reload.paths())
    finally:
        watched.judges.close()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "line-1"', 'name = "line-2"', "name changed: start the watch again"),
        ('kind = "every"', 'kind = "every"\nframes = 2', "trigger changed"),
        ('choices = ["yes", "no"]', 'choices = ["yes", "no", "perhaps"]', "verdicts are yes, no, perhaps, unsure now"),
        ('choices = ["yes", "no"]', 'choices = ["yes", "yes"]', "yes"),
        ('text = "Is there a scratch?"', "text = 3", "line"),
        ('text = "Is there a scratch?"', f'text = "{"long " * 5000}"', "tokens"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(watched: Watched, old: str, new: str, said: str) -> None:
    before = watched.judges.now
    watched.rewrite(old, new)
    assert said in watched.changed()
    assert watched.judges.now is before
    assert watched.followed == []
    watched.rewrite(new, old)
    assert watched.changed() == "", "well again"


@pytest.mark.parametrize(("flips", "taken"), [(2, True), (3, False)])
def test_kept_frames_decide_where_the_plan_says_so(
    tmp_path: Path, bundle: Path, other_bundle: Path, flips: int, taken: bool
) -> None:
    asked: list[tuple[Path, VLM, Plan]] = []

    def count(file: Path, vlm: VLM, plan: Plan) -> int:
        asked.append((file, vlm, plan))
        return flips

    watched = Watched(tmp_path, bundle, count, FOLLOWED + "max_flips = 2\n")
    bundle.rename(bundle.with_name("old"))
    shutil.copytree(other_bundle, bundle)
    text = watched.changed()
    digest = edgevlm_runtime.load(other_bundle).bundle.content_digest
    assert (watched.judges.now.bundle == digest) is taken
    assert text == "" if taken else "3 verdicts on kept frames differ, 2 may" in text
    ((file, vlm, plan),) = asked
    assert (file, vlm.bundle.content_digest, plan) == (tmp_path / "records.jsonl", digest, watched.plan)
    watched.judges.close()


def test_a_running_watch_changes_its_bundle_between_two_frames_and_back_when_the_new_one_fails(
    tmp_path: Path, bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: files on disk, a judge that passes its checks and fails on the line, records that say which."""
    monkeypatch.setattr(changes.follow, "__defaults__", (0.05,))
    plan = make_plan(tmp_path, bundle, loop=True, more=FOLLOWED)
    old = edgevlm_runtime.load(bundle)
    new = edgevlm_runtime.load(other_bundle).bundle.content_digest
    judge, failing = Judge.judge, threading.Event()

    def fails(self: Judge, asked: Any) -> Any:
        if failing.is_set() and self._parts[0]._session._pipeline.bundle.content_digest == new:
            raise EdgeVLMError("out of memory")
        return judge(self, asked)

    monkeypatch.setattr(Judge, "judge", fails)
    stop, said = threading.Event(), list[str]()
    arguments = {"stop": stop, "show": said.append, "plan_file": tmp_path / "plan.toml", "read_plan": read}
    running = threading.Thread(target=lambda: run(plan, old, **arguments))
    running.start()

    def bundles() -> list[str]:
        return list(dict.fromkeys(one.bundle for one in records(tmp_path)))

    try:
        until(bundles, "records of the old bundle")
        failing.set()
        put_in_place(other_bundle, bundle)
        until(lambda: said, "the new one is taken over")
        begun = len(records(tmp_path))
        until(lambda: len(records(tmp_path)) > begun + 10, "and left")
        assert bundles() == [old.bundle.content_digest]
        failing.clear()
        (bundle / "manifest.json").touch()
        until(lambda: new in bundles(), "records of the new bundle")
    finally:
        stop.set()
        running.join(60)
    assert "reload" not in [one.name for one in threading.enumerate()]
    found = records(tmp_path)
    assert bundles() == [old.bundle.content_digest, new]
    assert problems(tmp_path) == ()
    assert all(answered(one) for one in found), "no frame went without a verdict"
    assert [one.number for one in found] == list(range(1, len(found) + 1))


def test_the_first_bundle_leaves_memory_when_another_has_proved_itself(
    tmp_path: Path, bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes.follow, "__defaults__", (0.05,))
    plan = make_plan(tmp_path, bundle, loop=True, more=FOLLOWED)
    first, stop = list[weakref.ref[VLM]](), threading.Event()

    def load() -> VLM:
        vlm = edgevlm_runtime.load(bundle)
        first.append(weakref.ref(vlm))
        return vlm

    arguments = {"stop": stop, "plan_file": tmp_path / "plan.toml", "read_plan": read}
    running = threading.Thread(target=lambda: run(plan, load, **arguments))
    running.start()

    def gone() -> bool:
        gc.collect()
        return first[0]() is None

    try:
        until(lambda: records(tmp_path), "records of the first bundle")
        assert not gone()
        put_in_place(other_bundle, bundle)
        until(gone, "the first one has left")
        assert running.is_alive()
    finally:
        stop.set()
        running.join(60)


def put_in_place(new: Path, bundle: Path) -> None:
    """As one replaces a bundle: the new folder is whole when it gets the name."""
    copied = Path(shutil.copytree(new, bundle.with_name("new")))
    bundle.rename(bundle.with_name("old"))
    copied.rename(bundle)


def answered(record: Record) -> bool:
    return record.status == "in time" and not any(answer.error for answer in record.answers)
