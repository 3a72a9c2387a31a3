"""A whole bundle made by hand: a tiny decoder with GroupQueryAttention, a tiny vision encoder and projector.

Byte-level tokenizer, so that any text is a prompt. Weights are random but fixed. No torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.bundle import decoder_info
from edgevlm_runtime.bundle import manifest as schema

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tests.support.seal import seal  # noqa: E402

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, CONTEXT = 2, 2, 1, 16, 32, 256
SIDE, PATCHES, FEATURES, TOKENS = 8, 4, 12, 4
SPECIAL = ("<s>", "</s>", "<image>", "<|user|>", "<|assistant|>", "<|system|>")
VOCAB = 256 + len(SPECIAL)
EOS, IMAGE = 257, 258
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass
class _Graph:
    """Nodes and weights of a graph in the making."""

    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def random(self, name: str, *shape: int, size: float = 1.0) -> str:
        scale = size / np.sqrt(shape[0])
        return self.weight(name, (self.rng.standard_normal(shape) * scale).astype(np.float32))

    def node(self, op: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

    def save(self, path: Path, inputs: list[Any], outputs: list[Any]) -> None:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def _decoder(path: Path, positions: str) -> None:
    g = _Graph(np.random.default_rng(1))
    angles = np.outer(np.arange(CONTEXT), 1 / 100.0 ** (np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2)))
    cos = g.weight("cos", np.cos(angles).astype(np.float32))
    sin = g.weight("sin", np.sin(angles).astype(np.float32))
    value = helper.make_tensor_value_info
    inputs = [
        value("inputs_embeds", TensorProto.FLOAT, [1, "S", HIDDEN]),
        value("seqlens_k", TensorProto.INT32, [1]),
        value("total_sequence_length", TensorProto.INT32, []),
        value("logits_rows", TensorProto.INT64, ["K"]),
    ]
    x = "inputs_embeds"
    if positions == "mrope":  # the output depends on all three positions, which is what the tests need to see
        inputs.append(value("position_ids", TensorProto.INT64, [3, 1, "S"]))
        floats = g.node("Cast", ["position_ids"], "positions", to=TensorProto.FLOAT)
        mix = g.weight("mix", np.array([0.1, 0.7, 1.3], np.float32).reshape(3, 1, 1))
        weighed = g.node("Mul", [floats, mix], "weighed")
        total = g.node("ReduceSum", [weighed, g.weight("axis0", np.array([0]))], "summed", keepdims=0)
        wave = g.node("Sin", [g.node("Unsqueeze", [total, g.weight("axis2", np.array([2]))], "column")], "wave")
        x = g.node("Add", [x, wave], "positioned")
    outputs = [value("logits", TensorProto.FLOAT, [1, "K", VOCAB])]
    for i in range(LAYERS):
        q = g.node("MatMul", [x, g.random(f"q{i}.w", HIDDEN, HEADS * HEAD_DIM, size=2.0)], f"q{i}")
        k = g.node("MatMul", [x, g.random(f"k{i}.w", HIDDEN, KV_HEADS * HEAD_DIM, size=2.0)], f"k{i}")
        v = g.node("MatMul", [x, g.random(f"v{i}.w", HIDDEN, KV_HEADS * HEAD_DIM)], f"v{i}")
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        present = [f"present.{i}.key", f"present.{i}.value"]
        cache = [1, KV_HEADS, "T", HEAD_DIM]
        inputs += [value(name, TensorProto.FLOAT, cache) for name in past]
        outputs += [value(name, TensorProto.FLOAT, cache) for name in present]
        attended = g.node(
            "GroupQueryAttention",
            [q, k, v, *past, "seqlens_k", "total_sequence_length", cos, sin],
            f"attention{i}",
            *present,
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=int(positions == "linear"),
        )
        out = g.node("MatMul", [attended, g.random(f"o{i}.w", HEADS * HEAD_DIM, HIDDEN)], f"o{i}")
        mixed = g.node("Tanh", [g.node("Add", [x, out], f"sum{i}")], f"tanh{i}")
        x = g.node("Add", [mixed, g.node("MatMul", [mixed, g.random(f"m{i}.w", HIDDEN, HIDDEN)], f"m{i}")], f"x{i}")
    rows = g.node("Gather", [x, "logits_rows"], "rows", axis=1)
    g.node("MatMul", [rows, g.random("head", HIDDEN, VOCAB, size=3.0)], "logits")
    g.save(path, inputs, outputs)


def _vision(path: Path) -> None:
    g = _Graph(np.random.default_rng(2))
    floats = g.node("Cast", ["pixels"], "floats", to=TensorProto.FLOAT)
    scaled = g.node("Mul", [floats, g.weight("scale", np.array(1 / 255, np.float32))], "scaled")
    shape = g.weight("shape", np.array([0, PATCHES, SIDE * SIDE * 3 // PATCHES]))
    patches = g.node("Reshape", [scaled, shape], "patches")
    g.node("MatMul", [patches, g.random("w", SIDE * SIDE * 3 // PATCHES, FEATURES, size=4.0)], "image_features")
    value = helper.make_tensor_value_info
    g.save(
        path,
        [value("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [value("image_features", TensorProto.FLOAT, ["N", PATCHES, FEATURES])],
    )


def _projector(path: Path) -> None:
    g = _Graph(np.random.default_rng(3))
    g.node("MatMul", ["image_features", g.random("w", FEATURES, HIDDEN)], "image_embeddings")
    value = helper.make_tensor_value_info
    g.save(
        path,
        [value("image_features", TensorProto.FLOAT, ["N", PATCHES, FEATURES])],
        [value("image_embeddings", TensorProto.FLOAT, ["N", PATCHES, HIDDEN])],
    )


def _tokenizer(path: Path) -> None:
    """Byte-level BPE without merges: 256 bytes, then the special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(path))


