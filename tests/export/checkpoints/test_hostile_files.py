"""Whatever a checkpoint's files hold, planning an export ends: with a plan, or with one line that says why not."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgevlm_export.api import ExportOptions
from edgevlm_export.checkpoints import checkpoint, json_files
from edgevlm_export.checkpoints.fingerprint import fingerprint
from edgevlm_export.checkpoints.weights.shards import StoredTensor, index
from edgevlm_export.families.normalization import Normalization
from edgevlm_export.planning import plan as planning
from edgevlm_export.planning.plan import plan_export
from edgevlm_runtime.errors import CheckpointError, EdgeVLMError
from tests.support import checkpoints

FAMILIES = {"llava": checkpoints.llava, "smolvlm": checkpoints.smolvlm, "qwen2_5_vl": checkpoints.qwen2_5_vl}
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WEIGHTS = "model.safetensors"


READ = "all files were read"


@pytest.fixture(scope="module", params=FAMILIES)
def own(request, tmp_path_factory) -> Path:
    """A checkpoint that tests change and put back."""
    return FAMILIES[request.param](tmp_path_factory.mktemp("own") / request.param)


@pytest.fixture
def reading(monkeypatch) -> None:
    """Planning ends where tracing begins."""

    def stop(*_: object) -> None:
        raise EdgeVLMError(READ)

    monkeypatch.setattr(planning, "plan_graph", stop)


def planned(folder: Path) -> str | None:
    """The one line of a refusal, None where all was read."""
    line = refusal(lambda: plan_export(folder, ExportOptions("inspector").plan, None, lambda *_: None))
    assert line is not None, "planning went on"
    return None if line == READ else line


def refusal(call: Callable[[], object]) -> str | None:
    """The one line of the error that a call ends with, None where it ends with none."""
    try:
        call()
        return None
    except EdgeVLMError as error:
        line = str(error)
    assert "\n" not in line
    return line


def put(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


def nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
EDGES = st.sampled_from(
    [0, -1, 1, 2**31 - 1, 2**31, 2**63, 10**30, 1e308, -0.5, "", "default", "\0", [], {}, [[]], "9" * 400]
)
VALUES = EDGES | SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)
VALUES |= st.sampled_from([nested(40), nested(80), [0] * 2000])


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*at, key)
        yield from places(value[key], (*at, key))


def json_names(folder: Path) -> list[str]:
    return sorted(name for name in json_files.KINDS if (folder / name).is_file())


@QUICK
@given(data=st.data())
def test_any_value_anywhere(own, reading, data):
    name = data.draw(st.sampled_from(json_names(own)))
    content = json.loads((own / name).read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from([*places(content)] or [("new",)]))
        inner = content
        for key in above:
            inner = inner[key]
        if data.draw(st.booleans()) and data.draw(st.booleans()) and last in content:
            del inner[last]
        else:
            inner[last] = copy.deepcopy(data.draw(VALUES))
        if not content:
            break
    for _ in put(own / name, json.dumps(content).encode()):
        planned(own)


@QUICK
@given(data=st.data())
def test_any_bytes(own, reading, data):
    """A file cut off, with a piece of it changed, or with something else in its place."""
    name = data.draw(st.sampled_from([*json_names(own), "tokenizer.json", "chat_template.jinja"]))
    content = (own / name).read_bytes()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.sampled_from([start, min(start + 8, len(content)), len(content)]))
    piece = data.draw(
        st.binary(max_size=12) | st.sampled_from([b"NaN", b"1e999", b"\xff\xfe", b"[" * 5000, b"\xef\xbb\xbf"])
    )
    for _ in put(own / name, content[:start] + piece + content[stop:]):
        planned(own)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "malformed|truncated"),
        (b"[]", "Expected `object`"),
        (b"{", "truncated"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"[" * 100_000, "nested too deep"),
        (json.dumps({"a": nested(200)}).encode(), "nested too deep"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(own, reading, content, said):
    for name in json_names(own):
        for _ in put(own / name, content):
            line = planned(own)
            assert line is not None
            assert str(own / name) in line
            assert re.search(said, line), line


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("config.json", {"text_config": True}, r"\$.text_config"),
        ("config.json", {"model_type": 7}, r"\$.model_type"),
        ("config.json", {"architectures": 3}, r"\$.architectures"),
        ("config.json", {"architectures": [3]}, r"\$.architectures"),
        ("config.json", {"quantization_config": "x"}, r"\$.quantization_config"),
        ("config.json", {"a": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1e"),
        ("config.json", {"a": [{"vocab_size": 1e300}]}, "vocab_size is 1e"),
        ("generation_config.json", {"eos_token_id": "</s>"}, r"\$.eos_token_id"),
        ("generation_config.json", {"repetition_penalty": "high"}, r"\$.repetition_penalty"),
        ("preprocessor_config.json", {"image_mean": "grey"}, r"\$.image_mean"),
        ("preprocessor_config.json", {"image_std": [1, None, 1]}, r"\$.image_std"),
        ("preprocessor_config.json", {"size": {"height": "tall"}}, r"\$.size"),
        ("preprocessor_config.json", {"resample": 99}, r"\$.resample"),
        ("processor_config.json", {"image_processor": {"image_mean": True}}, r"\$.image_processor.image_mean"),
        ("processor_config.json", {"patch_size": {}}, r"\$.patch_size"),
        ("tokenizer_config.json", {"chat_template": 5}, r"\$.chat_template"),
    ],
)
def test_the_field_is_named(tmp_path, name, change, said):
    (tmp_path / name).write_text(json.dumps({"model_type": "llava", **change}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said) as caught:
        json_files.check(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "additional_chat_templates/a.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]
)
@pytest.mark.parametrize("kind", ["too large", "pipe", "folder"])
def test_files_that_are_read_whole(tmp_path, name, kind):
    """Before anything reads them: a sparse file of terabytes is as cheap to refuse as to write."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "too large":
        path.touch()
        os.truncate(path, 1 << 33)
    elif kind == "folder":
        path.mkdir()
    elif os.name == "posix":
        os.mkfifo(path)
    else:
        pytest.skip("has no such files")
    with pytest.raises(CheckpointError, match=path.name):
        json_files.check(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", WEIGHTS])
@pytest.mark.parametrize("kind", ["pipe", "folder", "endless", "nowhere", "circle"])
def test_what_is_no_file_is_not_waited_for(tiny_checkpoint, tmp_path, reading, name, kind):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"endless": "/dev/zero", "nowhere": folder / "none", "circle": path}[kind])
    assert planned(folder) is not None


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
def test_a_pipe_or_a_device_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "pipe" / "below"):
        with pytest.raises(EdgeVLMError):
            checkpoint.locate(str(path))


