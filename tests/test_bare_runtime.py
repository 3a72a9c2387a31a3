"""A device: an environment with nothing but `./runtime[cpu]` in it answers like the workstation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import edgevlm_runtime

ROOT = Path(__file__).parents[1]
ABSENT = ("edgevlm", "edgevlm_export", "onnx", "onnxscript", "safetensors", "torch", "torchvision", "transformers")
QUESTION = "Is there a scratch?"

SCRIPT = """
import importlib.util, json, sys
import edgevlm_runtime

bundle, picture, question, absent = json.loads(sys.argv[1])
with edgevlm_runtime.load(bundle).session(picture) as session:
    answer = session.ask(question, max_new_tokens=16)
print(json.dumps({
    "token_ids": answer.token_ids,
    "text": str(answer),
    "where": edgevlm_runtime.__file__,
    "importable": [name for name in absent if importlib.util.find_spec(name)],
    "imported": [name for name in absent if name in sys.modules],
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    # What leads Python to other environments stays behind; pip's own configuration does not.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[:4]}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Path:
    """The Python of a fresh environment in which only the runtime's wheel was installed."""
    folder = tmp_path_factory.mktemp("device")
    pip = ("-m", "pip", "--disable-pip-version-check")
    wheels = folder / "wheels"
    run(sys.executable, *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT / "runtime", cwd=folder)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (wheel,) = wheels.iterdir()
    run(python, *pip, "install", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]", cwd=folder)
    return python


def test_answers_without_torch_and_transformers(device, tiny_bundle, tmp_path):
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((60, 44)).convert("RGB").save(picture)
    argument = json.dumps([str(tiny_bundle), str(picture), QUESTION, ABSENT])
    found = json.loads(run(device, "-I", "-c", SCRIPT, argument, cwd=tmp_path))
    with edgevlm_runtime.load(tiny_bundle).session(picture) as session:
        expected = session.ask(QUESTION, max_new_tokens=16)
    assert Path(found["where"]).is_relative_to(device.parents[1])
    assert found["importable"] == []
    assert found["imported"] == []
    assert found["token_ids"] == list(expected.token_ids)
    assert found["text"] == expected.text
