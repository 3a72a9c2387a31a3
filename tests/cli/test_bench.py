"""`edgevlm bench` on tiny bundles and their PyTorch model: JSON contract, report, baselines, refusals.

No test asserts how long anything takes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevlm.terminal.errors import CHECK_FAILED
from edgevlm_runtime.bundle.folder import Bundle
from tests.support import browser, records
from tests.support.pages import parse

SHORT = ("--repeats", 2, "--warmup", 0, "--new-tokens", 3, "--text-tokens", 16)
SPREADS = (
    "preprocess_ms",
    "vision_ms",
    "projector_ms",
    "prefill_ms",
    "decode_ms_per_token",
    "time_to_first_token_ms",
    "repeat_question_ttft_ms",
    "total_ms",
)


@pytest.fixture(scope="module")
def half_bundle(tiny_checkpoint, export_bundle) -> Path:
    """The same model in float16, in a folder of another name."""
    made = export_bundle(tiny_checkpoint, precision="fp16")
    return made.rename(made.with_name("half"))


@pytest.fixture(scope="module")
def compared(tiny_bundle, half_bundle, tiny_checkpoint, tmp_path_factory) -> tuple[dict, Path, Path]:
    """One run of two bundles beside PyTorch in two dtypes: its JSON, saved file and page."""
    from click.testing import CliRunner

    from edgevlm.cli import cli

    folder = tmp_path_factory.mktemp("bench")
    saved, report = folder / "saved.json", folder / "report.html"
    dtypes = ("--reference-dtype", "float32", "--reference-dtype", "bfloat16")
    arguments = ["bench", tiny_bundle, half_bundle, "--reference", tiny_checkpoint, *dtypes, *SHORT]
    arguments += ["--minutes", 0.005, "--save", saved, "--report", report, "--json"]
    result = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="edgevlm")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    records.check("bench", printed)
    return printed, saved, report


def test_the_contract(compared):
    found, saved, _ = compared
    assert {"machine", "workload", "engines", "ratios"} <= set(found)
    assert {"processor", "memory_bytes", "packages", "python", "busy_before"} <= set(found["machine"])
    assert found["workload"]["new_tokens"] == 3
    assert [(e["name"], e["precision"]) for e in found["engines"]] == [
        ("edgevlm", "fp32"),
        ("edgevlm", "fp16"),
        ("pytorch", "float32"),
        ("pytorch", "bfloat16"),
    ]
    for engine in found["engines"]:
        for name in SPREADS:
            assert 0 < engine[name]["p50"] <= engine[name]["p95"] <= engine[name]["p99"], name
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "load_ms", "import_cpu_ms", "model_bytes"):
            assert engine[name] > 0
        assert 0 < engine["rss_loaded_mib"] <= engine["peak_rss_mib"]
        assert len(engine["rows"]) == 2
        assert engine["sustained"]["intervals"]
    assert json.loads(saved.read_text()) == {name: value for name, value in found.items() if name != "baseline"}


def test_ratios_follow_from_the_rows(compared):
    found, _, _ = compared
    ours, _, torch, _ = found["engines"]
    ratios = found["ratios"]["pytorch"]
    expected = {
        "vision": torch["vision_ms"]["p50"] / ours["vision_ms"]["p50"],
        "prefill": ours["prefill_tokens_per_s"] / torch["prefill_tokens_per_s"],
        "decode": ours["decode_tokens_per_s"] / torch["decode_tokens_per_s"],
        "time_to_first_token": torch["time_to_first_token_ms"]["p50"] / ours["time_to_first_token_ms"]["p50"],
    }
    assert {name: ratios[name] for name in expected} == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_every_engine_did_the_same_work(compared, tiny_bundle):
    """All positions of the prompt that are not in the bundle, stages that fit into the whole, PyTorch's own tokens."""
    found, _, _ = compared
    prefix = Bundle.open(tiny_bundle, verify="none").manifest.decoder.prefix
    known = {"edgevlm": len(prefix.token_ids) if prefix else 0, "pytorch": 0}
    for engine in found["engines"]:
        assert engine["prompt_tokens_computed"] + known[engine["name"]] == found["workload"]["prompt_tokens"]
        for row in engine["rows"]:
            stages = sum(row[f"{stage}_ms"] for stage in ("preprocess", "vision", "projector", "prefill"))
            assert stages <= row["time_to_first_token_ms"] < row["total_ms"]
    assert [e["tokens_like_reference"] for e in found["engines"][:3]] == [3, 3, 3]


def test_the_reference_loop_gives_what_generate_gives(tiny_checkpoint, tmp_path):
    from PIL import Image

    from edgevlm.benchmark.engines import load_engine
    from edgevlm.benchmark.engines.base import Spec
    from edgevlm.benchmark.workload import Task
    from edgevlm_export.reference import Reference

    Image.effect_noise((28, 28), 90).convert("RGB").save(tmp_path / "image.png")
    task = Task(str(tmp_path / "image.png"), "is there a scratch", "what is it", 6, 1, "cpu")
    _, tokens = load_engine(Spec("pytorch", str(tiny_checkpoint)), task).ask(task)
    reference = Reference.load(str(tiny_checkpoint))
    eos = reference.model.generation_config.eos_token_id
    answer = reference.answer(task.first, [task.image], max_new_tokens=6, suppress_tokens=[eos])
    assert tokens == answer.token_ids