def test_a_file_larger_than_any_known_is_not_read(tiny_checkpoint, tmp_path, monkeypatch):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    monkeypatch.setattr(json_files, "MOST_BYTES", 100)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        checkpoint.load_config(tmp_path)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        fingerprint(tmp_path)


class Images:
    """As much of an image processor as is looked at."""

    def __init__(self, mean: Any, std: Any, factor: Any) -> None:
        self.image_mean, self.image_std, self.rescale_factor = mean, std, factor
        self.do_rescale = self.do_normalize = True


def test_a_mean_for_all_colours():
    assert Normalization.of(Images(0.5, 2, 1 / 255)) == Normalization(1 / 255, (0.5,) * 3, (2.0,) * 3)


@pytest.mark.parametrize(
    ("mean", "std", "factor"),
    [(None, 1, 1), ([0.5], 1, 1), ([0.5] * 4, 1, 1), (0, 0, 1), (0, [1, 1, 0], 1), (1e308, 1, 1), (0, 1, float("nan"))],
)
def test_normalization_that_means_nothing(mean, std, factor):
    with pytest.raises(CheckpointError, match="image processor not usable"):
        Normalization.of(Images(mean, std, factor))


def saved(header: Any, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "F4", "X", "", None, 3]),
        "shape": st.lists(st.integers(-1, 2**64), max_size=3) | SCALARS,
        "data_offsets": st.lists(st.integers(-1, 200) | st.integers(), max_size=3) | SCALARS,
        "more": SCALARS,
    },
)


@settings(deadline=None)
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), ENTRY | SCALARS, max_size=3) | SCALARS,
    body=st.binary(max_size=64),
    length=st.none() | st.integers(0, 2**64 - 1),
)
def test_any_header_of_weights(tmp_path_factory, header, body, length):
    file = tmp_path_factory.mktemp("weights") / WEIGHTS
    data = saved(header, body, length)
    file.write_bytes(data)
    within(file, len(data))


@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_weights(tmp_path_factory, data):
    """A good file cut off, or with bytes changed."""
    file = tmp_path_factory.mktemp("weights") / WEIGHTS
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(5, dtype=torch.float16)}, file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file.write_bytes(content)
    within(file, len(content))


def within(file: Path, size: int) -> None:
    """Every tensor that is found lies in the file and can be read, or the file is refused."""
    found: list[StoredTensor] = []
    if refusal(lambda: found.extend(index(file))) is not None:
        return
    for tensor in found:
        assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= size
        assert tensor.name in (refusal(tensor.read) or tensor.name)
