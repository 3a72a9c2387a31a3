"""Images of odd sizes and modes, a small tokenizer, and what the parity tests compare with."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from edgevlm_export.preprocessing import CheckpointProcessor

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def _noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    """Blurred noise: neither flat (hides wrong places) nor white (hides wrong filters)."""
    seed = width * 7919 + height * 31 + channels
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 3 + 1, width // 3 + 1, channels), np.uint8)
    fine = np.random.default_rng(seed + 1).integers(0, 60, (height, width, channels), np.uint8)
    return (np.kron(coarse, np.ones((3, 3, 1), np.uint8))[:height, :width] // 2 + fine).astype(np.uint8)


def _rgb(width: int, height: int) -> Image.Image:
    return Image.fromarray(_noise(width, height))


def _rgba(width: int, height: int) -> Image.Image:
    return Image.fromarray(_noise(width, height, 4))


def _file(image: Image.Image, format_: str, **parameters: Any) -> Image.Image:
    """The image as it comes out of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **parameters)
    return Image.open(io.BytesIO(buffer.getvalue()))


def _rotated(width: int, height: int, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _file(_rgb(width, height), "JPEG", exif=exif, quality=90)


def _frames(width: int, height: int) -> Image.Image:
    first, second = _rgb(width, height), _rgb(width, height).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _file(first.quantize(64), "GIF", save_all=True, append_images=[second.quantize(64)])


ODD_IMAGES: dict[str, Callable[[], Image.Image]] = {
    "1x1": lambda: _rgb(1, 1),
    "1x1-gray": lambda: _rgb(1, 1).convert("L"),
    "3x1": lambda: _rgb(3, 1),
    "1x50": lambda: _rgb(1, 50),
    "7x2000": lambda: _rgb(7, 2000),
    "2000x7": lambda: _rgb(2000, 7),
    "2x401": lambda: _rgb(2, 401),
    "333x17": lambda: _rgb(333, 17),
    "29x27": lambda: _rgb(29, 27),
    "56x56": lambda: _rgb(56, 56),
    "57x55": lambda: _rgb(57, 55),
    "640x480": lambda: _rgb(640, 480),
    "481x641": lambda: _rgb(481, 641),
    "palette": lambda: _rgb(80, 61).quantize(32),
    "palette-transparent": lambda: _file(_rgb(80, 61).quantize(32), "PNG", transparency=3),
    "palette-alpha": lambda: _rgba(33, 47).quantize(32).convert("PA"),
    "rgba": lambda: _rgba(75, 120),
    "rgba-webp": lambda: _file(_rgba(64, 50), "WEBP", lossless=True),
    "rgb-transparent-color": lambda: _file(_rgb(40, 61), "PNG", transparency=(10, 20, 30)),
    "gray-alpha": lambda: _rgba(90, 31).convert("LA"),
    "gray": lambda: _rgb(100, 99).convert("L"),
    "gray-transparent": lambda: _file(_rgb(40, 61).convert("L"), "PNG", transparency=100),
    "1-bit": lambda: _rgb(65, 63).convert("1"),
    "cmyk": lambda: _file(_rgb(90, 64).convert("CMYK"), "JPEG", quality=95),
    "ycbcr": lambda: _rgb(90, 64).convert("YCbCr"),
    "hsv": lambda: _rgb(20, 64).convert("HSV"),
    "exif-6": lambda: _rotated(97, 61, 6),
    "exif-3": lambda: _rotated(61, 97, 3),
    "gif-frames": lambda: _frames(48, 37),
    "premultiplied": lambda: _rgba(40, 40).convert("RGBa"),
}


@pytest.fixture(params=ODD_IMAGES, ids=str)
def odd_image(request: pytest.FixtureRequest) -> Image.Image:
    """Each of the images, fresh."""
    return ODD_IMAGES[request.param]()


@pytest.fixture(scope="session")
def make_image() -> Callable[[int, int], Image.Image]:
    """An RGB image of width, height."""
    return _rgb


def byte_level(special: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer with a few merges and `special` as its special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(["what is this? the image shows a part with a scratch.\n\n"] * 3, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def make_processor() -> Callable[..., CheckpointProcessor]:
    """A loaded processor: `make_processor(image_processor, special_tokens, image_token, **settings)`."""

    def make(image_processor: Any, special: list[str], image_token: str, **settings: Any) -> CheckpointProcessor:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=byte_level(["<s>", "</s>", *special]), bos_token="<s>", eos_token="</s>"
        )
        template = TEMPLATE.replace("IMAGE", image_token)
        return CheckpointProcessor(Path("checkpoint"), image_processor, tokenizer, template, settings)

    return make
