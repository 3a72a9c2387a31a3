"""Opening a bundle: everything that can be wrong with the folder gives one clear line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgevlm_runtime
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.folder import Bundle, _release, altered_files
from edgevlm_runtime.errors import BundleAltered, BundleError, BundleIncomplete, BundleTooNew, EdgeVLMError
from edgevlm_runtime.installing import upgrade
from tests.support.seal import seal

FILES = (
    "chat_template.jinja",
    "decoder.onnx",
    "embeddings.bin",
    "projector.onnx",
    "tokenizer.json",
    "vision_encoder.onnx",
)
Rewrite = Callable[[Path, Callable[[dict[str, Any]], None]], None]


def _one_line(error: pytest.ExceptionInfo[BundleError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_opens_and_names_files(handmade_bundle: Path) -> None:
    bundle = Bundle.open(handmade_bundle)
    assert sorted(bundle.manifest.files) == list(FILES)
    assert bundle.file("decoder.onnx") == handmade_bundle / "decoder.onnx"
    with pytest.raises(BundleError, match="names no file 'other'"):
        bundle.file("other")


def test_unknown_way_to_verify(handmade_bundle: Path) -> None:
    with pytest.raises(EdgeVLMError, match="bad value for verify: 'quick'"):
        Bundle.open(handmade_bundle, "quick")


def test_manifest_alone(own_bundle: Path) -> None:
    """For tools that report every damaged file themselves; answering always checks more."""
    (own_bundle / "decoder.onnx").unlink()
    assert Bundle.open(own_bundle, "none").manifest.model.name == "tiny"
    with pytest.raises(EdgeVLMError, match="bad value for verify: 'none'"):
        edgevlm_runtime.load(own_bundle, verify="none")


def test_digest_is_of_the_contents(handmade_bundle: Path, tmp_path: Path, rewrite: Rewrite) -> None:
    copy = Path(shutil.copytree(handmade_bundle, tmp_path / "copy"))
    assert Bundle.open(copy).digest == Bundle.open(handmade_bundle).digest
    rewrite(copy, lambda data: data["model"].update(name="other"))
    assert Bundle.open(copy).digest != Bundle.open(handmade_bundle).digest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", ["full", "size"])
def test_missing_file(own_bundle: Path, name: str, verify: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(BundleIncomplete) as error:
        Bundle.open(own_bundle, verify)
    _one_line(error, str(own_bundle / name), "missing")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", ["full", "size"])
def test_truncated_file(own_bundle: Path, name: str, verify: str) -> None:
    file = own_bundle / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleIncomplete) as error:
        Bundle.open(own_bundle, verify)
    _one_line(error, str(file), str(file.stat().st_size))


@pytest.mark.parametrize("name", FILES)
def test_one_altered_bit(own_bundle: Path, name: str) -> None:
    file = own_bundle / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleAltered) as error:
        Bundle.open(own_bundle)
    _one_line(error, str(file))
    assert altered_files(own_bundle, Bundle.open(own_bundle, "size").manifest) == [name]


def test_a_folder_in_place_of_a_file(own_bundle: Path) -> None:
    (own_bundle / "tokenizer.json").unlink()
    (own_bundle / "tokenizer.json").mkdir()
    with pytest.raises(BundleIncomplete, match="not a file"):
        Bundle.open(own_bundle)


def test_newer_schema(own_bundle: Path, rewrite: Rewrite) -> None:
    def newer(data: dict[str, Any]) -> None:
        data["schema_version"] = schema.SCHEMA_VERSION + 1
        data["graphs"] = "something this version cannot read"

    rewrite(own_bundle, newer)
    with pytest.raises(BundleTooNew) as error:
        Bundle.open(own_bundle)
    _one_line(error, "upgrade", schema.MANIFEST_NAME)


def test_newer_runtime_wanted(own_bundle: Path, rewrite: Rewrite) -> None:
    rewrite(own_bundle, lambda data: data.update(min_runtime_version="99.1"))
    with pytest.raises(BundleTooNew) as error:
        Bundle.open(own_bundle)
    _one_line(error, "99.1", upgrade())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema_version": "x"}', "\x00\xff"])
def test_not_a_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / schema.MANIFEST_NAME).write_text(text, encoding="latin-1")
    seal(own_bundle)
    with pytest.raises(BundleError) as error:
        Bundle.open(own_bundle)
    _one_line(error, schema.MANIFEST_NAME)


@pytest.mark.parametrize("name", ["schema_version", "graphs", "decoder", "prompt", "image", "files", "generation"])
def test_manifest_without_a_field(own_bundle: Path, rewrite: Rewrite, name: str) -> None:
    rewrite(own_bundle, lambda data: data.pop(name))
    with pytest.raises(BundleError) as error:
        Bundle.open(own_bundle)
    _one_line(error, name)


def test_unknown_fields_are_ignored(own_bundle: Path, rewrite: Rewrite) -> None:
    rewrite(own_bundle, lambda data: data.update(colour="blue"))
    assert Bundle.open(own_bundle).manifest.model.name == "tiny"


def test_a_bundle_that_knows_no_forms_of_content(own_bundle: Path, rewrite: Rewrite) -> None:
    """As early exporters wrote it: its template takes parts, and is the checkpoint's own."""

    def change(data: dict[str, Any]) -> None:
        del data["prompt"]["flat_image"], data["prompt"]["template_given"]

    before = edgevlm_runtime.load(own_bundle, threads=1).ask(None, "hello", max_new_tokens=3)
    rewrite(own_bundle, change)
    vlm = edgevlm_runtime.load(own_bundle, threads=1)
    assert (vlm.manifest.prompt.flat_image, vlm.manifest.prompt.template_given) == (None, False)
    assert vlm.ask(None, "hello", max_new_tokens=3).token_ids == before.token_ids


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleIncomplete, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="is no folder"):
        Bundle.open(tmp_path / "file")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../b", "..", "", "C:/x", "a\\..\\b", "./decoder.onnx", "a//b", "a\0b"]
)
def test_file_names_stay_in_the_bundle(own_bundle: Path, rewrite: Rewrite, name: str) -> None:
    (own_bundle.parent / "secret").write_text("x")
    record = {"sha256": "0" * 64, "bytes": 1}
    rewrite(own_bundle, lambda data: data["files"].update({name: record}))
    with pytest.raises(BundleError, match="bad file name"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["graphs"]["decoder"].update(file="else.onnx"),
        lambda data: data["decoder"]["embedding"].update(file="else.bin"),
        lambda data: data["prompt"].update(tokenizer="else.json"),
        lambda data: data["prompt"].update(chat_template="else.jinja"),
    ],
)
def test_only_files_with_a_digest_are_used(own_bundle: Path, rewrite: Rewrite, change: Any) -> None:
    rewrite(own_bundle, change)
    with pytest.raises(BundleError, match="no digest for 'else"):
        Bundle.open(own_bundle)


