"""A second decoder graph for prompts: fills the same cache, stored otherwise; answers stay those of the decoder."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_export.api import ExportOptions
from edgevlm_export.precision import plans
from edgevlm_export.precision.plans import choose
from edgevlm_runtime.bundle.manifest import MADE_WHEN_LOADED
from edgevlm_runtime.errors import BundleError, ExportError
from tests.support import checkpoints
from tests.support.seal import write_manifest

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


PLAIN = {"*self_attn.[qkvo]_proj": "int4:nearest", "*mlp.*_proj": "int4:nearest"}
"""Every layer of a decoder in four bits, without calibration, which takes time."""


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int8", "prefill": "int8"},
        {"precision": "int8", "prefill": "fp32"},
        {"precision": "int4", "prefill": "int8", "layers": PLAIN},
        {"precision": "int8-fast"},
        {"precision": "int4-fast", "layers": {"lm_head": "int4:nearest", **PLAIN}},
        {"precision": "int8", "prefill": "widened", "layers": {"*.layers.0.*down_proj": "fp32", "*.o_proj": "int8"}},
        {"precision": "int4", "prefill": "widened", "layers": PLAIN},
        {"precision": "int4", "prefill": "widened", "layers": {"*.k_proj": "fp32", "*.v_proj": "int8", **PLAIN}},
        {"decoder": "int8b", "prefill": "widened"},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [checkpoints.llava, checkpoints.qwen2_5_vl, checkpoints.smolvlm])
def test_prompts_leave_what_the_decoder_reads(make, options: dict[str, object], tmp_path: Path, export_bundle) -> None:
    """Keys and values of the graph for prompts are the decoder's own, but for rounding: those of a rotated decoder are
    rotated, in the last layer too, whose output nothing reads."""
    bundle = export_bundle(make(tmp_path / "checkpoint"), **options)
    vlm = edgevlm_runtime.load(bundle)
    refused = {name: graph.refused for name, graph in vlm.manifest.graphs.items()}
    assert refused["prefill"] == refused["decoder"]
    found, expected = _cache(bundle), _cache(bundle, prefill_graph=False)
    for key, held in expected.items():
        difference = np.linalg.norm(found[key] - held) / np.linalg.norm(held)
        assert difference < 0.15, (key, difference)


def test_widened_weights_are_in_the_bundle_once(tmp_path: Path, export_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the decoder holds in blocks is made of these; all else is the decoder's, which is as without that graph."""
    folder = checkpoints.llava(tmp_path / "checkpoint")
    bundle = export_bundle(folder, precision="int4", layers=PLAIN, prefill="widened")
    manifest = edgevlm_runtime.load(bundle).manifest
    names = {weight.name for weight in manifest.graphs["prefill"].widened}
    held = {name for name in names if "_proj" in name}
    assert held == names
    assert len(names) >= 7  # of one layer; in the last one nothing reads the attention
    kept = [tensor for tensor in _tensors(bundle / "prefill.onnx") if tensor[1] == "prefill.onnx.data"]
    assert not [name for name, _ in kept if name.startswith("model.")]
    monkeypatch.setitem(plans.PLANS, "int4", replace(choose("int4", prefill="widened"), prefill=None, widened=False))
    alone = export_bundle(folder, precision="int4", layers=PLAIN)
    assert answers(bundle, prefill_graph=False) == answers(alone)
    loaded = edgevlm_runtime.load(bundle, prefill_graph=False)
    assert loaded.pipeline.decoder.prefill_graph is None


def _tensors(file: Path) -> list[tuple[str, str]]:
    """Names of initializers outside of the graph's file, with those of the files that they are in."""
    graph = onnx.load(file, load_external_data=False).graph
    found = [(one.name, {entry.key: entry.value for entry in one.external_data}) for one in graph.initializer]
    return [(name, place["location"]) for name, place in found if place]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_are_mixed_when_they_are_made(precision: str, tmp_path: Path, export_bundle) -> None:
    """The decoder spares what prompts in 8 bits gain by; only the graph for prompts mixes."""
    folder = checkpoints.llava(tmp_path / "checkpoint")
    bundle = export_bundle(folder, precision=precision, layers=PLAIN if precision == "int4" else {}, prefill="widened")
    graphs = edgevlm_runtime.load(bundle).manifest.graphs
    mixed = {weight.name.split(".")[-2] for weight in graphs["prefill"].widened if weight.mixed}
    assert mixed == {"down_proj"}
    assert "rotate-product" in graphs["prefill"].transforms
    assert "rotate-product" not in graphs["decoder"].transforms
    data = json.loads((bundle / "manifest.json").read_text())
    for weight in data["graphs"]["prefill"]["widened"]:
        weight["mixed"] = 0
    write_manifest(bundle, data)  # the operators of the graph stay
    found, expected = _cache(bundle), _cache(bundle, prefill_graph=False)
    assert max(np.linalg.norm(found[key] - held) / np.linalg.norm(held) for key, held in expected.items()) > 0.15


