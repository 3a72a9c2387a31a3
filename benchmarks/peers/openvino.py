"""OpenVINO: the three models its own converter makes (optimum-intel), compiled and called directly.

The language model keeps its KV cache inside (stateful). Its converter's graph computes the logits of every position;
here only those of the last one are computed, as OpenVINO GenAI does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import folders
from benchmarks.peers import child
from benchmarks.peers.base import ENVIRONMENT, SECOND_QUESTION, Measures, Room, Task, Variant
from benchmarks.peers.tools import make_environment, module, run, turn

NAME = "openvino"
REQUIREMENTS = ("openvino", "openvino-tokenizers", "openvino-genai", "nncf", "optimum-intel", "torch<2.14", "pillow")
TRANSFORMERS = {"smolvlm": "4.57.6", "qwen3_vl": "4.57.6"}
"""The newest its converter takes, by `model_type`, where that is older than what it is installed with otherwise."""
SHOWN = ("openvino", "openvino-genai", "optimum-intel", "nncf", "transformers")
_NO_REWIND = {SECOND_QUESTION: "a stateful model cannot go back to the end of the image: it would begin anew"}
VARIANTS = (
    Variant("float32", "float32 weights, computed in f32", _NO_REWIND),
    Variant("bfloat16", "float32 weights, computed in bf16", _NO_REWIND),
    Variant("int8", "int8 weights (nncf), computed as the plugin chooses", _NO_REWIND),
    Variant("int4", "int4 decoder, int8 vision (nncf), computed as the plugin chooses", _NO_REWIND),
)
FORMATS = {"float32": "fp32", "bfloat16": "fp32", "int8": "int8", "int4": "int4"}
"""Weights by row; the converter's word for them, and the folder's name."""
OPTIONS = {"int4": ("--group-size-fallback", "adjust")}
"""What the converter is told of weights: to halve its groups of 128 for layers whose width is no multiple of it."""
HINTS = {"float32": "f32", "bfloat16": "bf16"}
PARTS = ("vision_embeddings", "text_embeddings", "language")


def install(room: Room) -> dict[str, str]:
    """See `Peer`."""
    wanted = transformers(room)
    requirements = (*REQUIREMENTS, f"transformers=={wanted}") if wanted else REQUIREMENTS
    found = make_environment(room, NAME, requirements, SHOWN, environment(room))
    # optimum-intel asks for torchvision, whose operators a CPU build of torch does not know: importing it would fail.
    # OpenVINO's converter reports by openvino-telemetry, which no variable switches off, and does without it.
    unwanted = ("torchvision", "openvino-telemetry")
    run(module(python(room), "pip", "uninstall", "--quiet", "-y", *unwanted), room.home(NAME) / "uninstall.log")
    return found


def transformers(room: Room) -> str | None:
    """The version that the shape needs; None where any will do."""
    config = json.loads((room.checkpoint / "config.json").read_text(encoding="utf-8"))
    return TRANSFORMERS.get(config["model_type"])


def environment(room: Room) -> str:
    """The folder's name of the environment for the shape: an older transformers has one of its own."""
    wanted = transformers(room)
    return f"{ENVIRONMENT}-transformers-{wanted}" if wanted else ENVIRONMENT


def python(room: Room) -> Path:
    """The interpreter of that environment."""
    return room.python(NAME, environment(room))


def convert(room: Room, variant: Variant) -> None:
    """See `Peer`. Rows of the same weights share a folder."""
    weights = FORMATS[variant.name]
    options = ("--task", "image-text-to-text", "--weight-format", weights, *OPTIONS.get(weights, ()))
    command = (python(room).with_name("optimum-cli"), "export", "openvino", "--model", room.checkpoint, *options)
    log = room.models(NAME) / f"{weights}.log"
    folders.ensure(room.models(NAME) / weights, lambda folder: run((*command, folder), log))


