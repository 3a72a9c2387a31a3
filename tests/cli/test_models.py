"""`edgevlm models`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import edgevlm_export
from edgevlm_export.chat_templates import NAMES
from edgevlm_export.checkpoints.aliases import ALIASES
from edgevlm_export.families import FAMILIES
from edgevlm_runtime.installing import pip_install
from tests.support import records

EXPORTER = Path(edgevlm_export.__file__).parents[1]
WITHOUT_EXPORTER = f"import sys; sys.path.remove({str(EXPORTER)!r}); from edgevlm.cli import main; main()"


def test_json_lists_every_alias_and_family(invoke):
    result = invoke("models", "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    records.check("models", listed)
    assert listed["exporter_installed"] is True
    assert [entry["alias"] for entry in listed["aliases"]] == list(ALIASES)
    assert listed["families"] == list(FAMILIES)
    assert listed["chat_templates"] == list(NAMES)
    llava = next(entry for entry in listed["aliases"] if entry["alias"] == "llava")
    assert llava["repo_id"] == "llava-hf/llava-1.5-7b-hf"
    assert llava["family"] == "llava"


def test_text(invoke):
    result = invoke("models")
    assert result.exit_code == 0
    assert "llava-hf/llava-1.5-7b-hf" in result.stdout
    assert all(f"\n  {name}\n" in result.stdout for name in (*FAMILIES, *NAMES))


def test_on_a_device_without_the_exporter():
    command = [sys.executable, "-c", WITHOUT_EXPORTER, "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    empty = {"exporter_installed": False, "aliases": [], "families": [], "chat_templates": []}
    assert json.loads(done.stdout) == empty
    assert pip_install("edgevlm[export]") in done.stderr


def test_export_on_a_device_without_the_exporter(refused):
    command = [sys.executable, "-c", WITHOUT_EXPORTER, "export", "llava"]
    line = refused(subprocess.run(command, capture_output=True, text=True, check=False))
    assert line == f"Error: the package edgevlm_export is not installed: {pip_install('edgevlm[export]')}"
