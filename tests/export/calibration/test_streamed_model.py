"""The one streamed model: from pixels on as transformers runs it, and from embeddings on as a family says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgevlm_export.families.qwens.qwen2_5_vl import Qwen25VL
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plans import choose
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.samples import Samples
from edgevlm_runtime.bundle.decoder_info import ImageColumns
from tests.support import checkpoints


def test_the_decoder_gets_what_its_family_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of a prompt with an image: with them, and only with them, both ways give the same."""
    plan = plan_export(checkpoints.qwen2_5_vl(tmp_path / "tiny"), choose("fp32"), None, lambda *_: None)
    model, seen = StreamedModel.of(plan), list[dict[str, torch.Tensor]]()
    hook = model.family.text_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    inputs = model.inputs("what is in the picture", [Image.new("RGB", (90, 60), "red")])
    with monkeypatch.context() as patch:  # the reference must not depend on it
        patch.setattr(Qwen25VL, "text_arguments", None)
        wanted = model.forward([inputs], [np.arange(inputs["input_ids"].shape[1])], lambda _: None)[0]
    hook.remove()
    embeddings, positions = seen[0]["inputs_embeds"].clone(), seen[0]["position_ids"].clone()
    everywhere = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    samples = Samples(embeddings, everywhere, everywhere, {"position_ids": positions})
    torch.testing.assert_close(model.decode(samples)[0], wanted, atol=1e-5, rtol=1e-5)
    assert (model.decode(replace(samples, named={}))[0] - wanted).abs().max() > 1e-2
    columns = (ImageColumns("early", 3), ImageColumns("late", 2))  # rows become wider; the model is told of the rest
    monkeypatch.setattr(Qwen25VL, "image_columns", columns)
    monkeypatch.setattr(
        Qwen25VL, "column_arguments", lambda _, given: {f"{name}_features": given[name] for name in given}
    )
    rows = torch.cat([embeddings, torch.ones(*embeddings.shape[:2], 3), torch.zeros(*embeddings.shape[:2], 2)], -1)
    told = model.family.text_arguments(rows, samples.named)
    assert list(told) == ["inputs_embeds", "early_features", "late_features", "position_ids"]
    assert torch.equal(told["inputs_embeds"], embeddings)
    assert [(told[name].shape[-1], float(told[name].mean())) for name in list(told)[1:3]] == [(3, 1.0), (2, 0.0)]
    words = model.embed(inputs["input_ids"])
    assert words.shape == rows.shape
    assert not words[..., -5:].any()
