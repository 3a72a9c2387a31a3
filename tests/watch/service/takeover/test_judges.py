"""A new judge takes the seat between two frames, and leaves it when it fails on its first ones."""

from typing import Any

import pytest

from edgevlm.watch.service.takeover.judges import PROBATION, Judges, Seated
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.watching import FakeJudge, frame, judgement


def seated(judge: FakeJudge) -> Seated:
    nothing: Any = None
    return Seated(judge, nothing, nothing)


def broken_from(sequence: int) -> FakeJudge:
    def answer(asked):
        if asked.sequence >= sequence:
            raise RuntimeError("the kernel cannot be run")
        return judgement("reject")

    return FakeJudge(answer)


def silent() -> FakeJudge:
    return FakeJudge(lambda _: judgement("unsure", error="no answer"))


def watched(first: FakeJudge) -> tuple[Judges, list[Seated], Status]:
    changed: list[Seated] = []
    status = Status()
    return Judges(seated(first), changed.append, status), changed, status


def test_a_new_judge_is_asked_from_the_next_frame_on_and_the_old_one_goes_once_it_has_proved_itself():
    old, new = FakeJudge(), FakeJudge(lambda _: judgement("reject"))
    judges, changed, _ = watched(old)
    assert judges.judge(frame(1)).verdict == "accept"
    offered = seated(new)
    judges.offer(offered)
    assert judges.now.judge is old
    for i in range(PROBATION):
        assert not old.closed
        assert judges.judge(frame(2 + i)).verdict == "reject"
    assert old.closed
    assert (judges.now, changed) == (offered, [offered])


@pytest.mark.parametrize("make", [lambda: broken_from(3), silent])
def test_one_that_fails_on_its_first_frames_leaves_and_the_old_one_answers_the_same_frame(make):
    old, new = FakeJudge(), make()
    judges, changed, status = watched(old)
    before = judges.now
    judges.offer(seated(new))
    verdicts = [judges.judge(frame(i)).verdict for i in (2, 3, 4)]
    assert verdicts[-2:] == ["accept", "accept"]
    assert "unsure" not in verdicts
    assert new.closed
    assert not old.closed
    assert (judges.now, changed[-1], len(changed)) == (before, before, 2)
    assert [one.name for one in status.snapshot().conditions] == ["reload"]
    assert status.healthy
    assert status.snapshot().counters == {"reloads.returned": 1}


def test_one_that_has_proved_itself_is_not_sent_away():
    judges, _, _ = watched(FakeJudge())
    judges.offer(seated(broken_from(PROBATION + 1)))
    for i in range(1, PROBATION + 1):
        judges.judge(frame(i))
    with pytest.raises(RuntimeError):
        judges.judge(frame(PROBATION + 1))


def test_the_first_judge_has_nobody_behind_it():
    judges, _, _ = watched(FakeJudge(lambda _: (_ for _ in ()).throw(EdgeVLMError("no"))))
    with pytest.raises(EdgeVLMError):
        judges.judge(frame())


def test_a_newer_one_before_the_first_has_proved_itself():
    """The one that did prove itself stays behind both."""
    old, first, second, third = FakeJudge(), FakeJudge(), FakeJudge(), broken_from(0)
    judges, _, _ = watched(old)
    judges.offer(seated(first))
    judges.judge(frame(1))
    judges.offer(seated(second))
    judges.offer(seated(third))
    assert second.closed, "it was never asked"
    judges.judge(frame(2))
    assert first.closed
    assert third.closed
    assert judges.now.judge is old
    assert old.seen == [2]
    judges.close()
    assert old.closed