def test_a_graph_is_missing(own_bundle: Path, rewrite: Rewrite) -> None:
    rewrite(own_bundle, lambda data: data["graphs"].pop("projector"))
    with pytest.raises(BundleError, match="no projector graph"):
        Bundle.open(own_bundle)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_versions_compare_by_number(left: list[int], right: list[int]) -> None:
    longest = max(len(left), len(right))
    padded = [numbers + [0] * (longest - len(numbers)) for numbers in (left, right)]
    text = [".".join(map(str, numbers)) for numbers in (left, right)]
    assert (_release(text[0]) < _release(text[1])) == (padded[0] < padded[1])


def test_pre_releases_count_as_their_release() -> None:
    assert _release("1.2.0rc1") == _release("1.2")
    assert _release("0.10") > _release("0.9.3")


@pytest.mark.parametrize("verify", ["full", "size"])
def test_altered_manifest(own_bundle: Path, rewrite: Rewrite, verify: str) -> None:
    """Even where it still makes sense: it holds the digest of every other file, and its own lies beside it."""
    manifest = own_bundle / schema.MANIFEST_NAME
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert Bundle.open(own_bundle, verify).digest == digest
    told = (own_bundle / schema.MANIFEST_DIGEST_NAME).read_text()
    rewrite(own_bundle, lambda data: data["generation"].update(max_new_tokens=3))
    (own_bundle / schema.MANIFEST_DIGEST_NAME).write_text(told)
    with pytest.raises(BundleAltered) as error:
        Bundle.open(own_bundle, verify)
    _one_line(error, str(manifest), schema.MANIFEST_DIGEST_NAME)
    assert Bundle.open(own_bundle, "none").manifest.generation.max_new_tokens == 3
    (own_bundle / schema.MANIFEST_DIGEST_NAME).write_text("")
    with pytest.raises(BundleAltered):
        Bundle.open(own_bundle, verify)


