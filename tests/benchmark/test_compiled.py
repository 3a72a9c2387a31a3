"""PyTorch under torch.compile gives eager PyTorch's tokens."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from edgevlm.benchmark.engines.base import Spec
from edgevlm.benchmark.process import EngineProcess
from edgevlm.benchmark.workload import Task


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_answers_like_eager(tiny_checkpoint, tmp_path):
    image = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
    task = Task(str(image), "what is in the picture", "is there a scratch", 6, 1, "cpu")
    answers = []
    for engine in ("pytorch", "pytorch_compiled"):
        with EngineProcess(Spec(engine, str(tiny_checkpoint), "float32", engine), task) as process:
            process.ask()
            sample, tokens = process.ask()
            assert sample.prefill_ms > 0
            answers.append(tokens)
    assert answers[0] == answers[1]
