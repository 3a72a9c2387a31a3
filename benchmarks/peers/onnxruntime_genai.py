"""onnxruntime-genai: the language model alone, made by its own model builder and run through its Python API.

Its builder has no model of LLaVA's or SmolVLM's architecture, so images are out of its rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import folders
from benchmarks.peers import child
from benchmarks.peers.base import FIRST_TOKEN, VISION, Measures, Room, Task, Variant
from benchmarks.peers.tools import make_environment, module, run, turn

NAME = "onnxruntime-genai"
REQUIREMENTS = ("onnxruntime-genai", "onnx", "onnx-ir", "torch<2.14", "transformers")
SHOWN = ("onnxruntime-genai", "onnxruntime", "transformers")
_NO_IMAGES = "its model builder does not make this vision encoder: the language model alone is measured"
_BLANKS = {VISION: _NO_IMAGES, FIRST_TOKEN: _NO_IMAGES}
_REMARK = "the image's positions are tokens like others"
VARIANTS = (
    Variant("int8", "int8 block 128, int8 activations", _BLANKS, _REMARK),
    Variant("int4", "int4 block 128, int8 activations", _BLANKS, _REMARK),
)
OPTIONS = ("block_size=128", "prune_lm_head=true")
"""The builder's settings that make it fastest here: large blocks, logits of the last position."""
SHARED = "shared_embeddings=true"
"""One table for embeddings and LM head: it refuses this where the model does not tie them."""


def install(room: Room) -> dict[str, str]:
    """See `Peer`."""
    return make_environment(room, NAME, REQUIREMENTS, SHOWN)


def convert(room: Room, variant: Variant) -> None:
    """See `Peer`."""
    models, builder = room.models(NAME), module(room.python(NAME), "onnxruntime_genai.models.builder")
    options = extra_options(room.decoder)

    def build(folder: Path) -> None:
        what = ("-i", room.decoder, "-o", folder, "-p", variant.name, "-e", "cpu", "-c", models / "cache")
        run((*builder, *what, "--extra_options", *options), models / f"{variant.name}.log")

    folders.ensure(models / variant.name, build)


def extra_options(decoder: Path) -> tuple[str, ...]:
    """What the builder is told of the language model in `decoder`."""
    config = json.loads((decoder / "config.json").read_text(encoding="utf-8"))
    return (*OPTIONS, SHARED) if config["tie_word_embeddings"] else OPTIONS


def model_files(room: Room, variant: Variant) -> list[Path]:
    """See `Peer`."""
    return [path for path in (room.models(NAME) / variant.name).iterdir() if path.name.startswith("model.onnx")]


def measure(room: Room, variant: Variant, task: Task) -> Measures:
    """See `Peer`."""
    return turn(room.python(NAME), "onnxruntime_genai", {"folder": str(room.models(NAME) / variant.name)}, task)


class Decoder:
    """See `child.Model`. Child side."""

    sees = False

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime_genai as genai  # type: ignore[import-not-found]

        self._genai = genai
        task = job["task"]
        config = genai.Config(job["folder"])
        threads = {"session_options": {"intra_op_num_threads": task["threads"]}}
        config.overlay(json.dumps({"model": {"decoder": threads}}))
        self._model = genai.Model(config)
        self._length = max(len(task["first_ids"]), len(task["second_ids"])) + task["new_tokens"] + 8
        self._generator: Any = None

    def see(self, pixels: Any) -> None:
        """Never asked: it has no vision encoder."""
        del pixels

    def begin(self, ids: Sequence[int], seen: None) -> int:
        """See `child.Model`."""
        del seen
        self._generator = None
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=self._length, do_sample=False, min_length=self._length)
        self._generator = self._genai.Generator(self._model, parameters)
        return self._append(ids)

    def step(self, token: int) -> int:
        """See `child.Model`. The generator keeps its last token itself."""
        del token
        return self._next()

    def resume(self, kept: int, ids: Sequence[int]) -> int:
        """See `child.Model`."""
        self._generator.rewind_to(kept)
        return self._append(ids)

    def _append(self, ids: Sequence[int]) -> int:
        import numpy as np

        self._generator.append_tokens(np.array([ids], np.int32))
        return self._next()

    def _next(self) -> int:
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])


if __name__ == "__main__":
    child.measure(Decoder)
