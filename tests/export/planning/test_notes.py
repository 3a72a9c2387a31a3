"""What is told at export: a note for each thing that is not as it seems, and none for a checkpoint that is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, Phi3Config

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.checkpoints.generation import read_generation
from edgevlm_export.families import get_family
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.families.text_config import max_context
from edgevlm_export.planning import notes
from edgevlm_export.planning.graph_plan import plan_graph
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.plans import ROTATIONS, choose
from edgevlm_export.preprocessing import load_processor, translate
from edgevlm_runtime.errors import CheckpointError
from tests.support import checkpoints


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def older_index(folder: Path) -> None:
    shutil.copy(folder / "config.json", folder / "model.safetensors.index.json")


def left_quantized(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(quantization_config={"quant_method": "awq"}))


def other_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    table = next(value for name, value in weights.items() if name.endswith("embed_tokens.weight"))
    save_file(weights | {"language_model.lm_head.weight": table + 1}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (older_index, r"model\.safetensors is the model, model\.safetensors\.index\.json is not read"),
        (left_quantized, r"quantized \(awq\), and all are plain floats"),
        (other_head, r"ties lm_head\.weight .* it is not tied"),
        (lambda _: None, None),
    ],
)
def test_weights(tmp_path: Path, change: Callable[[Path], None], says: str | None) -> None:
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2-tied")
    change(folder)
    weights = checkpoint.open_weights(folder, skeleton.build(checkpoint.load_config(folder)))
    told = list(notes.weight_notes(folder, weights))
    assert len(told) == (says is not None)
    assert all("\n" not in line for line in told)
    assert says is None or re.search(says, told[0])


@given(added=st.integers(0, 6))
def test_words_without_a_row(tiny_checkpoint: Path, added: int) -> None:
    config = checkpoint.load_config(tiny_checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    words = [f"<word {number}>" for number in range(added)]
    tokenizer.add_tokens(words)
    rows = int(config.get_text_config().vocab_size)
    told = list(notes.word_notes(tokenizer, config))
    assert len(told) == bool(added)
    for line in told:
        assert f"{rows} rows" in line
        assert all(f"{word!r} ({rows + number})" in line for number, word in enumerate(words[:3]))
        assert (f"and {added - 3} more" in line) == (added > 3)


def test_a_table_that_is_longer_than_the_tokenizer_is_nothing(tiny_checkpoint: Path) -> None:
    config = checkpoint.load_config(tiny_checkpoint)
    config.get_text_config().vocab_size += 64
    assert list(notes.word_notes(AutoTokenizer.from_pretrained(tiny_checkpoint), config)) == []


@pytest.mark.parametrize("token", [-1, 10_000])
def test_an_image_token_without_a_row_is_found_before_the_work(
    tiny_checkpoint: Path, tmp_path: Path, token: int
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    with pytest.raises(CheckpointError, match=f"image token {token} lies outside the table"):
        notes.check_image_token(token, checkpoint.load_config(folder), folder)
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    fewer = config["image_token_index"] if "image_token_index" in config else config["image_token_id"]
    for name in (name for name in weights if name.endswith(("embed_tokens.weight", "lm_head.weight"))):
        weights[name] = weights[name][:fewer].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", lambda content: content["text_config"].update(vocab_size=fewer))
    stages: list[str] = []
    with pytest.raises(CheckpointError, match=f"image token {fewer} lies outside"):
        plan_export(folder, choose("fp32"), None, lambda stage, *_: stages.append(stage))
    assert "tracing" not in stages


def longrope(longest: int) -> Phi3Config:
    factors = [1.0] * 48
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": factors}
    rope["original_max_position_embeddings"] = 4096
    return Phi3Config(max_position_embeddings=longest, rope_parameters=rope, pad_token_id=0)


@pytest.mark.parametrize(
    ("config", "wanted", "says"),
    [
        (LlamaConfig(max_position_embeddings=2048), None, None),
        (LlamaConfig(max_position_embeddings=131072), None, "32768 of the checkpoint's 131072 tokens: --max-context"),
        (LlamaConfig(max_position_embeddings=131072), 512, None),
        (longrope(131072), None, "4096 of the checkpoint's 131072 tokens: its rotary scaling (longrope)"),
        (longrope(131072), 1024, None),
        (longrope(4096), None, None),
    ],
)
def test_a_shorter_context(config: Any, wanted: int | None, says: str | None) -> None:
    told = list(notes.context_notes(config, max_context(config, wanted), wanted))
    assert len(told) == (says is not None)
    assert says is None or says in told[0]


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ({"do_sample": True, "temperature": 0.2, "top_p": 0.9}, "samples (temperature 0.2, top_p 0.9)"),
        ({"do_sample": True}, "samples"),
        ({"do_sample": False}, None),
        ({}, None),
    ],
)
def test_sampling(tiny_checkpoint: Path, tmp_path: Path, generation: dict[str, Any], says: str | None) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, **generation}))
    config = checkpoint.load_config(folder)
    processor = load_processor(folder, config)
    told = read_generation(folder, config, processor.tokenizer, processor.turn_end).notes
    assert [line for line in told if "samples" in line] == ([] if says is None else [told[0]])
    assert says is None or says in told[0]


def test_transforms_that_a_graph_refuses(tiny_checkpoint: Path) -> None:
    """A vision encoder has none of what a decoder's rotations need: each is named with its reason, nothing changes."""
    config = checkpoint.load_config(tiny_checkpoint)
    processor = load_processor(tiny_checkpoint, config)
    model = skeleton.build(config)
    options = translate(processor, config).image.options
    family = get_family("llava")(model, Normalization.of(processor.image_processor), options, 64)
    of_decoders = ROTATIONS[:2]
    plain, asked = (
        plan_graph("vision_encoder", family.vision_encoder(), model, GraphPrecision("int8", transforms=transforms))
        for transforms in ((), of_decoders)
    )
    assert asked.transforms == ()
    assert set(asked.refused) == set(of_decoders)
    assert not asked.edits.by_name
    assert [node.op_type for node in asked.model.graph] == [node.op_type for node in plain.model.graph]
    told = list(notes.transform_notes({"vision_encoder": asked}))
    assert len(told) == len(of_decoders)
    assert all(line.startswith("vision_encoder: rotate-") for line in told)


def test_the_manifest_has_what_was_told(
    tiny_checkpoint: Path, tmp_path: Path, export_bundle: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Each once on the log; and a checkpoint that is as it seems has none."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "noted"))
    older_index(folder)
    edit(folder / "config.json", lambda config: config.update(quantization_config={"quant_method": "awq"}))
    bundle = export_bundle(folder, anew=True)
    stored = json.loads((bundle / "manifest.json").read_text())["notes"]
    assert len(stored) == 2
    said = [record.getMessage() for record in caplog.records if record.name.startswith("edgevlm_export")]
    assert all(said.count(line) == 1 for line in stored)


def test_a_plain_checkpoint_has_no_notes(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert manifest["notes"] == []
    assert all(graph["refused"] == {} for graph in manifest["graphs"].values())


def test_kept_apart_weights_are_not_one(tmp_path: Path) -> None:
    """A plan has a table of its own, then."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2-tied")
    other_head(folder)
    plan = plan_export(folder, choose("fp32"), None, lambda *_: None)
    assert plan.tied_head is None
    assert torch.equal(plan.weights.read("lm_head.weight"), plan.weights.read(plan.family.embedding_name) + 1)
    assert any("it is not tied" in line for line in plan.notes)
