"""A checkpoint's small files, looked at before transformers reads them: JSON decoded once with its types, of others
the size.

transformers takes what is in a file for what it should be: a text where a number is meant, lists a thousand deep, a
model of a thousand million layers. What is wrong is found here, in one line that names the file and the field. Only
fields are described that the exporter or transformers relies on; there may be any others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from edgevlm_runtime.errors import CheckpointError
from edgevlm_runtime.reading import MIB, decode_json, is_regular, open_regular, read_bytes, why

MOST_BYTES = 64 * MIB
"""Of a file; the largest that are known, vocabularies, have 8 MiB."""
DEEPEST = 64
"""Levels of lists and objects; configs have five."""
REMEDY = "take it from the original checkpoint"

Object = dict[str, Any]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Token = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""-1 is how older files say that there is none."""
Size = Annotated[int, Meta(ge=1, le=2**14)]
Channels = float | list[float]

LARGEST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "depth", "num_layers"), 1024),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads"), 4096),
    **dict.fromkeys(("head_dim", "image_size", "patch_size", "window_size", "num_channels", "in_channels"), 2**14),
    **dict.fromkeys(("spatial_merge_size", "merge_size", "temporal_patch_size", "scale_factor"), 2**10),
    **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "projection_dim", "out_hidden_size"), 2**20),
    "vocab_size": 2**24,
    "max_position_embeddings": 2**31,
}
"""Sizes of a model, wherever its config has them: what is beyond would fill memory, or never end, before a weight is
read. The largest that are known are a tenth of it or less."""


class Part(msgspec.Struct, frozen=True):
    """One of the models that a config.json describes."""

    model_type: str | None = None
    quantization_config: Object | None = None
    eos_token_id: Token | list[Token] | None = None


class Config(msgspec.Struct, frozen=True):
    """config.json."""

    model_type: str
    architectures: list[str] | None = None
    text_config: Part | None = None
    vision_config: Part | None = None
    quantization_config: Object | None = None
    auto_map: Object | None = None
    image_token_id: Token | None = None
    image_token_index: Token | None = None
    tie_word_embeddings: bool | None = None
    eos_token_id: Token | list[Token] | None = None
    transformers_version: str | None = None


class Generation(msgspec.Struct, frozen=True):
    """generation_config.json."""

    eos_token_id: Token | list[Token] | None = None
    suppress_tokens: list[Token] | None = None
    repetition_penalty: float | None = None
    max_new_tokens: Count | None = None


class ImageProcessor(msgspec.Struct, frozen=True):
    """preprocessor_config.json, also as a part of processor_config.json."""

    image_mean: Channels | None = None
    image_std: Channels | None = None
    rescale_factor: float | None = None
    resample: Annotated[int, Meta(ge=0, le=5)] | None = None
    do_resize: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_center_crop: bool | None = None
    do_image_splitting: bool | None = None
    size: Size | dict[str, Count | None] | list[Size] | None = None
    crop_size: Size | dict[str, Size | None] | list[Size] | None = None
    max_image_size: Size | dict[str, Size | None] | None = None
    patch_size: Size | dict[str, Size | None] | None = None
    merge_size: Size | None = None
    min_pixels: Count | None = None
    max_pixels: Count | None = None
    image_processor_type: str | None = None


class Processor(msgspec.Struct, frozen=True):
    """processor_config.json."""

    image_processor: ImageProcessor | None = None
    processor_class: str | None = None
    image_token: str | None = None
    image_seq_len: Count | None = None
    patch_size: Size | None = None
    spatial_merge_size: Size | None = None
    image_break_token: str | None = None
    image_end_token: str | None = None
    num_additional_image_tokens: Count | None = None
    vision_feature_select_strategy: str | None = None
    chat_template: str | Object | list[Any] | None = None


class Tokenizer(msgspec.Struct, frozen=True):
    """tokenizer_config.json."""

    tokenizer_class: str | None = None
    chat_template: str | Object | list[Any] | None = None
    bos_token: str | Object | None = None
    eos_token: str | Object | None = None
    added_tokens_decoder: dict[str, Object] | None = None


