"""Files that are none, are too large, or hold something else: one line, no waiting, nothing read in vain."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_runtime.errors import BundleError, EdgeVLMError
from edgevlm_runtime.reading import decode_json, is_regular, open_regular, read_array, read_bytes, read_json, read_text


def pipe(path: Path) -> None:
    os.mkfifo(path)


def linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("p"))
    path.symlink_to("p")


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


OTHERS: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": bound_socket,
    "link to a pipe": linked_pipe,
    "circle": lambda path: path.symlink_to(path.name),
    "dangling link": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    OTHERS[kind](Path("x"))
    assert not is_regular("x")
    for read in (open_regular, lambda path: read_bytes(path, 100), lambda path: read_text(path, 100), read_array):
        with pytest.raises(OSError):  # noqa: PT011 -- the kind decides which
            read("x")


@pytest.mark.parametrize("name", ["a\0b", "\udc80", "n" * 5000, ""])
def test_names_that_no_file_can_have(name: str) -> None:
    assert not is_regular(name)
    with pytest.raises(OSError):  # noqa: PT011
        open_regular(name)


def test_links_to_regular_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert is_regular(tmp_path / "link")
    assert read_bytes(tmp_path / "link", 3) == b"abc"


@given(content=st.binary(max_size=200), limit=st.integers(0, 200))
def test_no_more_than_the_limit_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes, limit: int) -> None:
    file = tmp_path_factory.getbasetemp() / "limited"
    file.write_bytes(content)
    if len(content) <= limit:
        assert read_bytes(file, limit) == content
    else:
        with pytest.raises(OSError, match=f"larger than {limit} bytes"):
            read_bytes(file, limit)


def test_a_file_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read_bytes(file, 1000)


@dataclass
class Point:
    x: float
    tags: list[str]


BAD_JSON = {
    "not UTF-8": (b'{"x": 1, "tags": ["\xff"]}', "UTF-8"),
    "deep": (b'{"x": 1, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
    "cut short": (b'{"x": 1, "ta', "truncated"),
    "another type": (b'{"x": 1, "tags": [1]}', r"\$.tags\[0\]"),
    "a field is missing": (b'{"x": 1}', "tags"),
    "not a number": (b'{"x": NaN, "tags": []}', "malformed"),
    "beyond all numbers": (b'{"x": 1e999, "tags": []}', r"out of range - at `\$.x`"),
    "a list": (b"[]", "Expected `object`"),
    "nothing": (b"", "truncated"),
    "half a surrogate pair": (b'{"x": 1, "tags": ["\\ud800"]}', "."),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_is_none(tmp_path: Path, name: str) -> None:
    data, words = BAD_JSON[name]
    file = tmp_path / "point.json"
    file.write_bytes(data)
    with pytest.raises(BundleError, match=words) as raised:
        read_json(file, Point, "point", error=BundleError, remedy="draw it again")
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"not a point: {file}: ")
    assert message.endswith(": draw it again")


@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]":,x tags1e-', max_size=60).map(str.encode))
def test_any_bytes_decode_or_are_told(data: bytes) -> None:
    try:
        point = decode_json(data, Point, "no point")
    except EdgeVLMError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(point.x)


def test_json_in_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "point.json")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(read_json, tmp_path / "point.json", Point, "point")
        with pytest.raises(EdgeVLMError, match="not a file but a pipe"):
            waiting.result(timeout=60)


def test_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert read_array(file).tolist() == [[0, 1, 2], [3, 4, 5]]


ARRAYS: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: (np.save(path, np.zeros(100)), path.write_bytes(path.read_bytes()[:-1])),
    "objects": lambda path: np.save(path, np.array([{}, []], dtype=object), allow_pickle=True),
    "archive": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"hello"),
    "terabytes promised": lambda path: path.write_bytes(header("(1000000000000,)")),
    "deep header": lambda path: path.write_bytes(header("(" * 3000 + ")" * 3000)),
    "negative": lambda path: path.write_bytes(header("(-4,)")),
}


def header(shape: str) -> bytes:
    text = ("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + "}\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_none(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.npy"
    ARRAYS[name](file)
    with pytest.raises(OSError):  # noqa: PT011
        read_array(file)


FRESH = """
import dataclasses, sys, threading
from collections.abc import Mapping
from edgevlm_runtime.reading import decode_json
sys.setswitchinterval(1e-6)
SOURCE = '''
@dataclasses.dataclass(frozen=True)
class Inner:
    x: int = 1
    y: Mapping[str, float] = dataclasses.field(default_factory=dict)
@dataclasses.dataclass(frozen=True)
class Outer:
    number: int
    inner: tuple[Inner, ...] = ()
    one: Inner = dataclasses.field(default_factory=Inner)
    said: str = ""
'''
found = []
for _ in range(200):
    names = {"dataclasses": dataclasses, "Mapping": Mapping}
    exec(SOURCE, names)
    together = threading.Barrier(4)
    def decode():
        together.wait()
        found.append(decode_json(b'{"number": 3, "inner": [{"x": 2}], "one": {"x": 1}}', names["Outer"], "no").number)
    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
assert found == [3] * 800
"""


def test_threads_that_are_the_first_to_decode_a_type():
    """msgspec alone crashes here."""
    subprocess.run([sys.executable, "-c", FRESH], check=True)
