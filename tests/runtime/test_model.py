"""Loading, and the low-level logits that parity is measured with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import BundleError, ContextOverflow, PromptError

Picture = Callable[[int], Image.Image]


def _messages(text: str, images: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}]


@pytest.mark.parametrize("images", [0, 1, 2])
def test_prompt_logits(vlm: VLM, picture: Picture, images: int) -> None:
    pictures = [picture(number) for number in range(images)]
    token_ids, logits = vlm.prompt_logits(_messages("hello", images), pictures)
    assert logits.shape == (len(token_ids), 262)
    assert np.count_nonzero(token_ids == 258) == 4 * images
    answer = vlm.ask(pictures, "hello", max_new_tokens=1)
    assert answer.token_ids == (int(logits[-1].argmax()),)
    assert answer.prompt_tokens == len(token_ids)


def test_prompt_logits_of_what_does_not_fit(vlm: VLM, picture: Picture) -> None:
    with pytest.raises(ContextOverflow):
        vlm.prompt_logits(_messages("x" * 500, 0))
    with pytest.raises(PromptError, match="1 image parts, but 2 images"):
        vlm.prompt_logits(_messages("hello", 1), [picture(1), picture(2)])


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_chunk_size_changes_no_token(vlm: VLM, fresh: Callable[..., VLM], picture: Picture, chunk: int) -> None:
    assert fresh(prefill_chunk=chunk).ask(picture(1), "hello").token_ids == vlm.ask(picture(1), "hello").token_ids


def test_context_is_the_smaller_of_model_and_option(
    fresh: Callable[..., VLM], caplog: pytest.LogCaptureFixture
) -> None:
    assert fresh().context_tokens == 256
    assert fresh(max_context=100).context_tokens == 100
    assert not caplog.messages
    assert fresh(max_context=10_000).context_tokens == 256
    assert caplog.messages == ["max_context is 10000, the model allows 256: 256 are used"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["decoder"]["kv"].update(layers=3), "no input 'past_key_values.2.key'"),
        (lambda data: data["decoder"]["kv"].update(dtype="float16"), "holds float32, not float16"),
        (lambda data: data["decoder"].update(positions="spiral"), "unknown position scheme"),
        (lambda data: data["decoder"].update(attention="spiral"), "unknown attention pattern"),
        (lambda data: data["decoder"]["embedding"].update(dtype="int7"), "unknown embedding dtype"),
        (lambda data: data["image"].update(kind="hologram"), "unknown kind of image processing"),
        (lambda data: data["graphs"]["decoder"].update(file="projector.onnx"), "decoder graph has no input"),
        (lambda data: data["graphs"]["vision_encoder"].update(file="tokenizer.json"), "cannot load"),
    ],
)
def test_manifest_that_does_not_fit_the_files(
    own_bundle: Path, rewrite: Callable[..., None], change: Any, message: str
) -> None:
    rewrite(own_bundle, change)
    with pytest.raises(BundleError) as error:
        edgevlm_runtime.load(own_bundle)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_import_is_light_and_has_no_torch() -> None:
    code = (
        "import sys, edgevlm_runtime\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'edgevlm_export', 'edgevlm', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(all(hasattr(edgevlm_runtime, name) for name in edgevlm_runtime.__all__))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_answering_needs_no_torch(handmade_bundle: Path) -> None:
    code = (
        "import sys, edgevlm_runtime, numpy\n"
        "vlm = edgevlm_runtime.load(sys.argv[1], threads=1)\n"
        "print(len(vlm.ask(numpy.zeros((9, 9, 3), numpy.uint8), 'hello', max_new_tokens=3).token_ids))\n"
        "print(sorted({'torch', 'transformers', 'onnx', 'edgevlm_export'} & set(sys.modules)))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(handmade_bundle)], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.split() == ["3", "[]"]
    assert done.stderr == ""


def test_version_is_the_distributions() -> None:
    text = (Path(edgevlm_runtime.__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{edgevlm_runtime.__version__}"' in text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hidden_size", lambda data: data["decoder"].update(hidden_size=31)),
        ("vocab_size", lambda data: data["decoder"].update(vocab_size=1 << 23)),
        ("kv.kv_heads", lambda data: data["decoder"]["kv"].update(kv_heads=4096)),
        ("kv.head_dim", lambda data: data["decoder"]["kv"].update(head_dim=8)),
    ],
)
def test_sizes_that_are_not_the_graphs(own_bundle: Path, rewrite: Callable[..., None], name: str, change: Any) -> None:
    """Refused when the bundle is loaded, before a buffer is made by them."""
    rewrite(own_bundle, change)
    with pytest.raises(BundleError) as error:
        edgevlm_runtime.load(own_bundle)
    assert name in str(error.value) or "width" in str(error.value)


@pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "max_context"])
def test_sizes_beyond_all_models(own_bundle: Path, rewrite: Callable[..., None], name: str) -> None:
    rewrite(own_bundle, lambda data: data["decoder"].update({name: 2**31 - 1}))
    with pytest.raises(BundleError, match=f"decoder.{name} is 2147483647, it must be a whole number"):
        edgevlm_runtime.load(own_bundle)
