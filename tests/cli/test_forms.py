"""`edgevlm run` with answers that must have a form."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgevlm.cli import cli

FORMS = [
    (("--regex", "[0-9]{3}-[a-z]{2}"), r"[0-9]{3}-[a-z]{2}\n"),
    (("--one-of", "good,bad"), r"(good|bad)\n"),
    (("--json-schema", "SCHEMA"), r'\{"ok": (true|false)\}\n'),
]


@pytest.mark.parametrize(("more", "wanted"), FORMS)
def test_answers_in_a_form(tiny_bundle: Path, tmp_path: Path, more: tuple[str, ...], wanted: str) -> None:
    schema = tmp_path / "schema.json"
    fields = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema.write_text(json.dumps({**fields, "additionalProperties": False}))
    given = [str(schema) if word == "SCHEMA" else word for word in more]
    done = CliRunner().invoke(cli, ["run", str(tiny_bundle), "-p", "report", *given])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(wanted, done.stdout)


BAD_FORMS = [
    (("--regex", "a("), "bad form of an answer"),
    (("--regex", "a", "--one-of", "a,b"), "give one of --regex"),
    (("--one-of", "a,,b"), "none of them empty"),
    (("--json-schema", "nowhere.json"), "does not exist"),
    (("--choices", "a,b", "--regex", "a"), "--choices generates nothing: leave out --regex"),
]


@pytest.mark.parametrize(("more", "says"), BAD_FORMS)
def test_bad_forms(tiny_bundle: Path, more: tuple[str, ...], says: str) -> None:
    done = CliRunner().invoke(cli, ["run", str(tiny_bundle), "-p", "report", *more])
    assert done.exit_code == 2
    assert says in done.stderr.splitlines()[-1]