@pytest.mark.parametrize("verify", ["full", "size"])
@pytest.mark.parametrize("checkpoint", [None, {"sha256": "0", "covers": "all"}])
def test_a_manifest_without_its_digest(
    own_bundle: Path, rewrite: Rewrite, verify: str, checkpoint: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused whatever it says of itself, but for the first schema, whose bundles may have none: told, each time."""
    digest = own_bundle / schema.MANIFEST_DIGEST_NAME
    rewrite(own_bundle, lambda data: data["model"].update(checkpoint=checkpoint))
    digest.unlink()
    with pytest.raises(BundleIncomplete) as error:
        Bundle.open(own_bundle, verify)
    _one_line(error, str(digest), "export the bundle again")
    rewrite(own_bundle, lambda data: data.update(schema_version=1))
    digest.unlink()
    assert Bundle.open(own_bundle, verify).manifest.schema_version == 1
    assert "used unchecked" in caplog.text


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", 0),
        ("schema_version", -3),
        ("min_runtime_version", "banana"),
        ("min_runtime_version", ""),
        ("decoder.vocab_size", 0),
        ("decoder.vocab_size", -1),
        ("decoder.hidden_size", 0),
        ("decoder.max_context", -5),
        ("decoder.kv.layers", 0),
        ("decoder.kv.dtype", "bogus"),
        ("decoder.kv.sizes", [[1, 16]]),
        ("decoder.kv.sizes", [[1, 1 << 20]] * 9),
        ("decoder.kv.sizes", [[0, 16]] * 9),
        ("decoder.stand_ins", {"3": 10**6}),
        ("decoder.stand_ins", {"3": -1}),
        ("decoder.stand_ins", {str(token): 3 for token in range(10_000)}),
        ("decoder.image_columns", [{"name": "deep", "width": 0}]),
        ("decoder.image_columns", [{"name": "deep", "width": -32}]),
        ("decoder.image_columns", [{"name": "deep", "width": 1 << 62}]),
        ("decoder.image_columns", [{"name": "deep", "width": 4}] * 2),
        ("decoder.image_columns", [{"name": str(number), "width": 4} for number in range(1000)]),
        ("decoder.states", [{"name": "0", "dtype": "float32", "shape": [1, 1 << 40]}]),
        ("decoder.states", [{"name": "0", "dtype": "float32", "shape": [1, -2]}]),
        ("decoder.states", [{"name": "0", "dtype": "banana", "shape": [1]}]),
        ("decoder.states", [{"name": "0", "dtype": "object", "shape": [1]}]),
        ("decoder.states", [{"name": "0", "dtype": "float32", "shape": [1]}] * 2),
        ("decoder.embedding.offset", -4),
        ("decoder.embedding.offset", 17),
        ("decoder.embedding.shape", [0, 32]),
        ("decoder.embedding.shape", [10**9, 32]),
        ("prompt.image_token", ""),
        ("prompt.image_token_id", -1),
        ("prompt.stop_strings", ["a", ""]),
        ("prompt.flat_image", "no image"),
        ("prompt.flat_image", "<image><image>"),
        ("generation.eos_token_ids", [-1]),
        ("generation.max_new_tokens", 0),
        ("generation.temperature", -1),
        ("generation.suppress_tokens", [-7]),
    ],
)
def test_values_that_make_no_sense(own_bundle: Path, rewrite: Rewrite, place: str, value: Any) -> None:
    def change(data: dict[str, Any]) -> None:
        *outer, name = place.split(".")
        for part in outer:
            data = data[part]
        data[name] = value

    rewrite(own_bundle, change)
    with pytest.raises(BundleError) as error:
        edgevlm_runtime.load(own_bundle, threads=1, verify="size")
    _one_line(error, place.rpartition(".")[2], schema.MANIFEST_NAME)


ABSURD = st.sampled_from([-(1 << 63), -1, 0, 1, 2, 16, 32, 262, 1 << 20, 1 << 40, (1 << 63) - 1])
NAMES = st.sampled_from(["", "deep", "inputs_embeds", "past_key_values.0.key", "logits_rows", "a\nb"])
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "uint8", "uint4", "int8", "banana", ""])
TABLES = st.fixed_dictionaries(
    {
        "file": st.sampled_from(["embeddings.bin", "decoder.onnx"]),
        "offset": ABSURD,
        "dtype": DTYPES,
        "shape": st.tuples(ABSURD, ABSURD),
        "block": ABSURD | st.just(3),
        "scales_offset": ABSURD,
    }
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "image_columns": st.lists(st.fixed_dictionaries({"name": NAMES, "width": ABSURD}), min_size=1, max_size=3),
    "token_columns": st.lists(st.fixed_dictionaries({"name": NAMES, "table": TABLES}), min_size=1, max_size=3),
    "embedding": TABLES,
    "states": st.lists(
        st.fixed_dictionaries({"name": NAMES, "dtype": DTYPES, "shape": st.lists(ABSURD, max_size=3)}), min_size=1
    ),
    "stand_ins": st.dictionaries(ABSURD.map(str), ABSURD, min_size=1),
    "kv": st.fixed_dictionaries(
        {
            "layers": ABSURD,
            "kv_heads": ABSURD,
            "head_dim": ABSURD,
            "dtype": DTYPES,
            "sizes": st.lists(st.tuples(ABSURD, ABSURD)),
        }
    ),
}


@given(change=st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_decoder_that_is_not_the_graphs_is_refused(
    handmade_bundle: Path, own_bundle: Path, rewrite: Rewrite, change: tuple[str, Any]
) -> None:
    """Whatever the manifest says of columns, states, tables and sizes: one line, or an answer where it still fits."""
    manifest = json.loads((handmade_bundle / schema.MANIFEST_NAME).read_text())
    rewrite(own_bundle, lambda data: data.update(decoder={**manifest["decoder"], change[0]: change[1]}))
    refused: list[str] = []
    try:
        edgevlm_runtime.load(own_bundle, threads=1, verify="size").ask(None, "hello", max_new_tokens=3)
    except EdgeVLMError as error:
        refused.append(str(error))
    assert refused or change[0] in {"stand_ins", "kv", "embedding"}
    assert "\n" not in "".join(refused)


def test_a_manifest_nested_without_end(own_bundle: Path) -> None:
    text = '{"schema_version": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (own_bundle / schema.MANIFEST_NAME).write_text(text)
    seal(own_bundle)
    with pytest.raises(BundleError) as error:
        Bundle.open(own_bundle)
    _one_line(error, schema.MANIFEST_NAME)
