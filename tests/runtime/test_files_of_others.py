"""Every file that is read, with everything in it that should not be there: one line, no waiting, no traceback.

A table of readers by a table of contents. What a reader makes of a file is its own test's business; here it ends in an
`EdgeVLMError`, or the file counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm.benchmark import baseline
from edgevlm.evaluation.log import AnswerLog
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.certificate import read_certificate
from edgevlm_runtime.bundle.choice_temperature import fit_path
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.checks import question_file
from edgevlm_runtime.checks.selftest import run_self_test
from edgevlm_runtime.checks.verification import check_files
from edgevlm_runtime.engines.assigned import tuned
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.seal import write_manifest

Put = Callable[[Path], object]


def content(data: bytes) -> Put:
    return lambda path: path.write_bytes(data)


DEEP = b"[" * 200_000 + b"]" * 200_000
CONTENTS: dict[str, Put] = {
    "nothing": content(b""),
    "bytes": content(bytes(range(256)) * 4),
    "not UTF-8": content(b'{"a": "\xff"}\n{"a": "\xff"}\n'),
    "UTF-16": content('{"a": 1}\n{"b": 2}\n'.encode("utf-16")),
    "cut short": content(b'{"a": [1, 2'),
    "deep": content(DEEP + b"\n" + DEEP + b"\n"),
    "deep within": content(b'{"files": ' + DEEP + b"}\n" + b'{"engine": ' + DEEP + b"}\n"),
    "a list": content(b"[1, 2, 3]\n[1, 2, 3]\n"),
    "a number": content(b"5\n5\n"),
    "null": content(b"null\nnull\n"),
    "no number": content(b'{"prefill_chunk": NaN, "temperature": Infinity, "case": NaN}\n' * 2),
    "a great number": content(b'{"prefill_chunk": 1e999, "temperature": 1e999, "schema_version": 1e999}\n' * 2),
    "many digits": content(b'{"prefill_chunk": ' + b"9" * 5000 + b"}\n" + b'{"case": ' + b"9" * 5000 + b"}\n"),
    "other types": content(b'{"schema_version": true, "engine": 1, "case": [], "image": 5, "question": {}}\n' * 2),
    "an object": content(b'{"version": "1.0", "evaluation": 1}\n{"engine": "edgevlm"}\n{"case": "1"}\n'),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture
def bundle(handmade_bundle: Path, tmp_path: Path) -> Path:
    """With a self-test and a certificate, which the hand-made one has not."""
    folder = Path(shutil.copytree(handmade_bundle, tmp_path / "bundle"))
    (folder / "selftest").mkdir()
    Image.new("RGB", (9, 9), "red").save(folder / "selftest/image.png")
    np.save(folder / "selftest/embeddings.npy", np.zeros((4, 32), np.float32))
    (folder / "certificate.json").write_text("{}")
    test = {"image": "selftest/image.png", "embeddings": "selftest/embeddings.npy", "prompt": "hi"}
    seal(folder, self_test={**test, "token_ids": [1], "tolerance": 1.0})
    return folder


def seal(folder: Path, **fields: object) -> None:
    """Make the manifest name the files that are there, as whoever made a hostile bundle would."""
    data: dict[str, Any] = json.loads((folder / schema.MANIFEST_NAME).read_text())
    data.update(fields)
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and file.stat().st_size and name not in (schema.MANIFEST_NAME, schema.MANIFEST_DIGEST_NAME):
            if file.is_symlink():
                continue
            found = file.read_bytes()
            data["files"][name] = {"sha256": hashlib.sha256(found).hexdigest(), "bytes": len(found)}
    write_manifest(folder, data)


def ask(folder: Path, **options: Any) -> None:
    edgevlm_runtime.load(folder, threads=1, **options).ask(None, "hi", max_new_tokens=2)


def within(name: str, use: Callable[[Path], object] = ask) -> Callable[[Path, Put, Path], None]:
    """A file of the bundle, the manifest adapted to it."""

    def read(bundle: Path, put: Put, tmp_path: Path) -> None:
        (bundle / name).unlink(missing_ok=True)
        put(bundle / name)
        if name not in (schema.MANIFEST_NAME, schema.MANIFEST_DIGEST_NAME):
            seal(bundle)
        use(bundle)

    return read


def beside(
    place: Callable[[Path, Path], Path], use: Callable[[Path, Path], object]
) -> Callable[[Path, Put, Path], None]:
    """A file elsewhere; `place` and `use` are given the bundle and the folder around it."""

    def read(bundle: Path, put: Put, tmp_path: Path) -> None:
        file = place(bundle, tmp_path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        put(file)
        use(bundle, tmp_path)

    return read


def choose(bundle: Path, folder: Path) -> None:
    edgevlm_runtime.load(bundle, threads=1).session().choose("hi", ["yes", "no"])


def image_key(bundle: Path, folder: Path) -> Path:
    """The file in which the cache on disk keeps the self-test's image."""
    image = bundle / "selftest/image.png"
    edgevlm_runtime.load(bundle, threads=1, image_cache_dir=folder / "cache").ask(image, "hi", max_new_tokens=1)
    (entry,) = (folder / "cache").iterdir()
    return entry


