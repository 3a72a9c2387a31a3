"""`edgevlm export` on a real checkpoint: the contract of its JSON, and what it refuses, leaving nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

import edgevlm
from edgevlm_export.api import STEPS
from edgevlm_export.families import FAMILIES
from tests.support import checkpoints, records, traces
from tests.support.checkpoints import converted

GRAPHS = {"vision_encoder", "projector", "decoder"}


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def output(tmp_path):
    """Where the bundle shall go; its folder holds nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "bundle"


@pytest.fixture
def refusal(invoke, refused, output):
    """The error line of an export that must leave nothing behind."""

    def line(*arguments: object) -> str:
        said = refused(invoke("export", *arguments, "-o", output), begun=True)
        assert list(output.parent.iterdir()) == []
        return said

    return line


def test_json(invoke, tiny_checkpoint, output):
    result = invoke("export", tiny_checkpoint, "-o", output, "--fp16", "--vision", "fp32", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    records.check("export", report)
    assert list(report) == [
        "bundle",
        "family",
        "graphs",
        "bytes_total",
        "peak_rss_mib",
        "seconds",
        "certificate",
        "fidelity",
        "image_tokens",
        "notes",
        "steps",
    ]
    assert report["certificate"] == "passed"
    assert list(report["steps"]) == [step.name for step in STEPS]
    assert 0 < sum(report["steps"].values()) <= report["seconds"]
    told = [line.split(": ")[0] for line in result.stderr.splitlines() if ": " in line]
    assert list(dict.fromkeys(told)) == ["plan", "prefix", "write", "self-test", "certify"]  # those that take long
    assert report["bundle"] == str(output)
    assert report["family"] == "llava"
    assert set(report["graphs"]) == GRAPHS
    assert all(list(graph) == ["bytes", "precision", "nodes"] for graph in report["graphs"].values())
    held = {name: graph["precision"] for name, graph in report["graphs"].items()}
    assert held == {"vision_encoder": "fp32", "projector": "fp16", "decoder": "fp16"}
    files = [path for path in output.rglob("*") if path.is_file() and path.stem != "manifest"]
    assert report["bytes_total"] == sum(path.stat().st_size for path in files)
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]
    with edgevlm.load(output).session() as session:
        assert session.ask("Is it ready?", max_new_tokens=2).token_ids