def test_layers_that_both_multiply_as_they_are_stored(tmp_path: Path, export_bundle) -> None:
    """They are mixed in neither graph, beside others that are mixed in one."""
    options = {"precision": "int8-fast", "layers": {"*.layers.1.*down_proj": "fp32"}}
    bundle = export_bundle(checkpoints.qwen3_vl(tmp_path / "checkpoint", "wide-heads"), **options)
    manifest = edgevlm_runtime.load(bundle).manifest
    mixed = [weight.name for weight in manifest.graphs["prefill"].widened if weight.mixed]
    assert ["layers.0" in name for name in mixed] == [True]
    found, expected = _cache(bundle), _cache(bundle, prefill_graph=False)
    for key, held in expected.items():
        assert np.linalg.norm(found[key] - held) < 0.15 * np.linalg.norm(held)


def test_no_file_stands_in_for_what_is_made(tmp_path: Path, export_bundle) -> None:
    bundle = export_bundle(
        checkpoints.llava(tmp_path / "checkpoint"), precision="int4", layers=PLAIN, prefill="widened"
    )
    (bundle / MADE_WHEN_LOADED).write_bytes(bytes(10**6))
    with pytest.raises(BundleError, match="which the manifest does not name"):
        edgevlm_runtime.load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 2**40}, "within decoder.onnx.data"),
        ({"dtype": "uint3"}, "uint8"),
        ({"shape": [0, 32]}, "whole numbers of at least 1"),
        ({"file": "nothing"}, "nothing"),
        ({"block": 2**20}, "ends at byte"),
    ],
    ids=str,
)
def test_a_damaged_description(change: dict[str, object], message: str, tmp_path: Path, export_bundle) -> None:
    bundle = export_bundle(
        checkpoints.llava(tmp_path / "checkpoint"), precision="int4", layers=PLAIN, prefill="widened"
    )
    data = json.loads((bundle / "manifest.json").read_text())
    data["graphs"]["prefill"]["widened"][0]["blocks"] |= change
    write_manifest(bundle, data)
    with pytest.raises(BundleError, match=message):
        edgevlm_runtime.load(bundle)


def test_weights_described_again_and_again(tmp_path: Path, export_bundle) -> None:
    """Nothing is made before the manifest is known to be sound."""
    bundle = export_bundle(
        checkpoints.llava(tmp_path / "checkpoint"), precision="int4", layers=PLAIN, prefill="widened"
    )
    whole = json.loads((bundle / "manifest.json").read_text())
    one = whole["graphs"]["prefill"]["widened"][0]
    for more, message in (
        ([one], "different names"),
        ([{**one, "mixed": 3}], "power of two"),
        ([{**one, "mixed": 1024}], "divides its inputs"),
        ([{**one, "mixed": -2}], "power of two"),
        ([{**one, "name": f"w{number}"} for number in range(10_000)], "from its files"),
    ):
        data = json.loads(json.dumps(whole))
        data["graphs"]["prefill"]["widened"] += more
        write_manifest(bundle, data)
        with pytest.raises(BundleError, match=message):
            edgevlm_runtime.load(bundle)


@pytest.mark.parametrize("options", [{"prefill": "int8"}, {"prefill": "widened", "layers": PLAIN}], ids=str)
def test_a_decoder_whose_values_are_not_rotated(options: dict[str, object], tmp_path: Path, export_bundle) -> None:
    """Layers at its end read the values of others, so neither graph rotates them."""
    bundle = export_bundle(
        checkpoints.gemma4(tmp_path / "checkpoint"), precision="int4", **{"layers": PLAIN, **options}
    )
    graphs = edgevlm_runtime.load(bundle).manifest.graphs
    for name in ("decoder", "prefill"):
        assert "rotate-values" not in graphs[name].transforms


def test_a_weight_that_is_not_described(tmp_path: Path, export_bundle) -> None:
    bundle = export_bundle(
        checkpoints.llava(tmp_path / "checkpoint"), precision="int4", layers=PLAIN, prefill="widened"
    )
    data = json.loads((bundle / "manifest.json").read_text())
    del data["graphs"]["prefill"]["widened"][0]
    write_manifest(bundle, data)
    with pytest.raises(BundleError, match=r"onnxruntime cannot load .*prefill.onnx"):
        edgevlm_runtime.load(bundle)