class WeightIndex(msgspec.Struct, frozen=True):
    """model.safetensors.index.json and its likes."""

    weight_map: dict[str, str]


class Kind(NamedTuple):
    """One of a checkpoint's files."""

    what: str
    """For people."""
    type: Any
    """What msgspec makes of it."""


CONFIG = "config.json"
INDEX = Kind("weight index", WeightIndex)
KINDS: Mapping[str, Kind] = {
    CONFIG: Kind("config", Config),
    "generation_config.json": Kind("generation config", Generation),
    "preprocessor_config.json": Kind("image processor config", ImageProcessor),
    "processor_config.json": Kind("processor config", Processor),
    "tokenizer_config.json": Kind("tokenizer config", Tokenizer),
    "special_tokens_map.json": Kind("special tokens", Object),
    "added_tokens.json": Kind("added tokens", dict[str, Count]),
    "chat_template.json": Kind("chat template", Object),
    "vocab.json": Kind("vocabulary", dict[str, Count]),
}
"""Every JSON file that transformers may read of a checkpoint but for the tokenizer itself (`tokenizer_trial`) and the
weights' index."""


TEMPLATE_BYTES = MIB
VOCABULARY_BYTES = 256 * MIB
"""The largest that are known have 35 MiB."""
OTHERS: Mapping[str, int] = {
    "chat_template.jinja": TEMPLATE_BYTES,
    "additional_chat_templates/*.jinja": TEMPLATE_BYTES,
    "tokenizer.json": VOCABULARY_BYTES,
    "merges.txt": VOCABULARY_BYTES,
    "vocab.txt": VOCABULARY_BYTES,
    "tokenizer.model": VOCABULARY_BYTES,
    "spiece.model": VOCABULARY_BYTES,
    "tekken.json": VOCABULARY_BYTES,
}
"""Further files that transformers reads whole, each with the most bytes that any published one comes near."""


def check(folder: Path) -> None:
    """Decode every file of `KINDS` that is there, and see that each of `OTHERS` is a file of a size that can be. Raises
    `CheckpointError`."""
    for name in KINDS:
        path = folder / name
        if path.exists() or path.is_symlink():
            read(path)
    for pattern, limit in OTHERS.items():
        for path in sorted(folder.glob(pattern)):
            _check_size(path, limit)


def _check_size(path: Path, limit: int) -> None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {why(error)}: {REMEDY}") from error
    if size > limit:
        raise CheckpointError(f"cannot read {path}: {size} bytes, {limit} at most: {REMEDY}")


def read(path: Path, kind: Kind | None = None) -> Object:
    """A file of a `kind`, by its name one of `KINDS`, as the object it is. Raises `CheckpointError`."""
    what, kind_type = kind or KINDS[path.name]
    content = read_object(path, what)
    try:
        msgspec.convert(content, kind_type)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"unreadable {what}: {path}: {error}: {REMEDY}") from error
    if path.name == CONFIG:
        for name, value in _numbers(content):
            if value > LARGEST.get(name, value):
                raise CheckpointError(f"unreadable {what}: {path}: {name} is {value:g}: {REMEDY}")
    return content


def read_object(path: Path, what: str) -> Object:
    """Any JSON file's one object; `what` it is, for people. Raises `CheckpointError`."""
    if not is_regular(path):
        raise CheckpointError(f"unreadable {what}: {path}: there is no such file: {REMEDY}")
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"unreadable {what}: {path}: {why(error)}") from error
    content = decode_json(data, Object, f"unreadable {what}: {path}", error=CheckpointError, remedy=REMEDY)
    if _depth(content) > DEEPEST:
        raise CheckpointError(f"unreadable {what}: {path}: it is nested too deeply: {REMEDY}")
    return content


def _depth(value: Any) -> int:
    """Levels of lists and objects, up to one more than `DEEPEST`."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inner = [part for one in level if isinstance(one, dict | list) for part in _parts(one)]
        depth += any(isinstance(one, dict | list) for one in level)
        level = [part for part in inner if isinstance(part, dict | list)]
    return depth


def _parts(value: Object | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number with the name of the field it is in, of lists too."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, name)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, key)
