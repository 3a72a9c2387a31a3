"""Weights that transformers converts as it loads: every parameter as it makes it, of no more than it is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlavaConfig, MixtralConfig, PreTrainedConfig, Qwen3MoeConfig
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming

from edgevlm_export.checkpoints import checkpoint, door, skeleton
from edgevlm_export.checkpoints.weights.conversion import ConvertedTensor
from edgevlm_export.checkpoints.weights.shards import StoredTensor
from edgevlm_export.proof.certificate.weights import other_weights
from edgevlm_export.reference import Reference, StreamedReference
from edgevlm_export.reference.loaded import LoadedWeights
from edgevlm_export.reference.memory import streamed_bytes
from edgevlm_runtime.bundle.certificate import read_certificate
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.errors import CheckpointError, ExportError, UnsupportedModel
from tests.support import checkpoints
from tests.support.checkpoints import converted
from tests.support.checkpoints.converted import registered

APART = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
Tensors = dict[str, torch.Tensor]
TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LAYOUTS: dict[str, tuple[str, Callable[[], converted.Rules]]] = {
    "packed by sizes": ("qwen2", converted.packed_by_sizes),
    "packed for complex rope": ("llama-full-heads", converted.packed_for_complex_rope),
    "apart": ("phi3", converted.apart),
}
"""A decoder and what is registered for it."""
MIXTURE = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXTURE |= {"num_key_value_heads": 2, "vocab_size": 99}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (decoder, rules) in LAYOUTS.items():
        with registered(rules(), converted.tower()):
            made[name] = checkpoints.llava(tmp_path_factory.mktemp("converted") / "tiny", decoder)
    return made


@contextmanager
def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> Iterator[Path]:
    """The checkpoint with other tensors."""
    with TemporaryDirectory() as made:
        (Path(made) / "config.json").write_bytes((folder / "config.json").read_bytes())
        stored = load_file(folder / "model.safetensors")
        save_file(change(stored), Path(made) / "model.safetensors", metadata={"format": "pt"})
        yield Path(made)


def opened(folder: Path) -> checkpoint.WeightSource:
    return checkpoint.open_weights(folder, skeleton.build(checkpoint.load_config(folder)))


def planned(folder: Path) -> None:
    """What an export needs of the weights before it begins."""
    weights = opened(folder)
    weights.read("model.language_model.layers.1.self_attn.q_proj.weight")


def assert_as_loaded(folder: Path) -> None:
    """Every parameter has the values and the shape that transformers loads, and those that were promised."""
    weights = opened(folder)
    for name, parameter in door.model(folder).named_parameters():
        weight = weights.read(name)
        assert torch.equal(weight.float(), parameter), name
        assert torch.equal(weights.tensors[name].rows(1, 3).float(), parameter[1:3]), name
        assert weights.tensors[name].shape == tuple(weight.shape) == tuple(parameter.shape)
        assert checkpoint.shards.DTYPES[weights.tensors[name].dtype] == weight.dtype
        assert weight.is_contiguous()
        assert weight.untyped_storage().nbytes() == weight.nbytes, "keeps what it was made of"


@given(layout=st.sampled_from(sorted(LAYOUTS)), types=st.lists(st.sampled_from(TYPES), min_size=1, max_size=5))
@settings(max_examples=12, deadline=None)
def test_every_parameter_is_what_transformers_makes(
    layouts: dict[str, Path], layout: str, types: list[torch.dtype]
) -> None:
    """Types mixed among the tensors that a parameter is made of, too; and the certificate's own loading agrees."""

    def cast(stored: Tensors) -> Tensors:
        return {name: value.to(types[number % len(types)]) for number, (name, value) in enumerate(stored.items())}

    with registered(LAYOUTS[layout][1](), converted.tower()), changed(layouts[layout], cast) as folder:
        assert_as_loaded(folder)
        config = checkpoint.load_config(folder)
        loaded = LoadedWeights.load(folder, config, type(skeleton.build(config)))
        for name, parameter in door.model(folder).named_parameters():
            assert torch.equal(loaded.read(name), parameter), name


@pytest.mark.parametrize(
    "text",
    [
        MixtralConfig(**MIXTURE, num_local_experts=12),
        Qwen3MoeConfig(**MIXTURE, num_experts=3, moe_intermediate_size=24, head_dim=8),
    ],
    ids=lambda config: config.model_type,
)
def test_experts_are_merged_in_the_order_of_their_numbers(tmp_path: Path, text: PreTrainedConfig) -> None:
    """By transformers' own mapping: each expert apart on disk, all of a layer in one parameter."""
    tower = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=5)
    folder = checkpoints.save(tmp_path / "experts", config, max_shard_size="40KB")
    assert_as_loaded(folder)
    weights = opened(folder)
    merged = weights.tensors["model.language_model.layers.1.mlp.experts.gate_up_proj"]
    assert merged.shape == (text.num_local_experts, 48, 32)
    assert "experts.0." in merged.name
    assert "more" in merged.name


