"""A second decoder graph for prompts: fills the same cache, stored otherwise; answers stay those of the decoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.precision.plans import choose
from edgevlm_runtime.errors import ExportError
from tests.support import checkpoints

QUESTION = "what is in this picture, and is there a scratch on any of the parts that it shows"


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 52, 3), dtype=np.uint8))


def answers(bundle: Path, **options: object) -> list[tuple[int, ...]]:
    """Two pictures, two questions each in one session, so that prefixes are reused; then words alone."""
    vlm = edgevlm_runtime.load(bundle, **options)
    found = []
    for seed in (1, 2):
        with vlm.session(picture(seed)) as session:
            found += [tuple(session.ask(text, max_new_tokens=12).token_ids) for text in (QUESTION, "and now")]
    return [*found, tuple(vlm.ask(None, QUESTION, max_new_tokens=12).token_ids)]


@pytest.mark.parametrize("make", [checkpoints.llava, checkpoints.smolvlm, checkpoints.qwen2_5_vl])
def test_same_answers_in_float32(make, tmp_path: Path, export_bundle) -> None:
    """Chunks of every size, M-RoPE included."""
    folder = make(tmp_path / "checkpoint")
    wanted = answers(export_bundle(folder))
    bundle = export_bundle(folder, prefill="fp32")
    assert edgevlm_runtime.load(bundle).pipeline.decoder.prefill_graph is not None
    for chunk in (5, 64, 1024):
        assert answers(bundle, prefill_chunk=chunk) == wanted


def test_the_graph_has_no_head_and_stops_at_the_last_cache(tiny_checkpoint: Path, export_bundle) -> None:
    vlm = edgevlm_runtime.load(export_bundle(tiny_checkpoint, prefill="fp32"))
    prompts, decoder = vlm.pipeline.decoder.prefill_graph, vlm.pipeline.decoder.graph
    assert prompts is not None
    assert set(prompts.outputs) == set(decoder.outputs) - {"logits"}
    assert set(prompts.inputs) == set(decoder.inputs) - {"logits_rows"}
    sizes = {name: graph.bytes for name, graph in vlm.manifest.graphs.items()}
    assert sizes["prefill"] < sizes["decoder"]


def test_int8_prompts_beside_an_int4_decoder(tmp_path: Path, export_bundle) -> None:
    """What is in the cache after a prompt is close to what the float32 graph leaves there, values rotated or not."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2-tied")
    exact = _cache(export_bundle(folder, decoder="int4", prefill="fp32"))
    found = _cache(export_bundle(folder, decoder="int4", prefill="int8"))
    for key in exact:
        difference = np.linalg.norm(found[key] - exact[key]) / np.linalg.norm(exact[key])
        assert 0 < difference < 0.05


def _cache(bundle: Path) -> dict[int, np.ndarray]:
    vlm = edgevlm_runtime.load(bundle)
    run = vlm.pipeline.decoder.new_run(32)
    rows = np.random.default_rng(0).standard_normal((32, vlm.pipeline.decoder.info.hidden_size)).astype(np.float32)
    run.prefill(rows)
    return {place: cache.host().copy() for place, cache in enumerate(run.kv.tensors)}


def test_with_an_int8_cache(tiny_checkpoint: Path, export_bundle) -> None:
    """The graph for prompts stores keys and values by the very scales that the decoder reads them by."""
    bundle = export_bundle(tiny_checkpoint, prefill="fp32", kv="int8")
    assert edgevlm_runtime.load(bundle).pipeline.decoder.prefill_graph is not None
    plain = export_bundle(tiny_checkpoint, kv="int8")
    for held, expected in zip(_cache_of_ids(bundle), _cache_of_ids(plain), strict=True):
        assert held.dtype == expected.dtype == np.int8
        apart = np.abs(held.astype(int) - expected)
        assert apart.max() <= 1  # what lies between two steps
        assert (apart > 0).mean() < 0.01
        assert np.abs(expected.astype(int)).max() > 30  # the steps are used
    assert answers(bundle) == answers(plain)


def _cache_of_ids(bundle: Path) -> list[np.ndarray]:
    """What one pass over a few tokens leaves, by the graph for prompts where there is one."""
    vlm = edgevlm_runtime.load(bundle)
    decoder, ids = vlm.pipeline.decoder, np.array(vlm.tokenizer.encode(QUESTION))
    rows = np.empty((ids.size, decoder.info.hidden_size), np.float32)
    decoder.embeddings.gather(ids, rows)
    run = decoder.new_run(ids.size)
    if decoder.prefill_graph is not None:
        run.prefill(rows)
    else:
        run.forward(rows, np.array([ids.size - 1]))
    return [cache.host().copy() for cache in run.kv.tensors]


def test_the_cli_says_what_it_made(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edgevlm.cli import cli

    arguments = ["export", str(tiny_checkpoint), "--fp32", "--prefill", "int8", "-o", str(tmp_path / "b"), "--json"]
    done = CliRunner().invoke(cli, [*arguments, "--no-certificate", "--no-self-test"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["graphs"]["prefill"]["precision"] == "int8"


def test_refused() -> None:
    with pytest.raises(ExportError, match="unknown precision of the prefill graph: int5"):
        ExportOptions("inspector", prefill="int5")
    with pytest.raises(ExportError, match="calibrated"):
        ExportOptions("inspector", precision="int4", prefill="int4")
    with pytest.raises(ExportError, match="leave it out, or --target"):
        ExportOptions("inspector", prefill="int8", target="tensorrt-rtx")


def test_the_cache_is_shared_so_values_are_transformed_alike() -> None:
    """Whether they are rotated is the decoder's choice."""
    plan = choose("fp32", prefill="int8")
    assert plan.prefill is not None
    assert "rotate-values" not in plan.prefill.transforms
    plan = choose("int8", prefill="fp32")
    assert plan.prefill is not None
    assert "rotate-values" in plan.prefill.transforms


def test_single_layers_are_held_so_in_both_graphs() -> None:
    """But for four bits, which a graph without calibration does not get."""
    plan = ExportOptions("inspector", prefill="int8", layers={"*.q_proj": "fp32", "*.v_proj": "int4"}).plan
    assert plan.prefill is not None
    assert plan.decoder.patterns == {"*.q_proj": "fp32", "*.v_proj": "int4"}
    assert plan.decoder.calibrated
    assert plan.prefill.patterns == {"*.q_proj": "fp32"}
    assert not plan.prefill.calibrated


def test_the_kl_target_is_the_decoder_graphs_alone() -> None:
    """It is measured there, where no prompt is computed any more."""
    assert ExportOptions("inspector", precision="int8").plan.max_kl is not None
    assert ExportOptions("inspector", precision="int8", prefill="int8").plan.max_kl is None
    assert ExportOptions("inspector", precision="int8", prefill="int8", max_kl=float("inf")).plan.max_kl is None
    with pytest.raises(ExportError, match=r"^--max-kl is measured in .* graph alone: leave it out, or --prefill$"):
        ExportOptions("inspector", precision="int8", prefill="int8", max_kl=0.01)
