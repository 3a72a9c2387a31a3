"""What a caller can choose: how the runtime runs a bundle, and how an answer is generated.

Both are frozen and validated when they are made; a bad value raises `EdgeVLMError` in one line.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from edgevlm_runtime.errors import LONGEST_REASON, EdgeVLMError
from edgevlm_runtime.form import Form

MIB = 1 << 20
TEXT_TOKENS = ("special", "literal")
DEEPEST = 32
"""Bits of a sample, at most."""
MAX_THREADS = max(64, 4 * (os.cpu_count() or 1))
_THREADS = f"at most {MAX_THREADS}: more than there are cores only wait for each other"
PENALTIES = (0.01, 100.0)
"""Least and greatest repetition penalty."""
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""89,478,485, Pillow's own decompression-bomb limit. Decoded, Pillow holds four bytes per pixel, 341 MiB; an image that
has to be converted to RGB is there twice meanwhile, 683 MiB."""
_Options = TypeVar("_Options")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How a bundle is loaded and run. Keyword arguments of `edgevlm_runtime.load`."""

    provider: str = "cpu"
    """Execution provider: a short name ("cpu", "cuda", ...) or ONNX Runtime's own."""
    engine: str | None = None
    """What runs the graphs: "ort", or "vision_encoder=openvino,projector=openvino" (`engines.assigned.words`). None
    takes what this machine was tuned to (`edgevlm tune`) where the provider is "cpu", else "ort"."""
    threads: int | None = None
    """Threads of one graph run; None takes the physical cores this process may use."""
    cuda_graph: bool = False
    """Replay a decoding step as one CUDA graph, where the engine can (`tensorrt`, `tensorrt-rtx`)."""
    max_context: int | None = None
    """Tokens a session's KV cache holds; None takes what the model allows, which is also the most there can be."""
    prefill_chunk: int | None = None
    """Prompt positions computed at once, at most; None takes what this machine was tuned to (`VLM.tune`), else 320."""
    prefill_graph: bool = True
    """Compute prompts by the bundle's own graph for them, where it has one: faster, for the memory of its weights."""
    vision_batch: int = 1
    """Image tiles encoded at once, where the vision encoder takes them independently; they are remembered so, too: of
    those encoded at once none is known unless all are."""
    image_cache_bytes: int = 256 * MIB
    """Image embeddings kept in memory; 0 keeps none."""
    image_cache_dir: str | Path | None = None
    """Folder in which image embeddings outlive the process; None keeps none on disk."""
    image_cache_dir_bytes: int = 1024 * MIB
    """Image embeddings kept in `image_cache_dir`."""
    context_cache_dir: str | Path | None = None
    """Folder in which keys and values of prompts with their images outlive the process; None keeps none on disk."""
    context_cache_dir_bytes: int = 1024 * MIB
    """Keys and values kept in `context_cache_dir`."""
    max_image_pixels: int = MAX_PIXELS
    """Images with more pixels are refused before they are decoded. Pillow's own limit, at twice the default, stays."""
    text_tokens: str = "special"
    """What control tokens written out in a question are: "special" (those tokens, as in transformers) or "literal"
    (letters, for questions that come from elsewhere). What a model said itself is always letters to its next turn."""
    apply_exif_orientation: bool | None = None
    """Turn image files and encoded bytes as their EXIF orientation says; None does as the bundle says."""
    image_bit_depth: int | None = None
    """Bits that the samples of 16-bit, 32-bit and floating-point pictures use, where their files do not say."""
    prompt_lookup: bool = False
    """Guess tokens from what was said before and verify several in one run (`decoding.lookup`), where it is faster. No
    answer changes; log-probabilities are rounded otherwise."""
    verify: str = "full"
    """What is checked before the bundle is used: "full" (every file's sha256) or "size" (presence and size)."""

    def __post_init__(self) -> None:
        named = isinstance(self.provider, str) and self.provider != ""
        need(named, "provider", self.provider, "the name of an execution provider")
        said = self.engine is None or (isinstance(self.engine, str) and self.engine != "")
        need(said, "engine", self.engine, "NAME, or GRAPH=NAME,GRAPH=NAME, or None")
        for name in ("image_cache_dir", "context_cache_dir"):
            folder = getattr(self, name)
            plain = folder is None or (isinstance(folder, str | Path) and "\0" not in str(folder) and str(folder) != "")
            need(plain, name, folder, "the path of a folder, or None")
        need(self.threads is None or not _whole(self.threads, MAX_THREADS + 1), "threads", self.threads, _THREADS)
        for name in ("threads", "max_context", "prefill_chunk"):
            value = getattr(self, name)
            need(value is None or _whole(value, 1), name, value, "a whole number of at least 1, or None")
        for name in ("vision_batch", "max_image_pixels"):
            need(_whole(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        for name in ("image_cache_bytes", "image_cache_dir_bytes", "context_cache_dir_bytes"):
            need(_whole(getattr(self, name), 0), name, getattr(self, name), "a number of bytes, 0 or more")
        turning = self.apply_exif_orientation
        need(turning is None or isinstance(turning, bool), "apply_exif_orientation", turning, "True, False or None")
        depth = self.image_bit_depth
        deep = depth is None or (_whole(depth, 1) and depth <= DEEPEST)
        need(deep, "image_bit_depth", depth, f"a whole number from 1 to {DEEPEST}, or None")
        _need_bool("cuda_graph", self.cuda_graph)
        _need_bool("prompt_lookup", self.prompt_lookup)
        _need_bool("prefill_graph", self.prefill_graph)
        need(self.text_tokens in TEXT_TOKENS, "text_tokens", self.text_tokens, " or ".join(map(repr, TEXT_TOKENS)))
        need(self.verify in ("full", "size"), "verify", self.verify, '"full" or "size"')


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How an answer is generated. Keyword arguments of `ask` and `stream`; defaults come from the bundle."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the likeliest token each time (greedy); above 0, tokens are sampled."""
    top_k: int = 0
    """Sample among the k likeliest tokens; 0 does not limit."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together have this probability."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens already in prompt or answer."""
    suppress_tokens: tuple[int, ...] = ()
    """Token ids that are never generated."""
    seed: int | None = None
    """Makes sampling reproducible on one machine; None draws a fresh seed."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; the text ends before them. They add to the bundle's own."""
    logprobs: bool = True
    """Whether the answer carries each token's log-probability."""
    top_logprobs: int = 0
    """For each token, also the log-probabilities of so many likeliest tokens."""
    form: Form | None = None
    """What the answer must look like (`edgevlm_runtime.form`); a JSON schema or a type becomes one."""

    def __post_init__(self) -> None:
        if self.form is not None:
            object.__setattr__(self, "form", Form.of(self.form))
        need(_whole(self.max_new_tokens, 1), "max_new_tokens", self.max_new_tokens, "a whole number of at least 1")
        need(is_real(self.temperature) and self.temperature >= 0, "temperature", self.temperature, "0 or more")
        need(_whole(self.top_k, 0), "top_k", self.top_k, "a whole number, 0 for no limit")
        need(is_real(self.top_p) and 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        penalty = self.repetition_penalty
        low, high = PENALTIES
        sound = is_real(penalty) and low <= penalty <= high
        need(sound, "repetition_penalty", penalty, f"from {low:g} to {high:g}")
        need(self.seed is None or _whole(self.seed, 0), "seed", self.seed, "a whole number, 0 or more, or None")
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else _tuple("stop", self.stop))
        object.__setattr__(self, "suppress_tokens", _tuple("suppress_tokens", self.suppress_tokens))
        _need_bool("logprobs", self.logprobs)
        likeliest = _whole(self.top_logprobs, 0) and (self.logprobs or not self.top_logprobs)
        need(likeliest, "top_logprobs", self.top_logprobs, "a whole number, and 0 without logprobs")
        need(all(isinstance(s, str) and s for s in self.stop), "stop", self.stop, "strings that are not empty")
        suppressed = all(_whole(token, 0) for token in self.suppress_tokens)
        need(suppressed, "suppress_tokens", self.suppress_tokens, "token ids, 0 or more")


def runtime_options(options: Mapping[str, Any]) -> RuntimeOptions:
    """Keyword arguments of `load` as options. Raises `EdgeVLMError` for unknown names and bad values."""
    return make_options(RuntimeOptions, options, "option")


def make_options(kind: type[_Options], options: Mapping[str, Any], what: str) -> _Options:
    """The frozen dataclass `kind` made of `options`. Raises `EdgeVLMError` for a name it does not have."""
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise EdgeVLMError(f"unknown {what} {name!r}: known are {', '.join(known)}")
    return kind(**options)


def shown(value: object) -> str:
    """A value as it is written in Python, in a length to read."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 -- of a caller's type, or a number of more digits than Python writes
        return type(value).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def need(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise `EdgeVLMError` for an option's bad value, with what it must be in words."""
    if not holds:
        raise EdgeVLMError(f"bad value for {name}: {shown(value)}: it must be {wanted}")


def _need_bool(name: str, value: object) -> None:
    need(isinstance(value, bool), name, value, "True or False")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(value: object) -> bool:
    """Whether it is a finite number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number, or a fraction, beyond all floating-point numbers
        return False


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise EdgeVLMError(f"bad value for {name}: {shown(value)}: it must be a sequence") from None
