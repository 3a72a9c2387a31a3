"""The beginning that every prompt has, computed once at export: its keys and values become a file of the bundle.

They come from PyTorch's float32 modules with the weights as the plan transforms them, so they are what a float32 graph
would leave in its own cache. A quantized graph then attends to exact keys and values there, and the first tokens of a
sequence carry the largest activations of all (Sun et al. 2024, "Massive Activations in Large Language Models").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edgevlm_export.finite import is_finite
from edgevlm_export.planning.plan import ExportPlan
from edgevlm_export.precision.kv_cache import stored
from edgevlm_export.steps.state import Prefix, State
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.observed_cache import ObservedCache
from edgevlm_export.streaming.samples import of_text
from edgevlm_export.writing.bundle import file_records
from edgevlm_runtime.asking.session import system_message
from edgevlm_runtime.bundle.decoder_info import PrefixCache
from edgevlm_runtime.errors import ExportError, PromptError
from edgevlm_runtime.text.prompt import PromptEncoder
from edgevlm_runtime.text.tokenizer import Tokenizer

FILE = "prefix.npy"
STAGE = "layers"
_QUESTION = "What is this?"


def with_system_prompt(plan: ExportPlan, system: str | None) -> ExportPlan:
    """The plan of a bundle with this system prompt. Raises `ExportError` when the chat template has no place for it."""
    prompt = replace(plan.preprocessing.prompt, system_prompt=system)
    plan = replace(plan, preprocessing=replace(plan.preprocessing, prompt=prompt))
    if system and system.strip() not in _question(plan)[0]:
        raise ExportError("the chat template leaves out the system prompt: put it into the questions instead")
    return plan


def prompt_prefix(plan: ExportPlan) -> Prefix:
    """Tokens that the chat template writes before the image of a question, the bundle's system prompt included; none
    where their keys and values depend on what follows, or are not all that a layer carries on.

    Raises `ExportError` when they do not fit the context.
    """
    prompt, context = plan.preprocessing.prompt, plan.family.context
    if plan.family.attention == "prefix" or plan.family.states:
        return Prefix(())
    text, tokenizer = _question(plan)
    tokens = tuple(tokenizer.encode(text.partition(prompt.image_token)[0], prompt.bos_token))
    if len(tokens) >= context:
        if prompt.system_prompt is None:
            raise ExportError(
                f"context too short: {context} tokens: every prompt begins with {len(tokens)}: raise --max-context"
            )
        raise ExportError(f"system prompt too long: {len(tokens)} tokens, the context holds {context}: shorten it")
    return Prefix(tokens)


def compute(state: State) -> State:
    """Keys and values of the beginning, where they are wanted. Raises `ExportError` for what are no finite numbers."""
    if not (state.options.bake_prefix and state.prefix.token_ids):
        return state
    model, made = StreamedModel.of(state.plan), list[tuple[Tensor, Tensor]]()

    def keep(layer: int, keys: Tensor, values: Tensor) -> None:
        if not (is_finite(keys) and is_finite(values)):
            raise ExportError(f"the model overflows: keys or values of layer {layer} are no finite numbers in float32")
        made.append((keys[0], values[0]))
        state.progress(STAGE, layer + 1, len(model.layers))

    begun = of_text(torch.tensor([state.prefix.token_ids]), model.embed)
    model.decode(begun, cache=ObservedCache(keep))
    return replace(state, prefix=replace(state.prefix, layers=tuple(made)))


def attach(state: State) -> State:
    """A computed beginning becomes a file of the bundle."""
    manifest, prefix, scales = state.manifest, state.prefix, state.scales
    if not prefix.layers:
        return state
    kv = manifest.decoder.kv
    shape = (kv.layers, 2, kv.kv_heads, len(prefix.token_ids), kv.head_dim)
    layers = np.zeros(shape, np.dtype(kv.dtype))
    for layer, pair in enumerate(prefix.layers):
        heads, dim = kv.size(layer)
        for part, rows in enumerate(pair):
            held = stored(rows, scales[layer][part]) if scales else rows.numpy()
            layers[layer, part, :heads, :, :dim] = held
    np.save(state.folder / FILE, layers)
    decoder = replace(manifest.decoder, prefix=PrefixCache(FILE, prefix.token_ids, kv.dtype, shape))
    files = manifest.files | file_records(state.folder, FILE)
    return replace(state, written=replace(manifest, decoder=decoder, files=files))


def _question(plan: ExportPlan) -> tuple[str, Tokenizer]:
    """A question about an image as the chat template writes it, and the tokenizer."""
    prompt, files = plan.preprocessing.prompt, plan.preprocessing.files
    encoder = PromptEncoder(prompt, files[prompt.chat_template], Tokenizer.from_json(files[prompt.tokenizer]))
    parts = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    try:
        text = encoder.render([*system_message(prompt.system_prompt), {"role": "user", "content": parts}])
    except PromptError as error:
        raise ExportError(f"system prompt not usable: {error}: leave out --system-prompt") from error
    return text, encoder.tokenizer
