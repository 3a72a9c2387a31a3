"""Which other files an ONNX graph makes onnxruntime read: the weights that it keeps outside of itself.

A graph is a protobuf message; a tensor in it may say that its values lie in another file. onnxruntime opens that file,
whatever it is, so it must be one that the manifest names. Tensors are initializers of graphs and subgraphs, attributes
of nodes, parts of sparse tensors, and lie in functions and training graphs: all of them are visited, by the field
numbers of onnx.proto. The walk is stricter than protobuf's own: what it does not understand is refused, so there is no
graph that it sees less of than onnxruntime does.

    external_files(folder / "decoder.onnx")    # {"decoder.onnx.data"}, relative to the graph's folder
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path, PurePosixPath

from edgevlm_runtime.bundle.manifest import MADE_WHEN_LOADED, Manifest
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.reading import open_regular, why


class Message(Enum):
    """Kinds of messages that lead to tensors, by their names in onnx.proto."""

    MODEL = auto()
    GRAPH = auto()
    NODE = auto()
    ATTRIBUTE = auto()
    TENSOR = auto()
    SPARSE_TENSOR = auto()
    FUNCTION = auto()
    TRAINING_INFO = auto()
    ENTRY = auto()
    """`StringStringEntryProto`: one of a tensor's external_data."""


PARTS: dict[Message, dict[int, Message]] = {
    Message.MODEL: {7: Message.GRAPH, 20: Message.TRAINING_INFO, 25: Message.FUNCTION},
    Message.GRAPH: {1: Message.NODE, 5: Message.TENSOR, 15: Message.SPARSE_TENSOR},
    Message.NODE: {5: Message.ATTRIBUTE},
    Message.ATTRIBUTE: {
        5: Message.TENSOR,
        6: Message.GRAPH,
        10: Message.TENSOR,
        11: Message.GRAPH,
        22: Message.SPARSE_TENSOR,
        23: Message.SPARSE_TENSOR,
    },
    Message.TENSOR: {13: Message.ENTRY},
    Message.SPARSE_TENSOR: {1: Message.TENSOR, 2: Message.TENSOR},
    Message.FUNCTION: {7: Message.NODE, 11: Message.ATTRIBUTE},
    Message.TRAINING_INFO: {1: Message.GRAPH, 2: Message.GRAPH},
    Message.ENTRY: {},
}
"""Field number to the kind of message in it, of the fields that may lead to a tensor."""

_KEY, _VALUE, _OPERATOR = 1, 2, 4
_LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
_LONGEST_VARINT = 10
_MOST_FIELDS = 4_000_000
"""Of all messages together: some thirty times what a large model's graph has."""
_FOREIGN = b"EPContext"
"""The operator of a graph that was compiled for one provider: it names a file in an attribute of its own."""


class _NoGraph(ValueError):
    """Not a message of this kind."""


def unlisted_weights(folder: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Names of the graph files that keep values where the manifest names no file, each with that in words.

    Raises `BundleError` as `external_files` does.
    """
    for graph in manifest.graphs.values():
        for location in sorted(external_files(folder / graph.file)):
            name = str(PurePosixPath(graph.file).parent / location)
            if graph.widened and location == MADE_WHEN_LOADED and not (folder / name).exists():
                continue
            if ".." in PurePosixPath(location).parts or name not in manifest.files:
                yield graph.file, f"reads weights from {location!r}, which the manifest does not name"


def external_files(file: Path) -> set[str]:
    """Names of the files that the graph in `file` keeps values in, as it spells them.

    Raises `BundleError` when `file` cannot be read, or is no ONNX graph, or one that other files belong to in a way
    that cannot be checked.
    """
    again = "copy or export the bundle again"
    try:
        with open_regular(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data))
    except OSError as error:
        raise BundleError(f"cannot read {file}: {why(error)}: {again}") from error
    except ValueError as error:  # mmap's own, for an empty file, too
        raise BundleError(f"cannot load {file}: no ONNX graph ({error}): {again}") from error


def _locations(data: mmap.mmap) -> Iterator[str]:
    pending = [(Message.MODEL, 0, len(data))]
    seen = 0
    while pending:
        kind, start, stop = pending.pop()
        if kind is Message.ENTRY:
            yield from _location(data, start, stop)
            continue
        parts = PARTS[kind]
        for number, first, last in _fields(data, start, stop):
            seen += 1
            if seen > _MOST_FIELDS:
                raise _NoGraph(f"more than {_MOST_FIELDS} fields")
            part = parts.get(number)
            if part is not None:
                pending.append((part, first, last))
            elif number == _OPERATOR and kind is Message.NODE and data[first:last] == _FOREIGN:
                raise _NoGraph("it holds a graph compiled for another engine")


def _location(data: mmap.mmap, start: int, stop: int) -> Iterator[str]:
    """Every value of the entry, where any of its keys is "location": which of several counts is protobuf's business, as
    is that one without a value has an empty one."""
    fields = [(number, data[first:last]) for number, first, last in _fields(data, start, stop)]
    if (_KEY, b"location") in fields:
        yield from [value.decode("utf-8") for number, value in fields if number == _VALUE] or [""]


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(field number, first byte, byte after the last) of the length-delimited fields of a message; others are passed
    over."""
    place = start
    while place < stop:
        tag = data[place]
        if tag < 0x80:
            place += 1
        else:
            tag, place = _varint(data, place, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _NoGraph(f"field number {number}")
        if wire == _LENGTH_DELIMITED:
            length, place = _varint(data, place, stop)
            if length > stop - place:
                raise _NoGraph("a field reaches beyond its message")
            yield number, place, place + length
            place += length
        elif wire == 0:
            _, place = _varint(data, place, stop)
        elif wire in _FIXED:
            place += _FIXED[wire]
        else:
            raise _NoGraph(f"wire type {wire}")
    if place != stop:
        raise _NoGraph("a field reaches beyond its message")


def _varint(data: mmap.mmap, place: int, stop: int) -> tuple[int, int]:
    """The number at `place`, and the place after it."""
    value = shift = 0
    for here in range(place, min(place + _LONGEST_VARINT, stop)):
        byte = data[here]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, here + 1
        shift += 7
    raise _NoGraph("a number that does not end")
