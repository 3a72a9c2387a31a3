"""A quick start: flags make the same plan as a file that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm.watch.plan.flags import Flags, data_of, grouped, plan_of
from edgevlm.watch.plan.read import read
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import plans

VIDEO = "line.mp4"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / VIDEO).touch()
    return tmp_path


def flags(**given: object) -> Flags:
    standard = {
        "bundle": Path("inspector"),
        "source": (VIDEO,),
        "questions": ("Is there a scratch?",),
        "choices": ("yes,no",),
    }
    return Flags(**{**standard, **given})  # type: ignore[arg-type]


def test_they_make_the_plan_of_a_file(here):
    plans.picture(here / "good.png")
    by_flags = plan_of(
        flags(
            questions=("Is there a scratch?", "Is there a hole?"),
            choices=("yes, no", "a,b"),
            region="0.1,0,0.5,1",
            golden=(Path("good.png"),),
            deadline=400.0,
            default="yes",
            sinks=("jsonl:records.jsonl", "mqtt://broker:1884/works", "terminal"),
            page=0,
            max_frames=5,
            system="Be brief.",
            every=0.5,
            name="line-1",
            loading={"threads": 1},
        )
    )
    text = """\
name = "line-1"
bundle = "inspector"
system = "Be brief."
max_frames = 5
[loading]
threads = 1
[source]
kind = "video"
path = "line.mp4"
[trigger]
kind = "interval"
seconds = 0.5
[[region]]
name = "region"
box = [0.1, 0, 0.5, 1]
[golden]
images = ["good.png"]
[[question]]
text = "Is there a scratch?"
choices = ["yes", "no"]
region = "region"
[[question]]
text = "Is there a hole?"
choices = ["a", "b"]
region = "region"
[verdict]
deadline_ms = 400
default = "yes"
[records]
file = "records.jsonl"
[[sink]]
kind = "mqtt"
host = "broker"
port = 1884
prefix = "works"
[[sink]]
kind = "terminal"
[page]
port = 0
"""
    Path("plan.toml").write_text(text)
    assert by_flags == read(Path("plan.toml"))


def test_the_least():
    plan = plan_of(flags())
    assert (plan.source.kind, plan.trigger.kind, plan.trigger.options.frames) == ("video", "every", 1)
    assert [sink.kind for sink in plan.sinks] == ["terminal"]
    assert (plan.page, plan.records.file, plan.deadline.ms) == (None, None, None)


def test_a_camera_is_asked_every_second():
    trigger = plan_of(flags(source=("rtsp://camera/1",))).trigger
    assert (trigger.kind, trigger.options.seconds) == ("interval", 1)


def test_records_alone_keep_the_terminal():
    plan = plan_of(flags(sinks=("jsonl:a.jsonl",)))
    assert (plan.records.file, [sink.kind for sink in plan.sinks]) == (Path("a.jsonl"), ["terminal"])


@pytest.mark.parametrize(
    ("given_flags", "said"),
    [
        ({"every": 1.0, "trigger": "every:3"}, "--every and --trigger both say which frames"),
        ({"default": "yes"}, "--default is the verdict when a deadline passes: give --deadline MS too"),
        ({"region": "1,2,3"}, "--region 1,2,3: it must be four numbers"),
        ({"region": "a,b,c,d"}, "--region a,b,c,d: it must be four numbers"),
        ({"region": "nan,0,1,1"}, "region 1: box 1: nan is not a finite number"),
        ({"region": "5,5,5,9"}, "region 1: box: it is empty"),
        ({"sinks": ("fax:1",)}, "--sink: unknown sink: fax: known are terminal, mqtt"),
        ({"sinks": ("jsonl:",)}, "--sink jsonl:FILE: one file of records, and its name, are needed"),
        ({"sinks": ("jsonl:a", "jsonl:b")}, "--sink jsonl:FILE: one file of records"),
        ({"sinks": ("mqtt://",)}, "--sink: there is no host in 'mqtt://': write mqtt://HOST"),
        ({"sinks": ("mqtt://broker:99999",)}, "--sink: 'mqtt://broker:99999' is no address"),
        ({"sinks": ("opcua:opc.tcp://plc",)}, "--sink: 'opcua:opc.tcp://plc': which variable is missing"),
        ({"trigger": "clock"}, "--trigger: unknown trigger: clock: known are interval"),
        ({"trigger": "every:often"}, "--trigger: 'often' is not a number: write every:NUMBER"),
        ({"trigger": "every:0"}, "trigger: frames: 0: it must be a whole number of at least 1"),
        ({"source": ("nowhere.mp4",)}, "no such source: 'nowhere.mp4': give a file"),
        ({"source": (VIDEO, VIDEO)}, "several sources: 'line.mp4', 'line.mp4'"),
        ({"source": ("ftp://me:secret@host/a",)}, r"unknown kind of address: 'ftp://\*\*\*@host/a'"),
        ({"source": ("*.jpg",)}, r"no file is called '\*\.jpg'"),
        ({"source_kind": "webcam"}, "unknown source: webcam: known are rtsp"),
        ({"choices": ("yes",)}, "question 1: "),
        ({"choices": (None,)}, "no question gives a verdict"),
        ({"golden": (Path("none.png"),)}, "golden: images 1: no such image file: none.png"),
        ({"page": 65536}, "page: port: 65536"),
    ],
)
def test_one_line(given_flags, said):
    with pytest.raises(EdgeVLMError, match=said) as error:
        plan_of(flags(**given_flags))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("q c=1", ["1"]),
        ("q q c=1", ["1", "1"]),
        ("c=1 q q", ["1", "1"]),
        ("q c=1 q", ["1", None]),
        ("q q c=1 q c=2", ["1", "1", "2"]),
        ("c=0 q c=1 q", ["1", "0"]),
        ("q", [None]),
    ],
)
def test_choices_belong_to_the_questions_before_them(order, found):
    words = order.split()
    names = ["question" if word == "q" else "choices" for word in words]
    assert list(grouped(names, [word[2:] for word in words if word != "q"])) == found


@pytest.mark.parametrize("order", ["q c=1 c=2", "c=1 c=2 q"])
def test_choices_of_nobody(order):
    words = order.split()
    names = ["question" if word == "q" else "choices" for word in words]
    with pytest.raises(EdgeVLMError, match="--choices 2 belongs to no question"):
        grouped(names, [word[2:] for word in words if word != "q"])


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_any_words_give_data_or_one_line(source, trigger, sink, region):
    said = ""
    try:
        data_of(flags(source=(source,), trigger=trigger, sinks=(sink,), region=region))
    except EdgeVLMError as error:
        said = str(error)
    assert "\n" not in said