def _graph_info(folder: Path, name: str) -> schema.GraphInfo:
    file = f"{name}.onnx"
    return schema.GraphInfo(file, (), (), "fp32", 1, (folder / file).stat().st_size)


def describe(folder: Path, positions: str) -> schema.Manifest:
    """The manifest of the files in `folder`."""
    files = {
        file.relative_to(folder).as_posix(): schema.FileRecord(
            hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != schema.MANIFEST_NAME
    }
    return schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        min_runtime_version="0.1.0",
        model=schema.ModelInfo("tiny", "tiny", "Tiny", 1),
        graphs={name: _graph_info(folder, name) for name in ("vision_encoder", "projector", "decoder")},
        decoder=decoder_info.DecoderInfo(
            hidden_size=HIDDEN,
            vocab_size=VOCAB,
            max_context=CONTEXT,
            positions=positions,
            kv=decoder_info.KVLayout(LAYERS, KV_HEADS, HEAD_DIM, "float32"),
            embedding=decoder_info.EmbeddingTable("embeddings.bin", 16, "float32", (VOCAB, HIDDEN)),
        ),
        image=schema.ImageProcessing(
            "fixed", {"image_token": "<image>", "tokens": TOKENS, "height": SIDE, "width": SIDE, "exact": [SIDE, SIDE]}
        ),
        prompt=schema.PromptFormat("chat_template.jinja", "tokenizer.json", "<image>", IMAGE, "<s>", "</s>"),
        generation=schema.GenerationDefaults(eos_token_ids=(EOS,), max_new_tokens=24),
        files=files,
        versions={},
    )


def make_bundle(folder: Path, positions: str = "linear") -> Path:
    """Write a tiny bundle into `folder`."""
    folder.mkdir(parents=True)
    _decoder(folder / "decoder.onnx", positions)
    _vision(folder / "vision_encoder.onnx")
    _projector(folder / "projector.onnx")
    _tokenizer(folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    table = np.random.default_rng(4).standard_normal((VOCAB, HIDDEN)).astype(np.float32)
    (folder / "embeddings.bin").write_bytes(b"\0" * 16 + table.tobytes())
    (folder / schema.MANIFEST_NAME).write_bytes(schema.encode(describe(folder, positions)))
    seal(folder)
    return folder


@pytest.fixture(scope="session")
def handmade_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests only read."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def mrope_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with three positions per token."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "mrope", "mrope")


@pytest.fixture
def own_bundle(handmade_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(handmade_bundle, tmp_path / "bundle"))


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Change fields of a bundle's manifest: plain JSON in, plain JSON out."""

    def apply(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        file = folder / schema.MANIFEST_NAME
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))
        seal(folder)

    return apply


@pytest.fixture(scope="session")
def vlm(handmade_bundle: Path) -> edgevlm_runtime.VLM:
    """The tiny model; its image cache is shared by all tests of the session."""
    return edgevlm_runtime.load(handmade_bundle, threads=1)


@pytest.fixture
def fresh(handmade_bundle: Path) -> Callable[..., edgevlm_runtime.VLM]:
    """Loads the tiny model anew, with options."""

    def make(**options: Any) -> edgevlm_runtime.VLM:
        return edgevlm_runtime.load(handmade_bundle, **{"threads": 1, **options})

    return make


@pytest.fixture
def picture() -> Callable[[int], Image.Image]:
    """Different images by number."""

    def make(number: int) -> Image.Image:
        pixels = np.random.default_rng(number).integers(0, 256, (11, 13, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return make


@pytest.fixture
def tested(own_bundle: Path, picture: Callable[[int], Image.Image], rewrite: Callable[..., None]) -> Path:
    """A bundle with a self-test, made with the runtime itself."""
    folder = own_bundle / "selftest"
    folder.mkdir()
    picture(5).save(folder / "image.png")
    vlm = edgevlm_runtime.load(own_bundle, threads=1)
    np.save(
        folder / "embeddings.npy", vlm.pipeline.encoder.compute(vlm.pipeline.prepare(folder / "image.png")).embeddings
    )
    answer = vlm.ask(folder / "image.png", "hello", max_new_tokens=8)

    def change(data: dict[str, Any]) -> None:
        data["self_test"] = {
            "image": "selftest/image.png",
            "prompt": "hello",
            "token_ids": answer.token_ids,
            "embeddings": "selftest/embeddings.npy",
            "tolerance": 1e-3,
        }
        for name in ("image.png", "embeddings.npy"):
            data["files"][f"selftest/{name}"] = {"sha256": "0" * 64, "bytes": (folder / name).stat().st_size}

    rewrite(own_bundle, change)
    return own_bundle
