"""Plans that are read, and those that are refused: which line, which key, what is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.question import Golden
from edgevlm.watch.plan.plan import Deadline, Page, Records, Reload, Reuse
from edgevlm.watch.plan.read import LARGEST, read
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import plans

WHOLE = """\
name = "line-1"
bundle = "bundles/inspector"
system = "You inspect parts."
at_start = "fail"
before_s = 2
waiting = 3
max_frames = 10

[loading]
threads = 2
image_cache_dir = "cache"

[source]
kind = "video"
path = "/srv/line.mp4"

[trigger]
kind = "every"
frames = 5

[[region]]
name = "rim"
box = [0.1, 0.2, 0.5, 1]
mask = "mask.png"
polygons = [[[0, 0], [10, 0], [10, 10]]]

[golden]
images = ["good.png"]
text = "The first picture is a good part."

[[question]]
name = "scratch"
text = "Is there a scratch?"
region = "rim"
choices = ["yes", "no"]
verdicts = {yes = "reject", no = "ok"}

[[question]]
text = "What is it?"

[verdict]
order = ["reject", "unsure", "ok"]
deadline_ms = 400
default = "reject"

[reuse]
below = 0.02
at_most = 5

[records]
file = "records.jsonl"
rotate_mb = 1

[[sink]]
kind = "mqtt"
host = "broker"

[page]
port = 0

[reload]
watch = true
max_flips = 0
"""


@pytest.fixture
def refused(tmp_path):
    """The error of a plan, without its file's name."""

    def line(text: str) -> str:
        file = plans.write(tmp_path, text)
        with pytest.raises(EdgeVLMError) as error:
            read(file)
        said = str(error.value)
        assert "\n" not in said
        assert said.startswith(f"{file}: ")
        return said.removeprefix(f"{file}: ")

    return line


def test_every_table(tmp_path):
    plans.picture(tmp_path / "mask.png")
    plans.picture(tmp_path / "good.png")
    plan = read(plans.write(tmp_path, WHOLE))
    assert (plan.name, plan.bundle, plan.system) == ("line-1", tmp_path / "bundles/inspector", "You inspect parts.")
    assert (plan.at_start, plan.before_s, plan.waiting, plan.max_frames) == ("fail", 2, 3, 10)
    assert plan.loading == {"threads": 2, "image_cache_dir": tmp_path / "cache"}
    assert (plan.source.kind, plan.source.options.path) == ("video", Path("/srv/line.mp4"))
    assert plan.trigger.kind == "every"
    triangle = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0))
    assert plan.regions == (
        Region(name="rim", box=(0.1, 0.2, 0.5, 1.0), mask=tmp_path / "mask.png", polygons=(triangle,)),
    )
    assert plan.golden == Golden(images=(tmp_path / "good.png",), text="The first picture is a good part.")
    first, second = plan.questions
    assert (first.name, first.kind, first.region) == ("scratch", "choice", "rim")
    assert first.options.verdicts == {"yes": "reject", "no": "ok"}
    assert (second.name, second.text, second.kind) == ("q2", "What is it?", "text")
    assert plan.order == ("reject", "unsure", "ok")
    assert plan.deadline == Deadline(ms=400, default="reject")
    assert plan.reuse == Reuse(below=0.02, at_most=5)
    assert plan.records == Records(file=tmp_path / "records.jsonl", rotate_mb=1)
    assert [(sink.kind, sink.options.host) for sink in plan.sinks] == [("mqtt", "broker")]
    assert plan.page == Page(port=0)
    assert plan.reload == Reload(watch=True, max_flips=0)
    assert len(plan.digest) == 64


def test_what_is_left_out_has_defaults(tmp_path):
    plan = read(plans.write(tmp_path))
    assert (plan.regions, plan.golden, plan.sinks, plan.page, plan.loading) == ((), None, (), None, {})
    assert (plan.deadline, plan.reuse, plan.records, plan.reload) == (Deadline(), Reuse(), Records(), Reload())


