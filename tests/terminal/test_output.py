"""Where output goes, and how it reads."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from edgevlm.terminal.output import human_bytes, setup_logging, stdout_kept_clean, table
from edgevlm.terminal.progress import StageProgress


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (14 * 2**30, "14.0 GiB"), (3 * 2**50, "3072.0 TiB")],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


def test_table_aligns_and_takes_ragged_rows():
    assert table([("a", "bbb", "c"), ("aaaa", "b"), ("x",)]) == "  a     bbb  c\n  aaaa  b\n  x"


def test_prints_of_libraries_leave_stdout(capsys):
    with stdout_kept_clean():
        print("chatter")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "chatter\n"


def test_warnings_are_one_line_on_stderr_and_not_doubled(capsys):
    setup_logging(False)
    setup_logging(False)
    logging.getLogger("edgevlm_runtime.somewhere").warning("watch out")
    logging.getLogger("edgevlm_runtime.somewhere").info("detail")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "WARNING: watch out\n"


def test_progress_without_a_terminal_is_one_line_a_stage(capsys):
    with StageProgress() as progress:
        for done in range(4):
            progress("decoder", done, 3)
        progress("hashing [all]", 0, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "decoder\nhashing [all]\n"


SHOW = """
from edgevlm.terminal.progress import StageProgress
with StageProgress() as progress:
    for done in range(4):
        progress("decoder", done, 3)
        progress("encoder", done, 3)
"""
NO_RICH = "import sys; sys.modules['rich'] = None\n"


def on_terminal(code: str) -> str:
    """What a process writes to a terminal that is its stderr."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "wb") as stderr:
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
            subprocess.run([sys.executable, "-c", code], check=True, stderr=stderr, env=environment)
            return os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)


def test_progress_on_a_terminal_is_bars():
    shown = on_terminal(SHOW)
    assert "3/3" in shown
    assert "\x1b[" in shown


def test_progress_on_a_devices_terminal_is_one_line_a_stage():
    """A device has no rich."""
    assert on_terminal(NO_RICH + SHOW).splitlines() == ["decoder", "encoder"]
