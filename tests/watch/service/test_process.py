"""`edgevlm watch` as a supervisor sees it: signals, the notify socket, what is left to send."""

import json
import signal
import subprocess
import time
from pathlib import Path

from tests.support.polling import until
from tests.support.running import problems, process, records, supervisor, write_plan

TERMINAL = '[[sink]]\nkind = "terminal"\njson = true\n'
PIPE = 1 << 16


def test_it_tells_its_supervisor_and_sigterm_ends_it(tmp_path: Path, tiny_bundle: Path) -> None:
    plan = write_plan(tmp_path, tiny_bundle, loop=True)
    with (
        supervisor(tmp_path) as receiver,
        process(plan, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000") as running,
    ):
        heard = [receiver.recv(100)]
        until(lambda: records(tmp_path), "a record")
        heard += [receiver.recv(100), receiver.recv(100)]
        running.send_signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(receiver.recv(100))
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert heard[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert problems(tmp_path) == ()


def backlog(folder: Path) -> bool:
    """Whether more was judged than the pipe of a reader that sleeps takes."""
    file = folder / "records.jsonl"
    return file.exists() and file.stat().st_size > 2 * PIPE


def test_sigterm_lets_sinks_send_what_waits(tmp_path: Path, tiny_bundle: Path) -> None:
    """The reader of standard output sleeps, wakes after SIGTERM, and gets every verdict."""
    plan = write_plan(tmp_path, tiny_bundle, loop=True, more=TERMINAL)
    with process(plan) as running:
        until(lambda: backlog(tmp_path), "verdicts that wait")
        running.send_signal(signal.SIGTERM)
        printed, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    numbers = [json.loads(line)["number"] for line in printed.splitlines()]
    assert numbers == [one.number for one in records(tmp_path)]


def test_a_second_signal_ends_it_at_once(tmp_path: Path, tiny_bundle: Path) -> None:
    plan = write_plan(tmp_path, tiny_bundle, loop=True, more=TERMINAL)
    with supervisor(tmp_path) as receiver, process(plan, NOTIFY_SOCKET=str(tmp_path / "notify")) as running:
        until(lambda: backlog(tmp_path), "verdicts that wait for ever")
        running.send_signal(signal.SIGTERM)
        while receiver.recv(100) != b"STOPPING=1":
            pass
        time.sleep(0.1)
        assert running.poll() is None, "it waits for the sink"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == -signal.SIGTERM
    assert problems(tmp_path) == ()


def test_ctrl_c_ends_it_with_a_summary(tmp_path: Path, tiny_bundle: Path) -> None:
    plan = write_plan(tmp_path, tiny_bundle, loop=True)
    with process(plan, "--json") as running:
        until(lambda: records(tmp_path), "a record")
        running.send_signal(signal.SIGINT)
        printed, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    summary = json.loads(printed)
    assert (summary["ended"], summary["last_record"]) == ("stopped", len(records(tmp_path)))


def test_the_example_unit_is_one(tmp_path: Path) -> None:
    import shutil

    import pytest

    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here: install systemd")
    example = Path(__file__).parents[3] / "examples" / "edgevlm-watch.service"
    text = example.read_text(encoding="utf-8")
    unit = tmp_path / "edgevlm-watch.service"
    unit.write_text(text.replace("/opt/edgevlm/bin/edgevlm", "/bin/true"), encoding="utf-8")
    checked = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert (settings["Type"], settings["Restart"], "WatchdogSec" in settings) == ("notify", "on-failure", True)
