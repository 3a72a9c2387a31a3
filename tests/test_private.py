"""No command calls anybody, leaves a file outside the folders it was given, or imports from the current folder.

It is seen from outside, by strace.

onnxruntime begins to report about ten seconds after its import, when most commands have ended. So two processes stay
alive beside them, one as users run it and one with onnxruntime's reports switched on: once the second is seen to
report, the first has had the time, and must be silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.support.watched import Seen, Watch

PATIENCE_S = 180
LONG_ENOUGH_S = 30
"""After which onnxruntime has reported, where it may not be tried: without a network namespace it would be true."""
ANSWER = """
import sys
import edgevlm_runtime
with edgevlm_runtime.load(sys.argv[1]).session(sys.argv[2]) as session:
    print(session.ask("What is it?", max_new_tokens=2).token_ids)
sys.stdin.read()
"""
REPORT = "import sys; from edgevlm_runtime.engines.ort_library import ort; sys.stdin.read()"
LOOSE = """
import ctypes, pathlib, socket
libc = ctypes.CDLL(None)
number = libc.socket(2, 2, 0)
libc.connect(number, bytes([2, 0, 0, 9, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 16)
pathlib.Path("here").write_text("x")
pathlib.Path.home().joinpath("there").mkdir()
passing = pathlib.Path("/tmp/edgevlm-test-passing")
passing.write_text("x")
passing.unlink()
"""
"""A process that does all that is looked for, past Python's own socket module and past a look at the end."""

QUESTION = ("--question", "Is there a scratch?", "--choices", "yes,no")

TUNING = "XDG_CACHE_HOME/edgevlm/tuning/"
"""What `edgevlm tune` is asked to remember (docs/cli.md)."""
COMMANDS = (
    "export",
    "run",
    "run-json",
    "watch",
    "eval",
    "bench",
    "verify",
    "tune",
    "inspect",
    "models",
    "doctor",
    "compile",
)
REFUSED = {"compile": 2}
"""A bundle for ONNX Runtime has no engines: one line says so, and that is watched as well."""


@dataclass(frozen=True)
class Watched:
    """Everything that was run."""

    given: Path
    """The folder that the commands were given to write in."""
    commands: dict[str, Seen]
    quiet: Seen
    """A program that answered, and lived on."""
    reporting: Seen | None
    """onnxruntime with its reports on; None where they would really be sent."""


def arguments(given: Path, checkpoint: Path, picture: Path) -> dict[str, list[object]]:
    bundle = given / "bundle"
    evaluate = ["eval", bundle, "--dataset", "inspection", "-n", "2", "--max-new-tokens", "2"]
    measure = ["bench", bundle, "--repeats", "1", "--warmup", "0", "--new-tokens", "2"]
    ask = ["run", bundle, "--image", picture, "--prompt", "What is it?", "--max-new-tokens", "2"]
    return {
        "export": ["export", checkpoint, "-o", bundle],
        "run": [*ask, "--image-cache", given / "images", "--context-cache", given / "contexts", "--lookup"],
        "run-json": [*ask, "--json"],
        "watch": ["watch", bundle, picture, *QUESTION, "--page", "0", "--sink", f"jsonl:{given / 'records.jsonl'}"],
        "eval": [*evaluate, "--out", given / "answers.json"],
        "bench": [*measure, "--report", given / "page.html"],
        "verify": ["verify", bundle],
        "tune": ["tune", bundle, "--rounds", "1"],
        "inspect": ["inspect", bundle],
        "models": ["models"],
        "doctor": ["doctor"],
        "compile": ["compile", bundle],
    }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("private")
    given, picture = root / "given", root / "picture.png"
    given.mkdir()
    Image.radial_gradient("L").resize((60, 44)).convert("RGB").save(picture)
    todo = arguments(given, tiny_checkpoint, picture)

    def edgevlm(name: str) -> Seen:
        return Watch(root / name).run("-m", "edgevlm", *todo.pop(name))

    commands = {"export": edgevlm("export")}
    quiet, reporting = Watch(root / "quiet"), Watch(root / "reporting")
    answering = quiet.start("-c", ANSWER, given / "bundle", picture)
    report = reporting.start("-c", REPORT, ORT_DISABLE_TELEMETRY="0") if reporting.isolated else None
    begun = time.monotonic()
    try:
        commands |= {name: edgevlm(name) for name in tuple(todo)}
        patience = PATIENCE_S if report else LONG_ENOUGH_S
        while not reporting.calls() and time.monotonic() < begun + patience:
            time.sleep(0.5)
        yield Watched(given, commands, quiet.end(answering), reporting.end(report) if report else None)
    finally:
        for process in (answering, report):
            if process is not None and process.poll() is None:
                process.communicate(timeout=PATIENCE_S)


def strangers(seen: Seen, allowed: Path, places: Path) -> list[str]:
    """What was written elsewhere than in `allowed` and in the places that are looked at afterwards."""
    return sorted(name for name in seen.written if not Path(name).is_relative_to(allowed) and str(places) not in name)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_private(watched: Watched, name: str) -> None:
    seen = watched.commands[name]
    assert seen.returncode == REFUSED.get(name, 0), seen.output
    assert seen.calls == ()
    assert [file for file in seen.left if not (name == "tune" and file.startswith(TUNING))] == []
    assert strangers(seen, watched.given, watched.given.parent / name) == []


def test_tuning_is_where_the_documents_say(watched: Watched) -> None:
    assert [file.startswith(TUNING) for file in watched.commands["tune"].left] == [True]


def test_a_program_that_lives_on_is_private(watched: Watched) -> None:
    assert watched.quiet.returncode == 0, watched.quiet.output
    assert watched.quiet.calls == ()
    assert watched.quiet.left == ()
    assert strangers(watched.quiet, watched.given, watched.given.parent / "quiet") == []


def test_the_user_may_want_reports_and_they_are_seen(watched: Watched) -> None:
    """What the user set stays. Fails where an onnxruntime has ceased to report: the proof above needs one that does."""
    if watched.reporting is None:
        pytest.skip("no network namespace can be made here, and nothing may really be sent")
    assert watched.reporting.returncode == 0, watched.reporting.output
    assert watched.reporting.calls
    assert [file for file in watched.reporting.left if file.endswith("/deviceid")]


def test_the_watch_sees(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "watch")
    seen = watch.run("-c", LOOSE)
    assert seen.returncode == 0, seen.output
    assert len(seen.calls) == 1
    assert "192.0.2.1" in seen.calls[0]
    assert seen.left == ("CWD/here",)
    home = str(watch.places["HOME"])
    assert {f"{home}/there", "/tmp/edgevlm-test-passing"} <= seen.written
    assert strangers(seen, tmp_path / "given", tmp_path / "watch") == ["/tmp/edgevlm-test-passing"]