def model_files(room: Room, variant: Variant) -> list[Path]:
    """See `Peer`. Some architectures have more parts than `PARTS`."""
    return sorted((room.models(NAME) / FORMATS[variant.name]).glob("openvino_*_model.bin"))


def measure(room: Room, variant: Variant, task: Task) -> Measures:
    """See `Peer`."""
    job = {"folder": str(room.models(NAME) / FORMATS[variant.name]), "hint": HINTS.get(variant.name)}
    return turn(python(room), "openvino", job, task)


def _part(folder: Path, part: str) -> Path:
    return folder / f"openvino_{part}_model.xml"


class Pipeline:
    """See `child.Model`. Child side."""

    sees = True

    def __init__(self, job: dict[str, Any]) -> None:
        import openvino  # type: ignore[import-not-found]

        core = openvino.Core()
        self._task = job["task"]
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._task["threads"], "PERFORMANCE_HINT": "LATENCY"}
        if job["hint"] is not None:
            options["INFERENCE_PRECISION_HINT"] = job["hint"]
        requests = []
        for part in PARTS:
            model = core.read_model(_part(Path(job["folder"]), part))
            if part == "language":
                _keep_last_logits(model)
            requests.append(core.compile_model(model, "CPU", options).create_infer_request())
        self._vision, self._words, self._language = requests
        self._inputs = {port.get_any_name() for port in self._vision.model_inputs}
        vision = json.loads((Path(job["folder"]) / "config.json").read_text(encoding="utf-8"))["vision_config"]
        self._patch = int(vision["patch_size"])
        self._past = 0

    def see(self, pixels: Any) -> Any:
        """[1, image tokens, width]."""
        inputs = {"pixel_values": pixels, **whole_image(pixels.shape[-2:], self._patch)}
        return self._vision.infer({name: inputs[name] for name in self._inputs})[0].copy()

    def begin(self, ids: Sequence[int], seen: Any) -> int:
        """See `child.Model`."""
        self._language.reset_state()
        self._past = 0
        return self._compute(child.put_image(ids, self._task["image_token_id"], self._embed(ids), seen))

    def step(self, token: int) -> int:
        """See `child.Model`."""
        return self._compute(self._embed([token]))

    def resume(self, kept: int, ids: Sequence[int]) -> None:
        """Not possible."""
        del kept, ids

    def _embed(self, ids: Sequence[int]) -> Any:
        import numpy as np

        return self._words.infer({0: np.array([ids], np.int64)})[0].copy()

    def _compute(self, embeddings: Any) -> int:
        import numpy as np

        count = embeddings.shape[1]
        positions = np.arange(self._past, self._past + count, dtype=np.int64)[None]
        self._past += count
        inputs = {
            "inputs_embeds": embeddings,
            "attention_mask": np.ones((1, self._past), np.int64),
            "position_ids": positions,
            "beam_idx": np.zeros(1, np.int32),
        }
        return int(self._language.infer(inputs)[0][0, -1].argmax())


def whole_image(size: tuple[int, int], patch: int) -> dict[str, Any]:
    """What SmolVLM's tower is told beside the pixels, for an image of its own size [height, width] without padding.

    No patch is masked, and each has the position embedding of its place.
    """
    import numpy as np

    rows, columns = size[0] // patch, size[1] // patch
    return {
        "patch_attention_mask": np.ones((1, rows, columns), np.bool_),
        "patch_position_ids": np.arange(rows * columns, dtype=np.int64)[None],
    }


def _keep_last_logits(model: Any) -> None:
    """Cut the input of the LM head's product to the last position."""
    from openvino import opset13

    node = model.output("logits").get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    ends = [opset13.constant([value]) for value in (-1, 2**31 - 1, 1, 1)]
    node.input(0).replace_source_output(opset13.slice(node.input_value(0), *ends).output(0))
    model.validate_nodes_and_infer_types()


if __name__ == "__main__":
    child.measure(Pipeline)
