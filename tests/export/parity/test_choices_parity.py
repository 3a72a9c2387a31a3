"""Probabilities of choices equal those computed from transformers' own logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edgevlm_runtime
from edgevlm_export.reference import Reference
from tests.support import checkpoints

QUESTION = "is there a scratch"
EOS = 2


@pytest.fixture(scope="module", params=["llava", "smolvlm", "qwen2_5_vl"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export_bundle) -> tuple:
    folder = getattr(checkpoints, request.param)(tmp_path_factory.mktemp("choices") / request.param)
    return Reference.load(str(folder)), edgevlm_runtime.load(export_bundle(Path(folder)), threads=1)


def scores(reference: Reference, image: Image.Image, choices: list[str], end: bool) -> list[float]:
    """Sums of log-softmax over the choice's tokens, teacher-forced, in the form that is likelier to begin."""
    forms = []
    for form in ("", " "):
        tokenized = [reference.processor.tokenizer(form + c, add_special_tokens=False)["input_ids"] for c in choices]
        sums, firsts = [], {}
        for tokens in tokenized:
            ids, logits = reference.prompt_logits(QUESTION, [image], tokens)
            rows = torch.log_softmax(torch.tensor(logits).double(), -1)[len(ids) - len(tokens) - 1 :]
            total = sum(float(rows[i, token]) for i, token in enumerate(tokens))
            sums.append(total + (float(rows[len(tokens), EOS]) if end else 0.0))
            firsts[tokens[0]] = float(rows[0, tokens[0]].exp())
        forms.append((sum(firsts.values()), sums))
    return max(forms)[1]


@pytest.mark.parametrize(
    ("choices", "end"),
    [(["yes", "no"], False), (["no", "there is a scratch", "image"], False), (["no", "no scratch", "yes"], True)],
)
def test_probabilities(both: tuple, choices: list[str], end: bool) -> None:
    reference, vlm = both
    image = Image.fromarray(np.random.default_rng(9).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    expected = scores(reference, image, choices, end)
    with vlm.session(image) as session:
        choice = session.choose(QUESTION, choices)
    lengths = {len(vlm.tokenizer.encode(c, "")) for c in choices}
    assert len(choices) == 2 or len(lengths) > 1, "tokens of different number are what this is about"
    np.testing.assert_allclose(list(choice.scores.values()), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        list(choice.probabilities.values()), torch.softmax(torch.tensor(expected), -1).numpy(), rtol=0, atol=1e-4
    )
