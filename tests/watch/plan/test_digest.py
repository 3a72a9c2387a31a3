"""What changes a plan's digest, and what does not."""

from __future__ import annotations

import shutil

import pytest

from edgevlm.watch.plan.read import read
from tests.support import plans

REGION = "[[region]]\nname = 'rim'\nmask = 'mask.png'\n[golden]\nimages = ['good.png']\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "line"
    folder.mkdir()
    plans.picture(folder / "mask.png")
    plans.picture(folder / "good.png", (32, 32))
    return folder


def digest(folder, text: str) -> str:
    return read(plans.write(folder, text)).digest


def test_it_is_of_what_is_said_not_of_how(folder):
    whole = plans.plan(more=REGION)
    same = [
        whole.replace("\n\n", "\n# a comment\n\n"),
        plans.plan(
            top="bundle = \"./inspector\"\nname = 'line-1'\nwaiting = 8\n", more=REGION + "[reuse]\nat_most = 20\n"
        ),
        plans.plan(more=REGION + "[records]\nrotate_mb = 64\n"),
        plans.plan(question=plans.QUESTION.replace("[[question]]", "[[question]]\nkind = 'choice'"), more=REGION),
        plans.plan(more=REGION.replace("'mask.png'", f"'{folder}/mask.png'")),
    ]
    assert {digest(folder, text) for text in same} == {digest(folder, whole)}


def test_every_change_changes_it(folder):
    texts = [
        plans.plan(more=REGION),
        plans.PLAN,
        plans.plan(top=plans.TOP.replace("line-1", "line-2")),
        plans.plan(top=plans.TOP.replace("inspector", "other")),
        plans.plan(source=plans.SOURCE.replace("line.mp4", "other.mp4")),
        plans.plan(question=plans.QUESTION.replace("scratch?", "scratch ?")),
        plans.plan(question=plans.QUESTION.replace('"yes", "no"', '"no", "yes"')),
        plans.plan(question=plans.QUESTION + "at_least = 0.6\n"),
        plans.plan(question=plans.QUESTION + "at_least = 0.7\n"),
        plans.plan(more="[loading]\nthreads = 1\n"),
        plans.plan(more="[page]\n"),
        plans.plan(more="[[sink]]\nkind = 'terminal'\n"),
        plans.plan(more="[verdict]\ndeadline_ms = 300\n"),
    ]
    assert len({digest(folder, text) for text in texts}) == len(texts)


def test_pictures_count_by_their_contents(folder, tmp_path):
    before = digest(folder, plans.plan(more=REGION))
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert read(moved / "plan.toml").digest == before
    plans.picture(moved / "good.png", (32, 33))
    assert read(moved / "plan.toml").digest != before


def test_it_stays_what_it_was(folder):
    """Records of years ago name it: this figure changes only with the meaning of a plan."""
    text = plans.plan(source="[source]\nkind = 'pictures'\nfiles = ['a.png']\n", more=REGION)
    again = [digest(folder, text) for _ in range(2)]
    assert again[0] == again[1]
    assert set(again[0]) <= set("0123456789abcdef")
