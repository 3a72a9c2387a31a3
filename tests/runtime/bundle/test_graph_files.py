"""Weights outside of graphs: every place where a graph can name a file is seen, compared with onnx's own reading."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgevlm_runtime.bundle import graph_files
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.graph_files import PARTS, Message, external_files
from edgevlm_runtime.checks.verification import check_files
from edgevlm_runtime.errors import BundleError

onnx = pytest.importorskip("onnx")
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper  # noqa: E402

NAMES = {
    Message.MODEL: "ModelProto",
    Message.GRAPH: "GraphProto",
    Message.NODE: "NodeProto",
    Message.ATTRIBUTE: "AttributeProto",
    Message.TENSOR: "TensorProto",
    Message.SPARSE_TENSOR: "SparseTensorProto",
    Message.FUNCTION: "FunctionProto",
    Message.TRAINING_INFO: "TrainingInfoProto",
    Message.ENTRY: "StringStringEntryProto",
}


def parts_by_onnx() -> dict[str, dict[int, str]]:
    """Message to the fields from which a tensor's external_data can be reached, by onnx's own description."""
    messages: dict[str, Any] = {}
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        found = pending.pop()
        if found.name not in messages:
            messages[found.name] = found
            pending += [field.message_type for field in found.fields if field.message_type]
    leads = {"TensorProto"}
    while True:
        more = {
            name
            for name, message in messages.items()
            if any(field.message_type and field.message_type.name in leads for field in message.fields)
        }
        if more <= leads:
            break
        leads |= more
    parts = {
        name: {
            f.number: f.message_type.name
            for f in messages[name].fields
            if f.message_type and f.message_type.name in leads
        }
        for name in leads
    }
    tensor = messages["TensorProto"].fields_by_name["external_data"]
    return {**parts, "TensorProto": {tensor.number: tensor.message_type.name}, tensor.message_type.name: {}}


def test_the_fields_are_those_of_onnx() -> None:
    ours = {NAMES[message]: {number: NAMES[part] for number, part in parts.items()} for message, parts in PARTS.items()}
    assert ours == parts_by_onnx()


def external(location: str, swapped: bool = False) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entries = [("location", location), ("offset", "0"), ("length", "4")]
    for key, value in reversed(entries) if swapped else entries:
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(values: TensorProto, indices: TensorProto) -> Any:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def attribute(**fields: Any) -> Any:
    return onnx.AttributeProto(name="a", **fields)


def graph_with(node: Any) -> Any:
    return helper.make_graph([node], "g", [], [])


def node_with(held: Any) -> Any:
    node = helper.make_node("Op", [], ["y"])
    node.attribute.append(held)
    return node


PLACES: dict[str, Callable[[TensorProto], Any]] = {
    "attribute": lambda t: attribute(type=onnx.AttributeProto.TENSOR, t=t),
    "attributes": lambda t: attribute(type=onnx.AttributeProto.TENSORS, tensors=[external("other"), t]),
    "sparse values": lambda t: attribute(sparse_tensor=sparse(t, TensorProto())),
    "sparse indices": lambda t: attribute(sparse_tensors=[sparse(TensorProto(), t)]),
    "subgraph": lambda t: attribute(g=onnx.GraphProto(name="s", initializer=[t])),
    "subgraphs": lambda t: attribute(
        graphs=[onnx.GraphProto(name="s"), onnx.GraphProto(sparse_initializer=[sparse(t, t)])]
    ),
}
"""Where a tensor can stand in an attribute."""


def nested(place: str, tensor: TensorProto, depth: int) -> Any:
    """A node that holds the tensor, within `depth` further subgraphs."""
    node = node_with(PLACES[place](tensor))
    for _ in range(depth):
        node = node_with(attribute(g=graph_with(node)))
    return node


ROOTS: dict[str, Callable[[Any], Any]] = {
    "graph": lambda node: onnx.ModelProto(graph=graph_with(node)),
    "function": lambda node: onnx.ModelProto(functions=[onnx.FunctionProto(name="f", node=[node])]),
    "function's default": lambda node: onnx.ModelProto(functions=[onnx.FunctionProto(attribute_proto=node.attribute)]),
    "training": lambda node: onnx.ModelProto(training_info=[onnx.TrainingInfoProto(algorithm=graph_with(node))]),
    "initialization": lambda node: onnx.ModelProto(
        training_info=[onnx.TrainingInfoProto(initialization=graph_with(node))]
    ),
}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("depth", [0, 3])
def test_no_place_is_overlooked(tmp_path: Path, root: str, place: str, depth: int) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(ROOTS[root](nested(place, external("weights.bin"), depth)).SerializeToString())
    assert external_files(file) - {"other"} == {"weights.bin"}


def seen_by_protobuf(message: Any) -> Iterator[str]:
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from seen_by_protobuf(part)


def model() -> bytes:
    """A graph with weights in all places, and some of everything else."""
    nodes = [nested(place, external(f"{place}.bin", swapped=True), 1) for place in PLACES]
    floats = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", strides=[1, 2], alpha=0.5, auto_pad="SAME_UPPER")
    graph = helper.make_graph(
        [floats, *nodes],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [external("first.bin"), helper.make_tensor("inside", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    made: bytes = helper.make_model(graph, producer_name="test").SerializeToString()
    return made


MODEL = model()
EDITS = st.lists(
    st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 2), st.binary(min_size=1, max_size=12)), max_size=4
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, stop=st.integers(1, len(MODEL)) | st.none())
@example(edits=[(173, 0, b"\xf1")], stop=None)  # a location without a value
def test_no_bytes_hide_a_file(tmp_path: Path, edits: list[tuple[int, int, bytes]], stop: int | None) -> None:
    """Whatever protobuf makes of damaged bytes, each file it sees is found, or the graph is refused."""
    data = bytearray(MODEL)
    for place, how, new in edits:
        data[place : place + (len(new) if how == 0 else 0 if how == 1 else 3)] = new
    file = tmp_path / "model.onnx"
    file.write_bytes(data[:stop])
    try:
        found = external_files(file)
    except BundleError:
        return
    try:
        parsed = onnx.ModelProto.FromString(bytes(data[:stop]))
    except Exception:  # noqa: BLE001 -- protobuf refuses what the walk does not: onnxruntime reads nothing then
        return
    assert set(seen_by_protobuf(parsed)) <= found


@pytest.mark.parametrize(
    "data",
    [b"", b"\x0b\x0c", b"\x3a\xff\xff\xff\xff\x0f", b"\x00\x00", b"\x3a" + b"\x80" * 10 + b"\x01", b"\x08\x80", b"{}"],
)
def test_what_is_no_graph(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    with pytest.raises(BundleError, match="no ONNX graph"):
        external_files(file)


def test_a_graph_for_one_provider_is_refused(tmp_path: Path) -> None:
    """Its node names a file in an attribute of its own, which onnxruntime opens."""
    file = tmp_path / "model.onnx"
    node = helper.make_node("EPContext", [], ["y"], domain="com.microsoft", ep_cache_context="engine.bin", embed_mode=0)
    file.write_bytes(helper.make_model(graph_with(node)).SerializeToString())
    with pytest.raises(BundleError, match="compiled for another engine"):
        external_files(file)


LOCATIONS = ["w.bin", "../w.bin", "sub/../w.bin", "/etc/hostname", "*/_ORT_MEM_ADDR_/*", "decoder.onnx/../w.bin", ""]


@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_must_lie_where_the_manifest_says(
    handmade_bundle: Path, tmp_path: Path, location: str, rewrite: Any
) -> None:
    """Also where the file is there, and where the manifest would name it by such a name."""
    folder = Path(shutil.copytree(handmade_bundle, tmp_path / "outer" / "bundle"))
    file = folder / "projector.onnx"
    graph = onnx.load(file)
    graph.graph.initializer.append(external(location))
    file.write_bytes(graph.SerializeToString())
    for beside in (folder, folder.parent):
        (beside / "w.bin").write_bytes(b"\0\0\0\0")

    def seal(data: dict[str, Any]) -> None:
        data["files"]["projector.onnx"] = record(file.read_bytes())

    rewrite(folder, seal)
    for verify in ("full", "size"):
        with pytest.raises(BundleError, match="which the manifest does not name"):
            Bundle.open(folder, verify)
    bad = check_files(folder)[1].bad
    assert any(one.file == "projector.onnx" and "does not name" in one.problem for one in bad)
    if location not in ("w.bin", ""):
        rewrite(folder, lambda data: data["files"].update({location: record(bytes(4))}))
        with pytest.raises(BundleError):
            Bundle.open(folder)


def record(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_weights_that_the_manifest_names(handmade_bundle: Path, tmp_path: Path, rewrite: Any) -> None:
    folder = Path(shutil.copytree(handmade_bundle, tmp_path / "bundle"))
    file = folder / "projector.onnx"
    (folder / "weights").mkdir()
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="weights/p.bin", size_threshold=0)

    def seal(data: dict[str, Any]) -> None:
        for name in ("projector.onnx", "weights/p.bin"):
            data["files"][name] = record((folder / name).read_bytes())

    rewrite(folder, seal)
    assert external_files(file) == {"weights/p.bin"}
    Bundle.open(folder)


@pytest.mark.parametrize(("nodes", "allowed"), [(10, True), (11, False)])
def test_as_many_fields_as_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, allowed: bool) -> None:
    """Each field counts one: a model's graph, and in it as many nodes, none of which has a field."""
    monkeypatch.setattr(graph_files, "_MOST_FIELDS", 11)
    file = tmp_path / "graph.onnx"
    file.write_bytes(ModelProto(graph=GraphProto(node=[NodeProto() for _ in range(nodes)])).SerializeToString())
    if allowed:
        assert external_files(file) == set()
    else:
        with pytest.raises(BundleError, match="more than 11 fields"):
            external_files(file)
