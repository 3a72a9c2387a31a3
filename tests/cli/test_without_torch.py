"""Measuring needs nothing that a device has not: torch and the exporter are hidden from these processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm_runtime.installing import pip_install
from tests.support.pages import parse

HIDE = """
import sys

HIDDEN = {"edgevlm_export", "onnx", "onnx_ir", "safetensors", "torch", "torchvision", "transformers"}


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def on_device(spawn, tmp_path):
    """`spawn`, in processes (and theirs) in which the exporter and what it needs cannot be imported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDE)
    return lambda *arguments: spawn(*arguments, PYTHONPATH=os.fspath(tmp_path / "site"))


@pytest.fixture
def questions(tmp_path) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / "0.png")
    row = {"image": "0.png", "question": "is there a scratch", "answer": "no", "choices": ["yes", "no"]}
    (folder / "questions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return folder


def test_bench(on_device, tiny_bundle, tmp_path):
    short = ("--repeats", 1, "--warmup", 0, "--new-tokens", 2, "--text-tokens", 16, "--threads", 1)
    kept, page = tmp_path / "kept.json", tmp_path / "page.html"
    result = on_device("bench", tiny_bundle, *short, "--save", kept, "--report", page, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(kept.read_text())["engines"][0]["decode_tokens_per_s"] > 0
    assert parse(page).counts["svg"] == 4
    assert on_device("bench", tiny_bundle, *short, "--compare", kept, "--tolerance", 1e9).returncode == 0
    refused = on_device("bench", tiny_bundle, *short, "--reference", "inspector")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].endswith(f"the package torch is not installed: {pip_install('torch')}")


def test_eval(on_device, tiny_bundle, questions, tmp_path):
    page = tmp_path / "page.html"
    arguments = ("eval", tiny_bundle, "--dataset", questions, "--max-new-tokens", 2)
    result = on_device(*arguments, "--report", page, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["calibration"]["n"] == 1
    assert parse(page).counts["svg"] == 2
    refused = on_device(*arguments, "--reference", "inspector")
    assert f"edgevlm_export is not installed: {pip_install('edgevlm[export]')}" in refused.stderr.splitlines()[-1]
    assert refused.returncode == 2


def test_verify(on_device, tiny_bundle):
    result = on_device("verify", tiny_bundle, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["self_test"]["passed"] is True


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("tokenizers", "tokenizers is not installed: {} --no-deps tokenizers"),
        ("numpy", "the package numpy is not installed: {} numpy"),
        ("PIL", "the package PIL is not installed: {} pillow"),
        ("onnxruntime", "onnxruntime is not installed: {} onnxruntime (or onnxruntime-gpu for NVIDIA, never both)"),
    ],
)
def test_what_the_runtime_itself_needs(module, line, spawn, tiny_bundle, tmp_path):
    """`--no-deps` may leave out too much."""
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace("HIDDEN = {", f"HIDDEN = {{{module!r}, "))
    refused = spawn("run", tiny_bundle, "--prompt", "is there a scratch", PYTHONPATH=os.fspath(tmp_path))
    assert (refused.returncode, refused.stdout) == (2, "")
    (said,) = refused.stderr.splitlines()
    words = line.format("pip install")
    assert said in (f"Error: {words}", f"Error: {words.replace('pip install', f'{sys.executable} -m pip install')}")
