"""Values of a manifest that have the right type and still make no sense.

A manifest is input: what is refused here would otherwise fail later, deep within numpy or the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from edgevlm_runtime.bundle.blocks import BITS, MIXED
from edgevlm_runtime.bundle.decoder_info import DecoderInfo, KVLayout
from edgevlm_runtime.bundle.manifest import GenerationDefaults, Manifest
from edgevlm_runtime.errors import BundleError, EdgeVLMError
from edgevlm_runtime.options import GenerationOptions, make_options

KV_DTYPES = ("float32", "float16", "int8")
STATE_DTYPES = ("float32", "float16")
MOST_STATE_VALUES = 1 << 28
MOST_COLUMNS = 256
"""Further inputs of the decoder for each position, and tokens with stand-ins."""
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, **BITS}


def check_values(manifest: Manifest, where: str) -> None:
    """Raise `BundleError` for the first value that is out of range; `where` names the file."""
    for holds, name, value, wanted in _rules(manifest):
        if not holds:
            raise BundleError(
                f"damaged bundle manifest: {where}: {name} is {value!r}, it must be {wanted}: "
                "copy or export the bundle again"
            )
    try:
        generation_options(manifest.generation, {})
    except EdgeVLMError as error:
        raise BundleError(f"damaged bundle manifest: {where}: generation: {error}") from error


def generation_options(defaults: GenerationDefaults, options: Mapping[str, Any]) -> GenerationOptions:
    """The bundle's defaults with the caller's choices over them. Raises `EdgeVLMError` as `runtime_options` does."""
    chosen: dict[str, Any] = {
        "max_new_tokens": defaults.max_new_tokens,
        "temperature": defaults.temperature,
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "repetition_penalty": defaults.repetition_penalty,
        "suppress_tokens": defaults.suppress_tokens,
    }
    return make_options(GenerationOptions, {**chosen, **options}, "generation option")


def _rules(manifest: Manifest) -> Iterator[tuple[bool, str, object, str]]:
    """What must hold, of which field, with which value, in words."""
    decoder, prompt = manifest.decoder, manifest.prompt
    counts = {
        "decoder.hidden_size": (decoder.hidden_size, 1 << 20),
        "decoder.vocab_size": (decoder.vocab_size, 1 << 24),
        "decoder.max_context": (decoder.max_context, 1 << 26),
        "decoder.kv.layers": (decoder.kv.layers, 1 << 16),
        "decoder.kv.kv_heads": (decoder.kv.kv_heads, 1 << 16),
        "decoder.kv.head_dim": (decoder.kv.head_dim, 1 << 16),
        "decoder.embedding.shape": (min(decoder.embedding.shape), 1 << 31),
    }
    for name, (
        value,
        most,
    ) in counts.items():  # some sixty times what the largest models have: buffers are made by them
        yield 1 <= value <= most, name, value, f"a whole number of at least 1, and no more than {most}"
    yield from _size_rules(decoder.kv)
    yield from _column_rules(decoder)
    yield from _state_rules(decoder)
    yield decoder.kv.dtype in KV_DTYPES, "decoder.kv.dtype", decoder.kv.dtype, " or ".join(KV_DTYPES)
    yield from _embedding_rules(manifest)
    yield from _prefix_rules(manifest)
    yield prompt.image_token != "", "prompt.image_token", prompt.image_token, "a text"
    yield prompt.image_token_id >= 0, "prompt.image_token_id", prompt.image_token_id, "a token id"
    flat = prompt.flat_image
    shown = flat is None or flat.count(prompt.image_token) == 1
    yield shown, "prompt.flat_image", flat, f"a text with {prompt.image_token} in it once"
    yield all(prompt.stop_strings), "prompt.stop_strings", prompt.stop_strings, "texts that are not empty"
    ends = manifest.generation.eos_token_ids
    yield all(0 <= end < decoder.vocab_size for end in ends), "generation.eos_token_ids", ends, "token ids"


def _size_rules(kv: KVLayout) -> Iterator[tuple[bool, str, object, str]]:
    """Of layers that differ: `kv_heads` and `head_dim` are the largest."""
    if kv.sizes:
        fits = all(1 <= heads <= kv.kv_heads and 1 <= dim <= kv.head_dim for heads, dim in kv.sizes)
        yield fits and len(kv.sizes) == kv.layers, "decoder.kv.sizes", kv.sizes, "heads and head size of each layer"


def _column_rules(decoder: DecoderInfo) -> Iterator[tuple[bool, str, object, str]]:
    names = [columns.name for columns in decoder.columns]
    different = len(set(names)) == len(names) <= MOST_COLUMNS
    yield different, "decoder.image_columns, token_columns", names, f"at most {MOST_COLUMNS} different names"
    for columns in decoder.image_columns:
        name = f"decoder.image_columns[{columns.name!r}].width"
        yield 1 <= columns.width <= 1 << 20, name, columns.width, f"a whole number from 1 to {1 << 20}"
    tokens = decoder.stand_ins
    yield len(tokens) <= MOST_COLUMNS, "decoder.stand_ins", f"{len(tokens)} tokens", f"at most {MOST_COLUMNS}"


def _state_rules(decoder: DecoderInfo) -> Iterator[tuple[bool, str, object, str]]:
    names = [state.name for state in decoder.states]
    yield len(set(names)) == len(names), "decoder.states", names, "different names"
    for state in decoder.states:
        name = f"decoder.states[{state.name!r}]"
        yield state.dtype in STATE_DTYPES, f"{name}.dtype", state.dtype, " or ".join(STATE_DTYPES)
        yield min(state.shape, default=1) >= 0, f"{name}.shape", state.shape, "whole numbers of at least 0"
    values = sum(math.prod(state.shape) for state in decoder.states)
    yield values <= MOST_STATE_VALUES, "decoder.states (shape)", values, f"no more than {MOST_STATE_VALUES} values"


def _prefix_rules(manifest: Manifest) -> Iterator[tuple[bool, str, object, str]]:
    decoder, prefix = manifest.decoder, manifest.decoder.prefix
    if prefix is None:
        return
    kv, tokens = decoder.kv, len(prefix.token_ids)
    yield not decoder.states, "decoder.prefix.file", prefix.file, "absent where there are states, which it has none of"
    known = all(0 <= token < decoder.vocab_size for token in prefix.token_ids)
    yield known and 1 <= tokens < decoder.max_context, "decoder.prefix.token_ids", prefix.token_ids, "token ids"
    shape = (kv.layers, 2, kv.kv_heads, tokens, kv.head_dim)
    yield prefix.shape == shape, "decoder.prefix.shape", prefix.shape, f"that of the cache, {shape}"
    yield prefix.dtype == kv.dtype, "decoder.prefix.dtype", prefix.dtype, f"that of the cache, {kv.dtype}"


def _embedding_rules(manifest: Manifest) -> Iterator[tuple[bool, str, object, str]]:
    tables = {"decoder.embedding": manifest.decoder.embedding}
    for columns in manifest.decoder.token_columns:
        name = f"decoder.token_columns[{columns.name!r}]"
        tables[f"{name}.table"] = columns.table
        yield min(columns.table.shape) >= 1, f"{name}.table.shape", columns.table.shape, "whole numbers of at least 1"
    vocab, stand_ins = min(table.shape[0] for table in tables.values()), manifest.decoder.stand_ins
    yield all(0 <= row < vocab for row in stand_ins.values()), "decoder.stand_ins", stand_ins, "token ids"
    for graph, info in manifest.graphs.items():
        for number, weight in enumerate(info.widened):
            name, blocks = f"graphs[{graph!r}].widened[{number}]", weight.blocks
            tables[f"{name}.blocks"] = blocks
            yield min(blocks.shape) >= 1, f"{name}.blocks.shape", blocks.shape, "whole numbers of at least 1"
            yield blocks.dtype in BITS, f"{name}.blocks.dtype", blocks.dtype, " or ".join(BITS)
            fits = not weight.mixed or (weight.mixed in MIXED and blocks.shape[1] % weight.mixed == 0)
            wanted = f"0, or a power of two up to {MIXED[-1]} that divides its inputs"
            yield fits, f"{name}.mixed", weight.mixed, wanted
        names = [weight.name for weight in info.widened]
        yield len(set(names)) == len(names), f"graphs[{graph!r}].widened", f"{len(names)} names", "different names"
        most = 2 * sum(manifest.files[file].bytes for file in {weight.blocks.file for weight in info.widened})
        made = info.widened_bytes
        yield made <= most, f"graphs[{graph!r}].widened", f"{made} bytes", f"no more than {most} bytes, from its files"
    for name, table in tables.items():
        yield math.isfinite(table.scale), f"{name}.scale", table.scale, "a number"
        bits = _BITS.get(table.dtype, 0)  # a kind of rows that is not known here is refused by `TokenEmbeddings`
        end = table.offset + table.shape[0] * table.shape[1] * bits // 8
        size = manifest.files[table.file].bytes
        fits = table.offset >= 0 and end <= size
        yield fits, f"{name} (offset, shape)", (table.offset, table.shape), f"within {table.file} of {size} bytes"
