"""Standard streams that are closed, full, or whose reader leaves; and who is heard on them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from edgevlm.json_text import json_text
from edgevlm.terminal import streams
from edgevlm.terminal.errors import ResultLost
from edgevlm.terminal.output import setup_logging

EDGEVLM = [sys.executable, "-P", "-m", "edgevlm"]
needs_shell = pytest.mark.skipif(os.name != "posix", reason="redirections of a POSIX shell")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def shell(redirected: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`edgevlm ARGUMENTS` with redirections; the exit code is that of edgevlm, also in a pipe."""
    script = f'set -o pipefail; "$@" {redirected}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", script, "bash", *EDGEVLM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@needs_shell
@pytest.mark.parametrize(
    ("redirected", "arguments", "code"),
    [
        ("| sleep 0", ("models", "--json"), 141),
        ("| sleep 0", ("--help",), 141),
        (">&-", ("models",), 2),
        pytest.param(">/dev/full", ("models",), 2, marks=needs_full),
        pytest.param(">/dev/full", ("models", "--json"), 2, marks=needs_full),
        ("2>&-", ("models",), 0),
        ("2>&-", ("inspect", "nowhere"), 2),
        pytest.param("2>/dev/full", ("inspect", "nowhere"), 2, marks=needs_full),
        pytest.param(">/dev/full 2>/dev/full", ("models",), 2, marks=needs_full),
    ],
)
def test_a_lost_result_is_a_failure(redirected, arguments, code):
    done = shell(redirected, *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    expected = [] if code in (0, 141) or "2>" in redirected else ["Error: standard output"]
    assert [line[: len("Error: standard output")] for line in done.stderr.splitlines()] == expected


@needs_shell
def test_a_reader_that_leaves_a_stream_of_words(tiny_bundle):
    done = shell("| sleep 0", "run", tiny_bundle, "-p", "x", "--max-new-tokens", "8")
    assert (done.returncode, done.stderr) == (141, "")


@needs_shell
def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    """What native libraries print to descriptor 2 would land in the first file that is opened."""
    code = (
        "import os\nfrom edgevlm.terminal import streams\nstreams.prepare()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\nos.write(2, b'noise')\nfile.write('content')\n"
    )
    subprocess.run(["bash", "-c", '"$@" 2>&- 0<&-', "bash", sys.executable, "-c", code], check=True)
    assert (tmp_path / "file").read_text() == "content"


def test_a_broken_pipe_of_another_process_is_an_error(invoke, refused, monkeypatch):
    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("edgevlm.cli.doctor.processor", broken)
    assert "has ended" in refused(invoke("doctor"))


class Full:
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_what_cannot_be_said_does_not_end_the_work():
    quiet = streams.Stream(Full(), lambda error: None)
    assert quiet.write("abc") == 3
    quiet.flush()
    with pytest.raises(ResultLost, match="No space left"):
        streams.Stream(Full(), streams._lost).flush()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "latin-1"}], ids=["ascii", "latin-1"])
def test_a_small_locale(environment, tmp_path):
    """Names that the locale cannot say are refused in one line that it can."""
    words = [*EDGEVLM, "inspect", os.fsencode(tmp_path) + b"/b\xfcndel-\xe2\x82\xac"]
    done = subprocess.run(words, capture_output=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"Error: ")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A TIFF about which Pillow warns, and at which libtiff complains for itself."""
    file = tmp_path / "damaged.tif"
    Image.radial_gradient("L").convert("RGB").save(file, compression="tiff_lzw")
    content = bytearray(file.read_bytes())
    content[8:400:7] = bytes(len(content[8:400:7]))
    file.write_bytes(content)
    return file


def test_a_damaged_picture_is_one_line(spawn, refused, tiny_bundle, damaged):
    assert "damaged" in refused(spawn("run", tiny_bundle, "-p", "x", "-i", damaged))


@pytest.mark.parametrize("debug", [False, True])
def test_other_packages_are_heard_when_debugging(capsys, debug):
    setup_logging(debug)
    try:
        with warnings.catch_warnings():
            logging.captureWarnings(True)
            warnings.simplefilter("always")
            warnings.warn("told by a library", stacklevel=1)
            logging.captureWarnings(False)
        logging.getLogger("PIL.TiffImagePlugin").error("logged by a library")
        logging.getLogger("edgevlm_runtime.x").warning("ours")
    finally:
        setup_logging(False)
    said = capsys.readouterr().err
    assert ("told by a library" in said, "logged by a library" in said) == (debug, debug)
    assert "ours" in said


def test_json_has_no_nan(caplog):
    payload = {"a": [1.0, float("nan"), {"b": float("inf")}], "c": (2, -float("inf")), "d": "NaN", "e": None}
    assert json.loads(json_text(payload), parse_constant=pytest.fail) == {
        "a": [1.0, None, {"b": None}], "c": [2, None], "d": "NaN", "e": None,
    }  # fmt: skip
    assert "a.1, a.2.b, c.1" in caplog.text
