"""Commands that load bundles: all take the same options of where a bundle runs, and all hand them on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import pytest
from PIL import Image

from edgevlm.cli import COMMANDS, cli
from tests.support import records
from tests.support.packages import installed

LOADING = {
    "run": ["-p", "x", "--max-new-tokens", 1],
    "watch": ["questions", "-q", "x", "--choices", "a,b", "--max-frames", 1],
    "eval": ["--dataset", "questions", "--max-new-tokens", 1],
    "verify": [],
    "bench": ["--repeats", 1, "--warmup", 0, "--new-tokens", 2, "--text-tokens", 16],
    "tune": ["--rounds", 1],
}
"""Every command that loads bundles, with the least to do."""
ENGINE = """
import os
from dataclasses import replace
from edgevlm_runtime.engines import ort

def make_engine(options):
    with open(os.environ["ACME_LOG"], "a") as file:
        file.write(f"{options.engine} {options.provider} {options.threads}\\n")
    return ort.make_engine(replace(options, engine="ort"))
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of another package, here and in processes that are started; the file that tells what it was given."""
    site = installed(
        tmp_path / "acme", "acme", "edgevlm.engines", {"acme": "acme_engine:make_engine"}, acme_engine=ENGINE
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_engine", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("ACME_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "log"


@pytest.fixture
def arguments(tmp_path: Path):
    """What a command is given beside the bundle."""
    folder = tmp_path / "questions"
    folder.mkdir()
    Image.effect_noise((30, 30), 90).convert("RGB").save(folder / "a.png")
    row = {"image": "a.png", "question": "is there a scratch", "answer": "no"}
    (folder / "questions.jsonl").write_text(json.dumps(row))
    return lambda name: [folder if one == "questions" else one for one in LOADING[name]]


def test_all_commands_have_one_set_of_options():
    context, shown = click.Context(cli), {}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        found = {one.name: one for one in command.params if one.name in ("provider", "providers", "engine", "threads")}
        if found:
            assert list(found) == ["provider", "engine", "threads"], name
            shown[name] = [one.help.replace("; may repeat", "") for one in found.values()]
            assert found["provider"].multiple == (name == "verify")
    # replay is given records; serve does not end by itself; map's processes load; triton writes what will load
    assert set(shown) == {*LOADING, "replay", "serve", "map", "triton"}
    assert len(set(map(tuple, shown.values()))) == 1


@pytest.mark.parametrize("name", list(LOADING))
def test_an_engine_of_another_package(invoke, refused, acme, arguments, tiny_bundle, name):
    given = invoke(name, tiny_bundle, *arguments(name), "--engine", "acme", "--threads", 1, "--json")
    assert given.exit_code == 0, given.stderr
    assert set(acme.read_text().splitlines()) == {"acme cpu 1"}
    found = json.loads(given.stdout)
    if name == "bench":
        assert found["workload"]["engine"] == "acme"
    if name == "verify":
        assert set(found["self_test"]["providers"]) == {"acme"}
    unknown = invoke(name, tiny_bundle, *arguments(name), "--engine", "steam")
    assert "unknown engine: steam: known are ort, " in refused(unknown, begun=True)


def test_replay_loads_what_answered_with_another_engine(invoke, refused, acme, arguments, tiny_bundle, tmp_path):
    kept = tmp_path / "records.jsonl"
    watched = invoke("watch", tiny_bundle, *arguments("watch"), "--sink", f"jsonl:{kept}", "--json")
    assert watched.exit_code == 0, watched.stderr
    again = ("replay", kept, "--pictures", tmp_path / "questions")
    given = invoke(*again, "--engine", "acme", "--threads", 1, "--json")
    assert given.exit_code == 0, given.stderr
    records.check("replay", json.loads(given.stdout))
    assert set(acme.read_text().splitlines()) == {"acme cpu 1"}
    assert "unknown engine: steam: known are ort, " in refused(invoke(*again, "--engine", "steam"), begun=True)


def test_an_evaluation_does_not_go_on_with_another_engine(invoke, refused, acme, arguments, tiny_bundle, tmp_path):
    asked = [*arguments("eval"), "--out", tmp_path / "results.json"]
    assert invoke("eval", tiny_bundle, *asked).exit_code == 0
    other = invoke("eval", tiny_bundle, *asked, "--resume", "--engine", "acme")
    assert "belongs to another evaluation (engine differ)" in refused(other, begun=True)