def test_only_what_a_parameter_is_made_of_is_read(layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening reads headers; one parameter reads its own sources."""
    read: list[str] = []
    original = StoredTensor._read

    def spy(self: StoredTensor, offset: int, nbytes: int) -> torch.Tensor:
        read.append(self.name.split("layers.")[-1])
        return original(self, offset, nbytes)

    monkeypatch.setattr(StoredTensor, "_read", spy)
    with registered(converted.apart()):
        weights = opened(layouts["apart"])
        assert read == []
        weights.read("model.language_model.layers.1.mlp.gate_up_proj.weight")
    assert read == ["1.mlp.gate_proj.weight", "1.mlp.up_proj.weight"]


def test_what_is_converted_is_no_view_of_its_file(layouts: dict[str, Path]) -> None:
    """The estimate for the model layer by layer: transformers has copies of those from the beginning."""
    folder = layouts["apart"]
    plain = streamed_bytes(folder)
    with registered(converted.apart()):
        stored = load_file(folder / "model.safetensors")
        parts = [name for name in stored if "language" in name and name.endswith(APART)]
        assert len(parts) == 2 * len(APART)
        assert streamed_bytes(folder) - plain == sum(stored[name].nbytes for name in parts)


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda stored: {name: value for name, value in stored.items() if part not in name}


def cut(part: str, rows: int) -> Callable[[Tensors], Tensors]:
    return lambda stored: {name: (value[:rows].clone() if part in name else value) for name, value in stored.items()}


def beside(part: str, name: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    """One more tensor, of another name."""

    def add(stored: Tensors) -> Tensors:
        old = next(one for one in stored if part in one)
        assert name(old) != old
        return stored | {name(old): stored[old].clone()}

    return add


def old_and_new(name: str) -> str:
    return f"model.{name}".replace("model.language_model.model.", "model.language_model.")


BAD: dict[str, tuple[str, Callable[[Tensors], Tensors], tuple[str, ...]]] = {
    "one of three is missing": (
        "apart",
        without("layers.1.self_attn.k_proj"),
        ("weight missing", "layers.1.self_attn.k_proj.weight", "layers.1.self_attn.qkv_proj.weight is made of it"),
    ),
    "all of it is missing": (
        "packed by sizes",
        without("layers.1.self_attn.packed.weight"),
        ("weight missing", "layers.1.self_attn.q_proj.weight"),
    ),
    "one of a list is missing": (
        "packed by sizes",
        without("patch_embedding.3.weight"),
        ("weight missing from the checkpoint: vision_tower.embeddings.patch_embedding.3.weight", "and 28 more"),
    ),
    "the last of a list is missing": (
        "packed by sizes",
        without("patch_embedding.31.weight"),
        ("weight has shape [31, 3, 14, 14], the config says [32, 3, 14, 14]", "patch_embedding.weight, stored as"),
    ),
    "one of a list is of another shape": (
        "packed by sizes",
        cut("patch_embedding.3.weight", 2),
        ("patch_embedding.weight of vision_tower", "(MergeModulelist)", "and 29 more"),
    ),
    "a part is of another shape": (
        "apart",
        cut("layers.0.mlp.up_proj", 3),
        ("weight has shape [115, 192]", "layers.0.mlp.gate_up_proj.weight, stored as", "layers.0.mlp.up_proj.weight"),
    ),
    "a packed one is of another shape": (
        "packed for complex rope",
        cut("layers.0.self_attn.packed", 96),
        ("weight has shape [32, 64], the config says [64, 64]", "layers.0.self_attn.q_proj.weight"),
    ),
    "a packed one cannot be taken apart": (
        "packed by sizes",
        cut("layers.0.self_attn.packed.bias", 5),
        ("layers.0.self_attn.q_proj.bias of language_model", "(Split)"),
    ),
    "under an old and a new name": (
        "packed by sizes",
        beside("layers.0.self_attn.packed.weight", old_and_new),
        ("two weights for one parameter", "both become", "layers.0.self_attn.q_proj.weight"),
    ),
    "converted and as it is": (
        "packed by sizes",
        beside("layers.0.self_attn.packed.weight", lambda name: name.replace("packed", "q_proj")),
        ("two weights for one parameter", "layers.0.self_attn.packed.weight", "become"),
    ),
    "another part as it is": (
        "packed by sizes",
        beside("layers.0.self_attn.packed.bias", lambda name: name.replace("packed", "v_proj")),
        ("two weights for one parameter", "both become model.language_model.layers.0.self_attn.v_proj.bias"),
    ),
    "an old and a new name without a conversion": (
        "packed by sizes",
        beside("layers.0.mlp.down_proj.weight", old_and_new),
        ("two weights for one parameter", "layers.0.mlp.down_proj.weight: take one out"),
    ),
    "no floats": (
        "apart",
        lambda stored: {k: v.to(torch.int32) if "gate_proj" in k else v for k, v in stored.items()},
        ("quantized already", "gate_proj.weight is I32"),
    ),
    "a name that cannot be ordered": (
        "apart",
        beside("layers.0.mlp.down_proj.weight", lambda name: f"{name}.\N{SUPERSCRIPT TWO}"),
        ("not a weight's name", "\N{SUPERSCRIPT TWO}"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_made_is_one_line(layouts: dict[str, Path], case: str) -> None:
    layout, change, words = BAD[case]
    rules = LAYOUTS[layout][1](), converted.tower()
    with registered(*rules), changed(layouts[layout], change) as folder, pytest.raises(ExportError) as caught:
        planned(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert isinstance(caught.value, CheckpointError | UnsupportedModel)
    assert [word for word in words if word not in said] == [], said


class Scaled(ConversionOps):
    """An operation that looks at values, as those of quantized weights do."""

    def convert(self, input_dict, source_patterns, target_patterns, **kwargs):  # type: ignore[no-untyped-def]
        ((_, (tensor,)),) = input_dict.items()
        return {target_patterns[0]: tensor * (2.0 if tensor.abs().max().item() > 1 else 1.0)}


class Rounded(ConversionOps):
    """One that makes no float."""

    def convert(self, input_dict, source_patterns, target_patterns, **kwargs):  # type: ignore[no-untyped-def]
        ((_, (tensor,)),) = input_dict.items()
        return {target_patterns[0]: tensor.to(torch.int8)}


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (Scaled(), r"weight cannot be made of what is stored: .*down_proj.weight of .*down.weight \(Scaled\): "),
        (Rounded(), r"weight is not a plain float: .*down_proj.weight is I8"),
    ],
    ids=["looks at values", "quantizes"],
)
def test_operations_that_shapes_alone_cannot_go_through(
    tiny_checkpoint: Path, operation: ConversionOps, said: str
) -> None:
    rules = {"qwen2": [WeightConverter("mlp.down.weight", "mlp.down_proj.weight", [operation])]}

    def rename(stored: Tensors) -> Tensors:
        return {name.replace("down_proj", "down"): value for name, value in stored.items()}

    with (
        registered(rules),
        changed(tiny_checkpoint, rename) as folder,
        pytest.raises(UnsupportedModel, match=said) as caught,
    ):
        opened(folder)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_the_models_own_is_not_renamed(tiny_checkpoint: Path) -> None:
    """transformers leaves it alone where the rules would lead it out of the model."""

    def current(stored: Tensors) -> Tensors:
        return {re.sub(r"^language_model\.model\.", "model.language_model.", name): one for name, one in stored.items()}

    rules = {"qwen2": [WeightRenaming("mlp.down_proj", "mlp.nowhere")]}
    with registered(rules), changed(tiny_checkpoint, current) as folder:
        assert_as_loaded(folder)


@pytest.mark.parametrize("reference", [Reference, StreamedReference])
def test_a_wrong_conversion_is_missed(
    layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, reference: type[Reference | StreamedReference]
) -> None:
    """The certificate's weights: transformers' own loading knows nothing of how they are made here."""
    original = ConvertedTensor.read
    with registered(converted.apart(), converted.tower()):
        right, loaded = opened(layouts["apart"]), reference.load(str(layouts["apart"]))
        assert list(other_weights(right, loaded)) == []
        monkeypatch.setattr(ConvertedTensor, "read", lambda self: original(self).roll(1, 0))
        missed = list(other_weights(right, loaded))
    made = [name for name, weight in right.tensors.items() if isinstance(weight, ConvertedTensor)]
    assert {miss.where for miss in missed} <= set(made)
    assert {miss.figure for miss in missed} == {len(made)} == {2 * 2 + 2 * 3 + 1}


def test_an_export_is_that_of_the_plain_layout(
    tiny_bundle: Path, tmp_path: Path, export_bundle: Callable[..., Path]
) -> None:
    """The same weights stored otherwise: the same bytes, and a certificate whose reference transformers loads."""
    with registered(converted.packed_by_sizes(), converted.tower()):
        folder = checkpoints.llava(tmp_path / "packed")
        names = set(load_file(folder / "model.safetensors"))
        assert any("packed.weight" in name for name in names)
        assert not any("q_proj.weight" in name and "language" in name for name in names)
        bundle = export_bundle(folder, anew=True, certificate=True)
    data = sorted(path.name for path in tiny_bundle.glob("*.data"))
    assert len(data) >= 3
    for name in data:
        assert (bundle / name).read_bytes() == (tiny_bundle / name).read_bytes(), name
    certificate = read_certificate(Bundle.open(bundle))
    assert certificate is not None
    assert certificate.verdict == "passed"
