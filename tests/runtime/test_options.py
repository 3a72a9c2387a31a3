"""Options are validated when they are made, in one line that names the option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevlm_runtime
from edgevlm_runtime.bundle.manifest import GenerationDefaults
from edgevlm_runtime.bundle.values import generation_options
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import GenerationOptions, RuntimeOptions, runtime_options

DEFAULTS = GenerationDefaults(
    eos_token_ids=(2,),
    repetition_penalty=1.1,
    temperature=0.2,
    top_k=50,
    top_p=0.9,
    max_new_tokens=77,
    suppress_tokens=(5,),
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("max_new_tokens", None),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 2.0),
        ("top_p", 0),
        ("top_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e-30),
        ("repetition_penalty", 101),
        ("logprobs", "no"),
        ("seed", -1),
        ("seed", "x"),
        ("stop", 3),
        ("stop", [""]),
        ("stop", [1]),
        ("suppress_tokens", [-1]),
        ("suppress_tokens", 4),
    ],
)
def test_bad_generation_option(name: str, value: Any) -> None:
    with pytest.raises(EdgeVLMError) as error:
        GenerationOptions(**{name: value})
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 0),
        ("threads", "2"),
        ("max_context", 0),
        ("prefill_chunk", 0),
        ("vision_batch", -1),
        ("image_cache_bytes", -1),
        ("image_cache_dir_bytes", 0.5),
        ("context_cache_dir_bytes", -1),
        ("context_cache_dir", ""),
        ("prompt_lookup", 1),
        ("max_image_pixels", 0),
        ("apply_exif_orientation", 1),
        ("image_bit_depth", 0),
        ("image_bit_depth", 33),
        ("image_bit_depth", True),
        ("verify", "no"),
        ("provider", ""),
        ("engine", ""),
        ("engine", ("ort",)),
    ],
)
def test_bad_runtime_option(name: str, value: Any) -> None:
    with pytest.raises(EdgeVLMError, match=f"bad value for {name}"):
        RuntimeOptions(**{name: value})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(EdgeVLMError, match=r"unknown generation option 'temprature': known are .*temperature"):
        generation_options(DEFAULTS, {"temprature": 1})
    with pytest.raises(EdgeVLMError, match=r"unknown option 'thread': known are .*threads"):
        runtime_options({"thread": 1})


def test_defaults_come_from_the_bundle() -> None:
    options = generation_options(DEFAULTS, {"top_k": 3, "stop": "end"})
    assert options == GenerationOptions(
        max_new_tokens=77,
        temperature=0.2,
        top_k=3,
        top_p=0.9,
        repetition_penalty=1.1,
        suppress_tokens=(5,),
        stop=("end",),
    )


def test_numbers_of_numpy_are_numbers() -> None:
    options = GenerationOptions(max_new_tokens=np.int64(3), temperature=np.float32(0.5), seed=np.uint8(1))
    assert (options.max_new_tokens, options.temperature, options.seed) == (3, 0.5, 1)


def test_load_and_ask_check_options(handmade_bundle: Path, vlm: edgevlm_runtime.VLM) -> None:
    with pytest.raises(EdgeVLMError, match="unknown option 'device'"):
        edgevlm_runtime.load(handmade_bundle, device="cuda")
    with vlm.session() as session, pytest.raises(EdgeVLMError, match="unknown generation option 'tokens'"):
        session.stream("hello", tokens=3)
