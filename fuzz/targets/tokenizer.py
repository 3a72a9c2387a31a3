"""A tokenizer.json: parsed, and used on texts and tokens."""

from __future__ import annotations

from pathlib import Path

from edgevlm_runtime.text.tokenizer import Tokenizer
from fuzz.mutate import as_text
from fuzz.mutate import mutate_json as mutate

__all__ = ["Surface", "mutate"]

SAMPLES = (
    "",
    "what is this?",
    "<s>USER: <image>\n" * 3,
    "\u0130\u0307 caf\u00e9 \U0001f600 \u202e" * 5,
    " " * 300,
    "ab" * 2000,
)


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        pass

    def run(self, data: bytes) -> None:
        tokenizer = Tokenizer.from_json(as_text(data))
        for text in SAMPLES:
            ids = tokenizer.encode(text, bos_token="<s>")
            tokenizer.decode(ids[:50])
        stream = tokenizer.stream()
        for token in (0, 1, 5, 255, tokenizer.vocab_size - 1, tokenizer.vocab_size, 10**6):
            stream.push(token)
        stream.finish()