def test_a_question_with_a_schema(tmp_path):
    question = """[[question]]
name = "count"
text = "How many?"
schema = {type = "integer"}
rules = [{equals = 4, verdict = "ok"}]
"""
    (asked,) = read(plans.write(tmp_path, plans.plan(question=question))).questions
    assert asked.kind == "schema"


def test_overriding(tmp_path):
    file = plans.write(tmp_path, plans.plan(more='[loading]\nthreads = 2\nverify = "size"\n'))
    plan = read(file, {"loading": {"threads": 1}, "max_frames": 3})
    assert plan.loading == {"threads": 1, "verify": "size"}
    assert plan.max_frames == 3


TWICE = plans.QUESTION + plans.QUESTION
REFUSED = {
    # text of the plan: line, and what is said of it
    plans.plan(top='bundel = "x"\n'): (1, "bundel: unknown key: did you mean bundle?"),
    plans.plan(top="bundle = 3\n"): (1, "bundle: it must be text"),
    plans.plan(top='bundle = ""\n'): (1, "bundle: it is empty"),
    plans.plan(top="\n# nothing\n"): (None, "the key bundle is missing"),
    plans.plan(top=plans.TOP + "max_frames = 0\n"): (3, "max_frames: 0: it must be a whole number of at least 1"),
    plans.plan(top=plans.TOP + "waiting = 1.5\n"): (3, "waiting: it must be a whole number, not a number"),
    plans.plan(top=plans.TOP + "before_s = nan\n"): (3, "before_s: nan is not a finite number"),
    plans.plan(top=plans.TOP + 'at_start = "go"\n'): (3, 'at_start: \'go\': it must be "retry" or "fail"'),
    plans.plan(top='name = "a/b"\nbundle = "x"\n'): (1, "name: 'a/b': it must be letters, digits"),
    plans.plan(source=""): (None, "the table [source] is missing: kinds are rtsp"),
    plans.plan(trigger=""): (None, "the table [trigger] is missing: kinds are interval"),
    plans.plan(source="[source]\npath = 'x'\n"): (4, "source: the key kind is missing: kinds are rtsp"),
    plans.plan(source="[source]\nkind = 'vidoe'\n"): (5, "source: kind: there is no such kind: kinds are rtsp"),
    plans.plan(source="[source]\nkind = ['video']\n"): (5, "source: kind: there is no such kind"),
    plans.plan(source="[source]\nkind = 'video'\n"): (4, "source: the key path is missing"),
    plans.plan(source=plans.SOURCE + "patth = 'x'\n"): (7, "source: patth: unknown key: did you mean path?"),
    plans.plan(source="[[source]]\nkind = 'video'\n"): (4, "source: there is one at most: write [source]"),
    plans.plan(question=""): (None, "there is no question: add [[question]]"),
    plans.plan(question="[question]\ntext = 'x'\n"): (12, "question: there may be several: write [[question]]"),
    plans.plan(question=plans.QUESTION + "kind = 'riddle'\n"): (
        16,
        "question 1: kind: there is no such kind: kinds are",
    ),
    plans.plan(question=plans.QUESTION + "temperature = 2\n"): (
        16,
        "question 1: temperature: unknown key: known are name",
    ),
    plans.plan(question=plans.QUESTION + "at_least = 2\n"): (
        16,
        "question 1: at_least: 2.0: it must be a number from 0 to 1",
    ),
    plans.plan(question=plans.QUESTION + "at_least = 'a'\n"): (
        16,
        "question 1: at_least: it must be a number, not text",
    ),
    plans.plan(question=TWICE): (17, "question 2: name: question 1 is called scratch too"),
    plans.plan(question="[[question]]\nchoices = ['a', 'b']\n"): (12, "question 1: the key text is missing"),
    plans.plan(question=plans.QUESTION + "[[question]]\nname = 'b'\ntext = ' '\n"): (
        18,
        "question 2: text: ' ': it must be",
    ),
    plans.plan(question=plans.QUESTION + "region = 'rim'\n"): (
        16,
        "question 1: region: there is no region 'rim': there is no",
    ),
    plans.plan(question="[[question]]\ntext = 'a'\n"): (None, "no question gives a verdict"),
    plans.plan(question="[[question]]\ntext='a'\npatterns=[{match='a', verdit='ok'}]\n"): (
        14,
        "question 1: patterns 1: verdit: unknown key: did you mean verdict?",
    ),
    plans.plan(question="[[question]]\ntext='a'\npatterns=[\n  {match='a', verdict='ok'},\n  {match='b'},\n]\n"): (
        14,
        "question 1: patterns 2: the key verdict is missing",
    ),
    plans.plan(more="[[region]]\nname = 'a'\nbox = [0, 0, 1]\n"): (
        19,
        "region 1: box: it must be a list of length 4, not 3",
    ),
    plans.plan(more="[[region]]\nname = 'a'\nbox = [0.5, 0, 0.5, 1]\n"): (19, "region 1: box: it is empty"),
    plans.plan(more="[[region]]\nname = 'a'\nbox = [9, 8, 7, 9]\n"): (19, "region 1: box: it is empty"),
    plans.plan(more="[[region]]\nname = 'a'\nbox = [-0.1, 0, 0.5, 1]\n"): (
        19,
        "region 1: box: it is outside of the frame",
    ),
    plans.plan(more="[[region]]\nname = 'a'\nbox = [0.1, 0, 1.5, 1]\n"): (19, "region 1: box: it must be all shares"),
    plans.plan(more="[[region]]\nname = 'a'\npolygons = [[[0, 0], [1, 1]]]\n"): (
        19,
        "region 1: polygons 1: it must have at",
    ),
    plans.plan(more="[[region]]\nname = 'a'\npolygons = [[[0, 'a'], [1, 1]]]\n"): (
        19,
        "region 1: polygons 1 1 2: it must be a number, not text",
    ),
    plans.plan(more="[[region]]\nname = 'a'\nmask = 'none.png'\n"): (19, "region 1: mask: no such image file"),
    plans.plan(more="[[region]]\nname = 'a'\n\n[[region]]\nname = 'a'\n"): (
        21,
        "region 2: name: region 1 is called a too",
    ),
    plans.plan(more="[golden]\nimages = []\n"): (18, "golden: images: there is none"),
    plans.plan(more="[golden]\nimages = [\n  'plan.toml'\n]\n"): (18, "golden: images 1: not an image"),
    plans.plan(more="[verdict]\norder = ['yes', 'maybe', 'no']\n"): (
        18,
        "verdict: order 2: no question gives 'maybe': verdicts",
    ),
    plans.plan(more="[verdict]\norder = ['yes', 'yes']\n"): (
        18,
        "verdict: order: ['yes', 'yes']: it must be every verdict once",
    ),
    plans.plan(more="[verdict]\norder = ['yes']\n"): (18, "verdict: order: question scratch gives the verdict no"),
    plans.plan(more="[verdict]\ndeadline_ms = 0\n"): (
        18,
        "verdict: deadline_ms: 0.0: it must be a number of milliseconds",
    ),
    plans.plan(more="[verdict]\ndeadline_ms = 5\ndefault = 'reject'\n"): (
        19,
        "verdict: default: no question gives 'reject'",
    ),
    plans.plan(more="[reuse]\nbelow = 2\n"): (18, "reuse: below: 2.0: it must be a share"),
    plans.plan(more="[records]\nrotate_mb = -1\n"): (18, "records: rotate_mb: -1.0: it must be a number of megabytes"),
    plans.plan(more="[page]\nport = 65536\n"): (18, "page: port: 65536: it must be from 1 to 65535"),
    plans.plan(more="[page]\nhost = '0.0.0.0'\n"): (18, "page: host: '0.0.0.0': it must be a loopback address"),
    plans.plan(more="[page]\nhost = ''\n"): (18, "page: host: '': it must be an address"),
    plans.plan(more="[reload]\nmax_flips = 3\n"): (
        18,
        "reload: max_flips: frames that were kept are found by their records",
    ),
    plans.plan(more="[[sink]]\nkind = 'mqtt'\nhost = 'a b'\n"): (19, "sink 1: host: 'a b': it must be a host's name"),
    plans.plan(more="[[sink]]\nkind = 'fax'\n"): (18, "sink 1: kind: there is no such kind: kinds are terminal, mqtt"),
    plans.plan(more="[[sink]]\nkind = 'mqtt'\ngood = ['ok']\n"): (
        19,
        "sink 1: good: 'ok': it must be one of yes, no, unsure",
    ),
    plans.plan(more="[[sink]]\nkind = 'pictures'\nof = ['ok']\n"): (
        19,
        "sink 1: of: 'ok': it must be of these: yes, no",
    ),
    plans.plan(more="sink = [1]\n"): (17, "question 1: sink: unknown key"),
    plans.plan(more="max_frames = 3\n"): (17, "question 1: max_frames: it belongs to the whole plan: write it above"),
    "sink = [1]\n" + plans.PLAN: (1, "sink: it must be tables: [[sink]]"),
    plans.plan(more="[loading]\nthreads = 0\n"): (18, "loading: threads: 0: it must be"),
    plans.plan(more="[loading]\nprovidr = 'cuda'\n"): (18, "loading: providr: unknown key: did you mean provider?"),
    plans.plan(more="[sinks]\n"): (17, "sinks: unknown key: did you mean sink?"),
    plans.plan(more='[records]\nfile = "a\\u0000b"\n'): (18, "records: file: there is a zero byte in this text"),
}


