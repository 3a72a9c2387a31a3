"""`edgevlm inspect`: what it says of a real bundle, and which bundles it refuses."""

from __future__ import annotations

import json
import shutil

import pytest

from edgevlm_runtime.bundle.manifest import SCHEMA_VERSION
from tests.support import records
from tests.support.seal import write_manifest

KEYS = [
    "bundle",
    "digest",
    "schema_version",
    "min_runtime_version",
    "model",
    "graphs",
    "bytes_total",
    "target",
    "max_context",
    "kv_cache",
    "system_prompt",
    "prefix",
    "image",
    "generation",
    "versions",
    "files",
    "notes",
    "self_test",
    "certificate",
]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def change_manifest(bundle, **changes):
    path = bundle / "manifest.json"
    write_manifest(bundle, {**json.loads(path.read_text()), **changes})


def largest_file(bundle):
    return max((path for path in bundle.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_json(invoke, tiny_bundle):
    result = invoke("inspect", tiny_bundle, "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    records.check("inspect", shown)
    assert list(shown) == KEYS
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert shown["model"] == manifest["model"]
    assert shown["files"] == manifest["files"]
    assert set(shown["graphs"]) == {"vision_encoder", "projector", "decoder"}
    assert shown["graphs"]["decoder"]["nodes"] == manifest["graphs"]["decoder"]["nodes"]


def test_total_is_what_lies_on_the_disk(invoke, tiny_bundle):
    shown = json.loads(invoke("inspect", tiny_bundle, "--json").stdout)
    files = [path for path in tiny_bundle.rglob("*") if path.is_file() and path.stem != "manifest"]
    assert shown["bytes_total"] == sum(path.stat().st_size for path in files)


def test_kv_cache_bytes(invoke, tiny_bundle):
    kv = json.loads(invoke("inspect", tiny_bundle, "--json").stdout)["kv_cache"]
    width = {"float32": 4, "float16": 2, "int8": 1}[kv["dtype"]]
    assert kv["bytes_per_1k_tokens"] == 1024 * kv["layers"] * 2 * kv["kv_heads"] * kv["head_dim"] * width


def test_text(invoke, tiny_bundle):
    result = invoke("inspect", tiny_bundle)
    assert result.exit_code == 0, result.stderr
    for part in ("vision_encoder", "projector", "decoder", "tokenizer.json", "KV cache", "llava"):
        assert part in result.stdout


def test_layers_held_otherwise_are_listed(invoke, bundle):
    graphs = json.loads((bundle / "manifest.json").read_text())["graphs"]
    graphs["decoder"]["exceptions"] = {"lm_head.weight": "fp16"}
    change_manifest(bundle, graphs=graphs)
    assert "lm_head.weight" in invoke("inspect", bundle).stdout


def test_no_folder(invoke, refused, tmp_path):
    assert "nowhere" in refused(invoke("inspect", tmp_path / "nowhere"))


def test_a_folder_that_is_no_bundle(invoke, refused, tmp_path):
    assert "manifest.json" in refused(invoke("inspect", tmp_path))


def test_a_file(invoke, refused, picture):
    assert "picture.png" in refused(invoke("inspect", picture))


def test_missing_file(invoke, refused, bundle):
    (bundle / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(invoke("inspect", bundle))


def test_truncated_file(invoke, refused, bundle):
    path = largest_file(bundle)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    assert path.name in refused(invoke("inspect", bundle))


def test_altered_file(invoke, refused, bundle):
    path = largest_file(bundle)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    assert path.name in refused(invoke("inspect", bundle))
    assert invoke("inspect", bundle, "--sizes-only").exit_code == 0


def test_newer_schema(invoke, refused, bundle):
    change_manifest(bundle, schema_version=SCHEMA_VERSION + 1)
    line = refused(invoke("inspect", bundle))
    assert str(SCHEMA_VERSION + 1) in line
    assert "upgrade" in line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": "one"}', '{"schema_version": 1}'])
def test_manifest_that_is_none(invoke, refused, bundle, text):
    write_manifest(bundle, text)
    assert "manifest" in refused(invoke("inspect", bundle))
