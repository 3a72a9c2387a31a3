"""`python -m benchmarks` from export to table, on the tiny model; the shapes have the sizes they are named after."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import __main__ as published
from benchmarks.shapes import SHAPES, parameters
from benchmarks.shapes.llava import LLAVA_IMAGE_TOKEN
from benchmarks.shapes.smolvlm import SMOLVLM_IMAGE_TOKEN
from edgevlm.benchmark.run import describe_machine
from edgevlm.cli import cli
from edgevlm.json_text import plain
from tests.support import checkpoints, traces

SHORT = ["--repeats", "1", "--warmup", "0", "--new-tokens", "3", "--text-tokens", "30"]
MEGA = 10**6
needs_timm = pytest.mark.skipif(not checkpoints.TIMM, reason="timm and torchvision are not installed")


@pytest.fixture
def comparisons(tiny_checkpoint, monkeypatch):
    options = ("--no-self-test", "--no-certificate")
    made = {
        "tiny": published.Comparison("Tiny", str(tiny_checkpoint), ("fp32", "fp16"), export_options=options),
    }
    monkeypatch.setattr(published, "COMPARISONS", made)
    monkeypatch.setenv("PYTHONPATH", traces.for_children()["PYTHONPATH"])
    in_a_process = published._edgevlm

    def command(*arguments):
        """The first in a process of its own, as all are; the others here, where what they import is imported."""
        if "--fp32" in arguments:
            return in_a_process(*arguments)
        traces.remember()
        done = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="edgevlm")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    monkeypatch.setattr(published, "_edgevlm", command)


def test_from_export_to_table(comparisons, tmp_path):
    results, work = tmp_path / "results", tmp_path / "work"
    folders = ["--results", str(results), "--work", str(work)]
    done = CliRunner().invoke(published.main, [*SHORT, *folders, "--only", "tiny", "--questions", "3"])
    assert done.exit_code == 0, done.output
    assert list(work.iterdir()) == []
    found = json.loads((results / "tiny.json").read_text())
    assert [engine["label"] for engine in found["bench"]["engines"]] == [
        "tiny-fp32",
        "tiny-fp16",
        "PyTorch float32",
        "PyTorch bfloat16",
    ]
    assert {name: one["n"] for name, one in found["accuracy"].items()} == {"fp32": 3, "fp16": 3}
    assert found["exports"]["fp16"]["bytes_total"] < found["exports"]["fp32"]["bytes_total"]
    lines = (results / "README.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| edgevlm fp32",
        "| edgevlm fp16",
        "| PyTorch float32",
        "| PyTorch bfloat16",
    ]
    assert len({line.count(" | ") for line in table}) == 1
    assert any("threads, 1 rounds. 3 questions" in line for line in lines)
    assert any("torch 2" in line and "onnxruntime" in line for line in lines)

    before = (results / "tiny.json").stat().st_mtime_ns
    again = CliRunner().invoke(published.main, [*SHORT, *folders, "--resume"])
    assert again.exit_code == 0, again.output
    assert (results / "tiny.json").stat().st_mtime_ns == before


def test_bundles_made_before_are_measured(comparisons, tmp_path):
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    asked = [*SHORT, *folders, "--only", "tiny", "--precision", "fp16", "--questions", "0"]
    made = CliRunner().invoke(published.main, [*asked, "--export-only"])
    assert made.exit_code == 0, made.output
    bundle = tmp_path / "work" / "tiny" / "tiny-fp16"
    before = (bundle / "manifest.json").stat().st_mtime_ns
    done = CliRunner().invoke(published.main, [*asked, "--resume", "--keep"])
    assert done.exit_code == 0, done.output
    assert (bundle / "manifest.json").stat().st_mtime_ns == before
    found = json.loads((tmp_path / "results" / "tiny.json").read_text())
    assert list(found["exports"]["fp16"]) == ["bytes_total", "peak_rss_mib"]
    assert (tmp_path / "results" / "plots" / "tiny.png").is_file()
    assert found["bench"]["engines"][0]["label"] == "tiny-fp16"


def test_tables_keep_their_order(tmp_path):
    from benchmarks.tables import write_readme

    bench = {"engines": [], "machine": plain(describe_machine())}
    bench["workload"] = {"image_size": [1, 2], "image_tokens": 3, "text_tokens": 4, "new_tokens": 5}
    bench["workload"] |= {"threads": 6, "repeats": 7}
    for name in ("a", "b", "c"):
        found = {"title": f"Title {name}", "bench": bench, "accuracy": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    text = write_readme(tmp_path, {"c": "", "b": ""}).read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Title c", "## Title b", "## Title a"]


def test_a_failed_command_ends_the_run(comparisons, tiny_bundle, tmp_path):
    """With the bundles of an interrupted run."""
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    for precision in ("fp32", "fp16"):
        shutil.copytree(tiny_bundle, tmp_path / "work" / "tiny" / f"tiny-{precision}")
    (tmp_path / "work" / "tiny" / "exports.json").write_text('{"fp32": {}, "fp16": {}}')
    done = CliRunner().invoke(published.main, [*SHORT, *folders, "--only", "tiny", "--new-tokens", "1", "--resume"])
    assert done.exit_code == 2
    assert done.stderr == "Error: bad value for new_tokens: 1: it must be at least 2\n"  # and nothing was exported
    assert not (tmp_path / "results" / "tiny.json").exists()


def test_unknown(comparisons):
    done = CliRunner().invoke(published.main, ["--only", "huge"])
    assert done.exit_code == 2
    assert "there are tiny" in done.output


@pytest.mark.parametrize(
    ("shape", "millions"),
    [
        ("llava-1.5-7b", (7060, 7070)),
        ("clip-l-336-qwen2-0.5b", (790, 805)),
        ("smolvlm-256m", (250, 260)),
        ("lfm2-vl-450m", (445, 455)),
        ("qwen3-vl-2b", (2120, 2140)),
        ("internvl3-1b", (930, 945)),
        pytest.param("fastvlm-0.5b", (615, 625), marks=needs_timm),
        ("gemma3-4b", (4290, 4310)),
    ],
)
def test_shapes_have_the_size_of_their_models(shape, millions):
    count = sum(parameter.numel() for parameter in parameters(SHAPES[shape].config()).values())
    assert millions[0] * MEGA <= count <= millions[1] * MEGA


@pytest.mark.parametrize(
    ("shape", "image_token"), [("clip-l-336-qwen2-0.5b", LLAVA_IMAGE_TOKEN), ("smolvlm-256m", SMOLVLM_IMAGE_TOKEN)]
)
def test_shapes_tokenize_a_character_each(shape, image_token, tmp_path):
    from edgevlm_export.preprocessing import load_processor, translate

    config = SHAPES[shape].config()
    config.save_pretrained(tmp_path)
    SHAPES[shape].save_processor(tmp_path)
    processor = load_processor(tmp_path, config)
    translated = translate(processor, config)
    assert translated.prompt.image_token_id == image_token
    ids = processor.tokenizer("a scratch?", add_special_tokens=False)["input_ids"]
    assert len(set(ids)) > 5
    assert len(ids) == len("a scratch?")


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ("lfm2-vl-450m", 512),
        ("qwen3-vl-2b", 512),
        ("internvl3-1b", 448),
        pytest.param("fastvlm-0.5b", 1024, marks=needs_timm),
        ("gemma3-4b", 896),
    ],
)
def test_twins_see_an_image_as_published(shape, side, tmp_path):
    """All of them give it 256 tokens: 512 pixels are 32 patches of 16, four of them one token, and so on."""
    from edgevlm_export.preprocessing import load_processor, translate
    from edgevlm_runtime.images import make_processor

    config = SHAPES[shape].config()
    SHAPES[shape].save_processor(tmp_path)
    config.save_pretrained(tmp_path)
    image = translate(load_processor(tmp_path, config), config).image
    prepared = make_processor(image)(Image.new("RGB", (side, side)))
    assert prepared.tokens == 256
    assert published.COMPARISONS[shape].image_size == (side, side)