def ask_cached(bundle: Path, folder: Path) -> None:
    vlm = edgevlm_runtime.load(bundle, threads=1, image_cache_dir=folder / "cache")
    assert vlm.ask(bundle / "selftest/image.png", "hi", max_new_tokens=1).token_ids


def resumed(bundle: Path, folder: Path) -> None:
    AnswerLog(folder / "log.jsonl", {"evaluation": 1}, resume=True).__exit__(None, None, None)


READERS: dict[str, Callable[[Path, Put, Path], None]] = {
    "manifest": within(schema.MANIFEST_NAME),
    "manifest, not checked": within(schema.MANIFEST_NAME, lambda bundle: Bundle.open(bundle, "none")),
    "manifest's digest": within(schema.MANIFEST_DIGEST_NAME),
    "graph": within("projector.onnx"),
    "tokenizer": within("tokenizer.json"),
    "chat template": within("chat_template.jinja"),
    "embeddings": within("embeddings.bin"),
    "certificate": within("certificate.json", lambda bundle: read_certificate(Bundle.open(bundle, "none"))),
    "self-test's embeddings": within(
        "selftest/embeddings.npy", lambda bundle: run_self_test(edgevlm_runtime.load(bundle, threads=1))
    ),
    "self-test's image": within(
        "selftest/image.png", lambda bundle: run_self_test(edgevlm_runtime.load(bundle, threads=1))
    ),
    "files, verified": within("tokenizer.json", check_files),
    "calibration": beside(lambda bundle, folder: fit_path(bundle), choose),
    "tuning": beside(lambda bundle, folder: tuned._file("key"), lambda bundle, folder: tuned.recall("key")),
    "image": beside(
        lambda bundle, folder: folder / "x.png",
        lambda bundle, folder: edgevlm_runtime.load(bundle, threads=1).ask(folder / "x.png", "hi"),
    ),
    "image cache": beside(image_key, ask_cached),
    "questions": beside(
        lambda bundle, folder: folder / "questions.jsonl",
        lambda bundle, folder: question_file.read(folder / "questions.jsonl"),
    ),
    "questions, CSV": beside(
        lambda bundle, folder: folder / "questions.csv",
        lambda bundle, folder: question_file.read(folder / "questions.csv"),
    ),
    "answers": beside(lambda bundle, folder: folder / "log.jsonl", resumed),
    "baseline": beside(
        lambda bundle, folder: folder / "b.json", lambda bundle, folder: baseline.load(folder / "b.json")
    ),
}


@pytest.mark.parametrize("what", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_any_content_ends_in_one_line(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, what: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def outcome() -> str:
        try:
            READERS[reader](bundle, CONTENTS[what], tmp_path)
        except EdgeVLMError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(1) as pool:  # a pipe that is waited for fails the test, rather than the run
        told = pool.submit(outcome).result(timeout=120)
    assert "\n" not in told
    assert len(told) < 2000


LINES: dict[str, tuple[bytes, str]] = {
    "no case": (b'{"engine": "edgevlm"}', "case"),
    "no engine": (b'{"case": "1"}', "engine"),
    "a case that is a number": (b'{"engine": "edgevlm", "case": 1}', "case"),
    "scores that are none": (b'{"engine": "edgevlm", "case": "1", "scores": {"yes": null}}', "scores"),
    "an engine that is a list": (b'{"engine": [], "case": "1"}', "engine"),
}


@pytest.mark.parametrize("name", LINES)
def test_stored_answers_name_the_field_at_fault(tmp_path: Path, name: str) -> None:
    line, field = LINES[name]
    (tmp_path / "log.jsonl").write_bytes(b'{"evaluation": 1}\n' + line + b"\n")
    with pytest.raises(EdgeVLMError, match=rf"holds no answers of an evaluation: .*{field}"):
        AnswerLog(tmp_path / "log.jsonl", {"evaluation": 1}, resume=True)
    assert (tmp_path / "log.jsonl").read_bytes().endswith(line + b"\n")


def test_a_graph_by_another_name_is_the_same_graph(bundle: Path) -> None:
    """onnxruntime takes files that end in .ort for its own format, whose files nobody looked at."""
    (bundle / "projector.onnx").rename(bundle / "projector.ort")
    data = json.loads((bundle / schema.MANIFEST_NAME).read_text())
    data["files"]["projector.ort"] = data["files"].pop("projector.onnx")
    data["graphs"]["projector"]["file"] = "projector.ort"
    write_manifest(bundle, data)
    vlm = edgevlm_runtime.load(bundle, threads=1)
    assert vlm.ask(bundle / "selftest/image.png", "hi", max_new_tokens=1).token_ids