def test_the_page_shows_charts_without_a_network(compared):
    page = parse(compared[2])
    assert page.counts["svg"] == 4 + 4
    text = " ".join(page.text)
    for words in ("PyTorch bfloat16", "half", "Every round", "Times better than PyTorch float32", "Sustained"):
        assert words in text


def test_the_page_in_a_browser(compared, tmp_path):
    shown = browser.show(compared[2], tmp_path)
    browser.check(shown)
    assert shown.dom.count("<svg") == len(shown.sizes["charts"]) == 4 + 4
    assert len(shown.sizes["charts"][0]["bars"]) == 4 * 4  # stages by engines
    assert sum(chart["points"] for chart in shown.sizes["charts"][4:]) == 4, "a line for each sustained run"
    texts = [table["text"] for table in shown.sizes["tables"] if not table["hidden"]]
    assert any("time to first token" in text and "PyTorch bfloat16" in text for text in texts)
    assert browser.coloured(shown, (0x1F, 0x6F, 0xB5)) > 500


def test_as_text(invoke, tiny_bundle):
    result = invoke("bench", tiny_bundle, *SHORT, "--one-at-a-time", "--threads", 1)
    assert result.exit_code == 0, result.stderr
    assert "time to first token ms" in result.stdout
    assert "1 threads" in result.stdout
    assert "PyTorch" not in result.stdout


@pytest.mark.parametrize(("factor", "code"), [(0.001, CHECK_FAILED), (1000.0, 0)])
def test_against_a_baseline(invoke, compared, tiny_bundle, tmp_path, factor, code):
    """The saved figures, changed so that the new ones are much worse, or much better."""
    saved = json.loads(compared[1].read_text())
    for engine in saved["engines"]:
        for name in (*SPREADS, "load_ms", "peak_rss_mib"):
            if isinstance(engine[name], dict):
                engine[name] = {percentile: factor * value for percentile, value in engine[name].items()}
            else:
                engine[name] *= factor
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            engine[name] /= factor
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(saved))
    result = invoke("bench", tiny_bundle, *SHORT, "--compare", file, "--tolerance", 0.5, "--json")
    assert result.exit_code == code, result.stderr
    records.check("bench", json.loads(result.stdout))
    found = json.loads(result.stdout)["baseline"]
    assert found["passed"] is (code == 0)
    assert {change["worse_by"] > 0.5 for change in found["changes"]} == {code == CHECK_FAILED}
    worse = [line for line in result.stderr.splitlines() if line.startswith("Worse: ")]
    assert len(worse) == (len(found["changes"]) if code else 0)


def test_a_baseline_of_another_workload_is_refused_before_measuring(invoke, refused, compared, tiny_bundle):
    result = invoke("bench", tiny_bundle, *SHORT, "--new-tokens", 4, "--baseline", compared[1])
    assert "new tokens was 3, is 4" in refused(result)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--repeats", "0"], "repeats"),
        (["--new-tokens", "1"], "--new-tokens"),
        (["--new-tokens", "100000"], "more than the context"),
        (["--minutes", "-1"], "minutes"),
        (["--image-size", "4x"], "not a size"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--reference-dtype", "float32"], "--reference"),
        (["--reference", "inspector", "--reference-dtype", "int3"], "known are float32"),
        (["--baseline", "nowhere.json"], "cannot read the baseline"),
    ],
)
def test_refused(invoke, refused, tiny_bundle, arguments, named):
    assert named in refused(invoke("bench", tiny_bundle, *arguments))


def test_no_bundle(invoke, refused, tiny_bundle, tmp_path):
    assert "no such bundle" in refused(invoke("bench", tmp_path / "nowhere"))
    assert "twice" in refused(invoke("bench", tiny_bundle, tiny_bundle))


def test_what_an_engine_says_is_the_commands_error(invoke, refused, tiny_bundle, tmp_path):
    """Raised in the engine's process, read here."""
    absent = tmp_path / "absent"
    assert f"no such model: {absent}" in refused(
        invoke("bench", tiny_bundle, *SHORT, "--reference", absent), begun=True
    )
    assert "CUDAExecutionProvider" in refused(invoke("bench", tiny_bundle, *SHORT, "--provider", "cuda"), begun=True)


def test_an_engine_that_dies_is_one_line(tiny_bundle, tmp_path, monkeypatch):
    from edgevlm.benchmark.engines.base import Spec
    from edgevlm.benchmark.process import EngineProcess
    from edgevlm.benchmark.workload import Task
    from edgevlm_runtime import EdgeVLMError

    task = Task(str(tmp_path / "no.png"), "a", "b", 2, 1, "cpu")
    with EngineProcess(Spec("edgevlm", str(tiny_bundle), None, "tiny"), task) as process:
        process._process.kill()
        with pytest.raises(EdgeVLMError, match=r"process of tiny ended with -9.*memory"):
            process.ask()
    with pytest.raises(EdgeVLMError, match="unknown engine: steam"):
        EngineProcess(Spec("steam", "x"), task)