def test_text_and_default_folder(invoke, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("export", tiny_checkpoint, "--no-self-test", "--no-certificate")
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / f"{tiny_checkpoint.name.lower()}-fp32"
    assert json.loads((folder / "manifest.json").read_text())["self_test"] is None
    assert "decoder         fp32" in result.stdout
    assert f"edgevlm run {folder.name}" in result.stderr


def test_fewer_image_tokens_that_change_answers(invoke, tiny_checkpoint, output):
    """Random weights: kept aside, and the figures said; taken where that is allowed."""
    asked = ("export", tiny_checkpoint, "-o", output, "--image-tokens", "3", "--json")
    missed = invoke(*asked)
    assert missed.exit_code == 1
    (what,) = json.loads(missed.stdout)["missed"]
    assert what.startswith("3 of 4 image tokens (diverse), share of 64 answers that are others than with all (")
    assert what.endswith("at most 0.1 is needed")
    allowed = invoke(*asked, "--allow-drift", "a test")
    assert allowed.exit_code == 0, allowed.stderr
    report = json.loads(allowed.stdout)
    records.check("export", report)
    cost = report["image_tokens"]
    assert (cost["kept"], cost["of"], cost["method"], cost["questions"]) == (3, 4, "diverse", 64)
    assert 0.1 < cost["changed"] <= 1
    said = invoke("export", tiny_checkpoint, "-o", output, "--image-tokens", "3", "--allow-drift", "a test", "--force")
    assert "3 of 4 image tokens (diverse): " in said.stdout
    shown = invoke("inspect", output, "--json")
    assert json.loads(shown.stdout)["image"]["fewer"] == {"kept": 3, "of": 4, "method": "diverse"}


@pytest.mark.parametrize("value", ["0", "-3", "many"])
@pytest.mark.parametrize("option", ["--image-tokens", "--image-size"])
def test_numbers_that_are_none(invoke, refused, tiny_checkpoint, output, option, value):
    assert option in refused(invoke("export", tiny_checkpoint, "-o", output, option, value))


def test_image_options_that_the_model_does_not_take(refusal, tiny_checkpoint):
    assert "4 of 4" in refusal(tiny_checkpoint, "--image-tokens", 4)
    assert "take 28 or 42" in refusal(tiny_checkpoint, "--image-size", 30)


def test_the_model_is_no_folder(refusal, tmp_path, picture):
    assert "nowhere" in refusal(tmp_path / "nowhere")
    assert "picture.png" in refusal(picture)
    assert "no-such-alias" in refusal("no-such-alias")


def test_the_folder_is_no_model(refusal, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": 3}'])
def test_config_that_is_none(refusal, checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    assert "config.json" in refusal(checkpoint)


def test_unsupported_architecture_names_the_supported_ones(refusal, checkpoint):
    (checkpoint / "config.json").write_text('{"model_type": "bert"}')
    line = refusal(checkpoint)
    assert "bert" in line
    assert [family for family in FAMILIES if family not in line] == []


def test_missing_weights(refusal, checkpoint):
    for path in checkpoint.glob("*.safetensors"):
        path.unlink()
    assert "safetensors" in refusal(checkpoint)


def test_weights_that_cannot_be_converted(refusal, tmp_path):
    """A packed q, k and v that is not there, of another shape, or there beside what is made of it."""
    with converted.registered(converted.packed_by_sizes()):
        folder = checkpoints.llava(tmp_path / "packed")
        stored = load_file(folder / "model.safetensors")
        packed = next(name for name in stored if name.endswith("layers.1.self_attn.packed.weight"))
        short, query = stored[packed][:-8].clone(), stored[packed][:64].clone()
        for changes, said in (
            ({packed: None}, "weight missing"),
            ({packed: short}, "cannot be made of"),
            ({packed.replace("packed", "q_proj"): query}, "both become"),
        ):
            tensors = {name: value for name, value in (stored | changes).items() if value is not None}
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            line = refusal(folder)
            assert said in line
            assert "layers.1.self_attn.q_proj.weight" in line


@pytest.mark.parametrize("kept", [0, 5, 2000, -1])
def test_truncated_weights(refusal, checkpoint, kept):
    (path,) = checkpoint.glob("*.safetensors")
    with path.open("r+b") as stream:
        stream.truncate(kept if kept >= 0 else path.stat().st_size + kept)
    assert path.name in refusal(checkpoint)


def test_missing_processor_file(refusal, checkpoint):
    (checkpoint / "processor_config.json").unlink()
    assert "processor" in refusal(checkpoint)


def test_missing_tokenizer(refusal, checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(checkpoint)


@pytest.mark.parametrize("option", ["--vision", "--projector", "--decoder"])
def test_unknown_precision(refusal, tiny_checkpoint, option):
    line = refusal(tiny_checkpoint, option, "fp7")
    assert "fp7" in line
    assert "fp16" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--layer", "down_proj"), "NAME=PRECISION"),
        (("--layer", "*.down_proj=int8b", "--layer", "*.down_proj=fp16"), "exclude each other"),
        (("--int8", "--layer", "*.down_proj=int9"), "unknown precision: int9"),
        (("--int8", "--layer", "*.dwn_proj=int8b"), "no such linear layer: *.dwn_proj"),
        (("--int8", "--max-kl", "0"), "bad target"),
        (("--fp16", "--max-kl", "0.01"), "nothing to lift"),
        (("--int8", "--int4"), "exclude each other"),
    ],
)
def test_contradictions(refusal, tiny_checkpoint, options, says):
    assert says in refusal(tiny_checkpoint, *options)


def test_calibration_image_that_is_none(refusal, tiny_checkpoint, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "part.png").write_bytes(b"no picture")
    assert "part.png" in refusal(tiny_checkpoint, "--int4", "--calibrate", folder)


def test_context_too_short(refusal, tiny_checkpoint):
    assert "3 tokens" in refusal(tiny_checkpoint, "--max-context", 3)


def test_disk_too_small(refusal, tiny_checkpoint, monkeypatch):
    usage = shutil.disk_usage(tiny_checkpoint)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "disk" in refusal(tiny_checkpoint)


def test_existing_output_needs_force(invoke, refused, tiny_checkpoint, tiny_bundle, output):
    shutil.copytree(tiny_bundle, output)
    before = (output / "manifest.json").read_bytes()
    assert "--force" in refused(invoke("export", tiny_checkpoint, "-o", output, "--fp16"))
    assert (output / "manifest.json").read_bytes() == before
    assert invoke("export", tiny_checkpoint, "-o", output, "--fp16", "--no-certificate", "--force").exit_code == 0
    assert json.loads((output / "manifest.json").read_text())["graphs"]["decoder"]["precision"] == "fp16"


def test_force_replaces_bundles_only(invoke, refused, tiny_checkpoint, output):
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    assert "not a bundle" in refused(invoke("export", tiny_checkpoint, "-o", output, "--force"))
    assert (output / "thesis.tex").exists()


def test_no_network_says_how_to_pass_a_folder(spawn, refused, tmp_path):
    done = spawn("export", "nobody/nothing", "-o", tmp_path / "bundle", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    line = refused(done)
    assert "nobody/nothing" in line
    assert "folder" in line
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_nothing_behind(tiny_checkpoint, output):
    # A shell that runs this in the background may have switched SIGINT off, and children inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import edgevlm.cli as c; c.main()"
    command = [sys.executable, "-c", code, "export", str(tiny_checkpoint), "-o", str(output)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=traces.for_children()
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("write: "):
            break
    else:
        pytest.fail("the export ended before it wrote")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=300)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "Interrupted."
    assert list(output.parent.iterdir()) == []
