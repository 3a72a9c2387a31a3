"""docs/cli.md says what the commands say."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from edgevlm.cli import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"


def _generator():
    spec = spec_from_file_location("make_cli", DOCS / "make_cli.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_help_texts_are_current():
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == _generator().page(), "run `make docs`"


def test_every_command_documents_its_json():
    written = (DOCS / "cli.md").read_text(encoding="utf-8").partition("## Help texts")[0]
    assert [name for name in COMMANDS if f"\n| `{name}` |" not in written] == []
