"""Where output goes, and how it reads."""

from __future__ import annotations

import logging

import pytest

from edgevlm.cli.output import human_bytes, setup_logging, stdout_kept_clean, table
from edgevlm.cli.progress import StageProgress


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