@pytest.mark.parametrize("text", REFUSED, ids=[said[:40] for _, said in REFUSED.values()])
def test_one_line_with_line_and_key(refused, text):
    line, said = REFUSED[text]
    found = refused(text)
    assert found.startswith(said if line is None else f"line {line}: {said}"), found


def test_no_file(tmp_path):
    with pytest.raises(
        EdgeVLMError, match=r"no such plan: .*none\.toml: edgevlm watch init .*none\.toml writes an example"
    ):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"bundle = ", r"not TOML: Invalid value \(at (line 1|end)"),
        (b"bundle = 'a'\nbundle = 'b'\n", "not TOML: Cannot overwrite a value"),
        (b"\xff\xfe", "cannot read the plan .*: not a UTF-8 text"),
        (b"a = " + b"[" * 100_000, "(not a plan: it is nested too deeply|not TOML)"),
        (b"a = " + b"1" * 5000, "not TOML: Exceeds the limit"),
        (b"#" * (LARGEST + 1), "cannot read the plan .*: larger than"),
    ],
    ids=["cut short", "twice", "no text", "deep", "digits", "large"],
)
def test_no_toml(tmp_path, data, said):
    file = tmp_path / "plan.toml"
    file.write_bytes(data)
    with pytest.raises(EdgeVLMError, match=said):
        read(file)


def test_windows_line_ends_and_mark(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_bytes(b"\xef\xbb\xbf" + plans.PLAN.replace("\n", "\r\n").encode())
    (tmp_path / "other").mkdir()
    there = read(plans.write(tmp_path / "other"))
    assert replace(read(file), bundle=there.bundle, source=there.source) == there


def test_loopback_needs_no_token_and_others_do(tmp_path):
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert read(plans.write(tmp_path, plans.plan(more=f"[page]\nhost = '{host}'\n"))).page.host == host
    open_page = "[page]\nhost = '0.0.0.0'\ntoken = 'secret'\n"
    assert read(plans.write(tmp_path, plans.plan(more=open_page))).page.token == "secret"
