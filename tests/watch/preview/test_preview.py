"""A dry run on a real bundle: what it says is what the runtime counts and measures."""

from __future__ import annotations

import pytest

import edgevlm
from edgevlm.watch.plan.read import read
from edgevlm.watch.preview.preview import preview
from edgevlm.watch.preview.report import rows
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import plans

SIZE = (64, 48)
MORE = """
[[region]]
name = "left"
box = [0, 0, 32, 48]

[golden]
images = ["good.png"]
text = "First a good part."

[[sink]]
kind = "webhook"
url = "https://me:secret@host/hook?key=secret"
token = "secret-token"
headers = {Authorization = "secret"}

[verdict]
deadline_ms = 60000
"""
SECOND = """
[[question]]
text = "What is it?"
region = "left"
"""


@pytest.fixture(scope="module")
def vlm(tiny_bundle):
    return edgevlm.load(tiny_bundle)


@pytest.fixture
def plan(tmp_path, tiny_bundle):
    plans.picture(tmp_path / "good.png", SIZE)

    def of(more: str = MORE, question: str = plans.QUESTION + SECOND):
        files = [str(plans.picture(tmp_path / "part.png", SIZE))]
        source = f"[source]\nkind = 'pictures'\nfiles = {files}\n"
        top = f"bundle = '{tiny_bundle}'\n"
        return read(plans.write(tmp_path, plans.plan(top=top, source=source, question=question, more=more)))

    return of


def test_tokens_are_those_of_a_session(plan, vlm, tmp_path):
    found = preview(plan(), vlm)
    with vlm.session(tmp_path / "good.png", tmp_path / "part.png") as session:
        answers = [session.ask(f"First a good part.\n{text}") for text in ("Is there a scratch?", "What is it?")]
    assert [one.prompt_tokens for one in found.questions] == [answer.prompt_tokens for answer in answers]
    assert [one.image_tokens for one in found.questions] == [answer.image_tokens for answer in answers]


def test_what_it_says(plan, vlm):
    found = preview(plan(), vlm)
    assert (found.cost.width, found.cost.height) == SIZE
    assert (found.source.kind, found.source_trouble, found.regions, found.golden) == ("pictures", None, ("left",), 1)
    assert [one.verdicts for one in found.questions] == [("yes", "no"), ()]
    assert found.meets_deadline is (found.cost.fresh.p95 <= 60_000)
    assert found.bundle_digest == vlm.bundle.content_digest
    text = str(list(rows(found)))
    assert "secret" not in text + str(found)
    assert "https://host/hook" in text


def test_a_deadline_that_cannot_be_met(plan, vlm):
    found = preview(plan("[verdict]\ndeadline_ms = 0.001\n", plans.QUESTION), vlm)
    assert found.meets_deadline is False
    assert any("is NOT met" in line[1] for line in rows(found))


def test_without_a_deadline_nothing_is_promised(plan, vlm):
    assert preview(plan("", plans.QUESTION), vlm).meets_deadline is None


def test_a_region_outside_of_the_frames_that_come(plan, vlm):
    with pytest.raises(EdgeVLMError, match=r"region 1: region far: the box .* is not inside the frame, which is 64x48"):
        preview(plan("[[region]]\nname = 'far'\nbox = [0, 0, 65, 48]\n", plans.QUESTION), vlm)