def test_a_graph_that_fills_the_cache_otherwise_is_left_out(
    tmp_path: Path, export_bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """As exporters made them that rotated the decoder's values alone."""
    bundle = export_bundle(checkpoints.llava(tmp_path / "checkpoint"), precision="int8", prefill="int8")
    wanted = answers(bundle, prefill_graph=False)
    data = json.loads((bundle / "manifest.json").read_text())
    data["graphs"]["prefill"]["transforms"].remove("rotate-values")
    write_manifest(bundle, data)
    assert answers(bundle) == wanted
    assert "export the model again" in caplog.text


def test_a_target_is_measured_with_widened_prompts(tmp_path: Path, export_bundle) -> None:
    """Layers that are lifted are the prompts' too."""
    folder = checkpoints.llava(tmp_path / "checkpoint")
    bundle = export_bundle(folder, precision="int4", layers=PLAIN, prefill="widened", max_kl=1e-4)
    manifest = edgevlm_runtime.load(bundle).manifest
    assert manifest.fidelity is not None
    lifted = {layer.layer: layer.after for layer in manifest.fidelity.lifted}
    assert lifted
    assert manifest.fidelity.found < manifest.fidelity.before
    widened = {weight.name for weight in manifest.graphs["prefill"].widened}
    assert not widened & {weight for weight, name in lifted.items() if name == "fp32"}
    found, expected = _cache(bundle), _cache(bundle, prefill_graph=False)
    for key, held in expected.items():
        assert np.linalg.norm(found[key] - held) < 0.15 * np.linalg.norm(held)


def test_int8_prompts_beside_an_int4_decoder(tmp_path: Path, export_bundle) -> None:
    """What is in the cache after a prompt is close to what the float32 graph leaves there, values rotated or not."""
    folder = checkpoints.llava(tmp_path / "checkpoint", "qwen2-tied")
    exact = _cache(export_bundle(folder, decoder="int4", prefill="fp32"))
    found = _cache(export_bundle(folder, decoder="int4", prefill="int8"))
    for key in exact:
        difference = np.linalg.norm(found[key] - exact[key]) / np.linalg.norm(exact[key])
        assert 0 < difference < 0.05


def _cache(bundle: Path, **options: object) -> dict[int, np.ndarray]:
    """What one pass over some rows leaves, by the graph for prompts where there is one."""
    vlm = edgevlm_runtime.load(bundle, **options)
    run = vlm.pipeline.decoder.new_run(32)
    rows = np.random.default_rng(0).standard_normal((32, vlm.pipeline.decoder.info.input_width)).astype(np.float32)
    feeds = vlm.pipeline.positions.feeds((), 0, 32)
    if vlm.pipeline.decoder.prefill_graph is not None:
        run.prefill(rows, feeds)
    else:
        run.forward(rows, np.array([31]), feeds)
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


def test_inspect_tells_the_memory_of_what_is_made(tmp_path: Path, export_bundle) -> None:
    from click.testing import CliRunner

    from edgevlm.cli import cli

    folder = checkpoints.llava(tmp_path / "checkpoint")
    bundle = export_bundle(folder, precision="int4", layers=PLAIN, prefill="widened")
    graphs = json.loads(CliRunner().invoke(cli, ["inspect", str(bundle), "--json"]).stdout)["graphs"]
    described = json.loads((bundle / "manifest.json").read_text())["graphs"]["prefill"]["widened"]
    made = sum(math.prod(one["blocks"]["shape"]) for one in described)
    assert made < graphs["prefill"]["widened_bytes"] < 1.5 * made  # and a scale for each output
    assert graphs["decoder"]["widened_bytes"] == 0
    text = CliRunner().invoke(cli, ["inspect", str(bundle)]).stdout
    assert re.search(r"prefill +int8 +[\d.]+ KiB \+ [\d.]+ KiB when loaded", text), text


def test_refused() -> None:
    with pytest.raises(ExportError, match="unknown precision of the prefill graph: int5"):
        ExportOptions("inspector", prefill="int5")
    with pytest.raises(ExportError, match="calibrated"):
        ExportOptions("inspector", precision="int4", prefill="int4")
    with pytest.raises(ExportError, match="leave it out, or --target"):
        ExportOptions("inspector", prefill="int8", target="tensorrt-rtx")
    for precision in ("fp16", "fp32"):
        with pytest.raises(ExportError, match="widens integers, and the decoder is stored in fp"):
            ExportOptions("inspector", precision=precision, prefill="widened")


def test_the_fast_plans() -> None:
    """Prompts widened, unless a part of the plan is exchanged that they follow from."""
    for name, default, head in (
        ("int8-fast", "int8b", "int8b"),
        ("int4-fast", "int4:block=128", "int4:block=128"),
    ):
        plan = choose(name)
        assert (plan.decoder.default, plan.decoder.roles["head"], plan.widened) == (default, head, True)
        assert plan == choose(name, prefill="widened")
        assert choose("fp32", decoder=name).widened
        assert choose(name, prefill="fp32").widened is False
        for decoder in ("fp32", "int8"):
            other = choose(name, decoder=decoder)
            assert (other.prefill, other.widened) == (None, False)
    assert choose("int8-fast").prefill == choose("int8", prefill="widened").prefill
    with pytest.raises(ExportError, match=r"--int8-fast is for ONNX Runtime: choose --int8, or leave out --target"):
        choose("int8-fast", dialect="standard")


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
    """There alone layers are lifted; where prompts follow the decoder's weights, theirs too."""
    assert ExportOptions("inspector", precision="int8").plan.max_kl is not None
    assert ExportOptions("inspector", precision="int8", prefill="int8").plan.max_kl is None
    assert ExportOptions("inspector", precision="int8", prefill="int8", max_kl=float("inf")).plan.max_kl is None
    with pytest.raises(ExportError, match=r"^--max-kl lifts layers of .* graph alone: leave it out, or --prefill$"):
        ExportOptions("inspector", precision="int8", prefill="int8", max_kl=0.01)
