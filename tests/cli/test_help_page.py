"""docs/cli.md says what the commands say."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from edgevlm.cli import COMMANDS
from edgevlm.cli.records import RECORDS

DOCS = Path(__file__).parents[2] / "docs"


def _generator():
    spec = spec_from_file_location("make_cli", DOCS / "make_cli.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_help_texts_are_current():
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == _generator().page(), "run `make docs`"


def test_every_command_documents_its_json():
    """What is printed is compared with it beside each command: `tests.support.records.check`."""
    assert tuple(RECORDS) == COMMANDS
    here = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    assert [name for name in COMMANDS if f'records.check("{name}", ' not in here] == []


def test_a_key_without_a_description_is_an_error():
    @dataclass(frozen=True)
    class Silent:
        """Something."""

        told: int
        """How many."""
        untold: int

    generator = _generator()
    assert generator.meanings(Silent) == {"told": "How many."}
    with pytest.raises(KeyError, match="untold"):
        generator.table(Silent, "")
