"""`edgevlm serve` as users start it: a process of its own, without torch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgevlm.cli import cli
from tests.cli.test_without_torch import HIDE
from tests.runtime.conftest import make_bundle
from tests.support import records
from tests.support.chatting import client, user

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a model that says nonsense, quickly."""
    return make_bundle(tmp_path_factory.mktemp("served") / "tiny")


@contextmanager
def process(folder: Path, *arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and its address; torch and the exporter cannot be imported."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(HIDE)
    command = [sys.executable, "-m", "edgevlm", "serve", *map(str, arguments), "--port", "0", "--threads", "1"]
    given = {**os.environ, "PYTHONPATH": str(folder / "site"), **environment}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=given, **pipes) as running:
        try:
            assert running.stderr is not None
            line = running.stderr.readline()
            found = re.search(r"at (http://\S+/)v1$", line.rstrip())
            assert found, line + running.stderr.read()
            yield running, found[1]
        finally:
            if running.poll() is None:
                running.kill()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_from_start_to_end(tiny: Path, tmp_path: Path, picture: Path, ending: signal.Signals) -> None:
    with process(tmp_path, tiny, "--json") as (running, address):
        with client(address) as asking:
            asked: Any = [user("a", picture.read_bytes())]
            assert asking.chat.completions.create(model="tiny", messages=asked, max_tokens=3).choices
            chunks = asking.chat.completions.create(model="tiny", messages=HELLO, max_tokens=3, stream=True)
            assert list(chunks)[-1].choices[0].finish_reason == "length"
        running.send_signal(ending)
        said, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert errors == ""
    printed = json.loads(said)
    records.check("serve", printed)
    assert (printed["models"], printed["address"]) == (["tiny"], address)


def test_keys_come_from_the_environment_and_files(tiny: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("one\n\n two \n")
    given = ("--host", "0.0.0.0", "--token-file", keys)
    with process(tmp_path, tiny, *given, EDGEVLM_API_KEY="three") as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        for key in ("one", "two", "three"):
            with client(local, key) as asking:
                assert [one.id for one in asking.models.list()] == ["tiny"]
        with client(local, "four") as asking, pytest.raises(Exception, match="401"):
            asking.models.list()


def test_bad_usage(tiny: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    for arguments, says in (
        (("--host", "0.0.0.0"), "give it a token"),
        (("--token-file", empty), "has no key"),
        (("--token", "a b"), "bad value for token"),
        (("--queue", "0"), "0 is less than 1"),
        (("--allow-files", tmp_path / "nowhere"), "does not exist"),
        (("--host", "no.such.host.invalid", "--token", "a"), "cannot listen"),
        ((tiny,), "two bundles are named tiny"),
    ):
        done = CliRunner().invoke(cli, ["serve", str(tiny), *map(str, arguments), "--port", "0"], prog_name="edgevlm")
        assert done.exit_code == 2, done.output
        assert says in done.stderr.splitlines()[-1]
    missing = CliRunner().invoke(cli, ["serve", str(tmp_path)], prog_name="edgevlm")
    assert missing.exit_code == 2
