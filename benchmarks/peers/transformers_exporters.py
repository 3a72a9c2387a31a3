"""transformers.exporters: its ONNX exporter and its ONNX Runtime runner, of the transformers that is installed here.

It splits generation into a prefill (`language_model` and `lm_head`) and a one-token `decode` graph, each with the
decoder's weights; the KV cache goes in and comes out, copied, at every step. Its fusions for ONNX Runtime's CPU
provider are on. Vision tower and projector are exported as one graph by the same exporter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import folders
from benchmarks.peers import child
from benchmarks.peers.base import SECOND_QUESTION, Measures, PeerError, Room, Task, Variant
from benchmarks.peers.tools import module, run, turn

NAME = "transformers-exporters"
VARIANTS = (
    Variant(
        "float32",
        "float32, fused for ONNX Runtime's CPU provider",
        {SECOND_QUESTION: "its prefill graph takes no cache, its decode graph one token: it would begin anew"},
    ),
)
SHOWN = ("transformers", "onnxruntime", "onnxscript", "torch")


def install(room: Room) -> dict[str, str]:
    """See `Peer`. Nothing to install: it is part of the exporter's dependencies."""
    del room
    return {name: version(name) for name in SHOWN}


def convert(room: Room, variant: Variant) -> None:
    """See `Peer`."""
    family(room.checkpoint)
    command = module(None, "benchmarks.peers.transformers_exporters", "export", room.checkpoint)
    log = room.models(NAME) / f"{variant.name}.log"
    folders.ensure(room.models(NAME) / variant.name, lambda folder: run((*command, folder), log))


def model_files(room: Room, variant: Variant) -> list[Path]:
    """See `Peer`."""
    return sorted((room.models(NAME) / variant.name).rglob("*.data"))


def measure(room: Room, variant: Variant, task: Task) -> Measures:
    """See `Peer`."""
    job = {"folder": str(room.models(NAME) / variant.name)}
    return turn(None, "transformers_exporters", job, task)


@dataclass(frozen=True, slots=True)
class Family:
    """What an architecture wants that the exporter does not know by itself."""

    images: Callable[[Any], Any]
    """[1, 3, height, width] as the `pixel_values` of the whole model."""
    features: Callable[[Any, Any], Any]
    """Tower and projector of the base model on [1, 3, height, width]: [1, image tokens, width]."""


def _llava_features(model: Any, pixels: Any) -> Any:
    import torch

    found = model.get_image_features(pixel_values=pixels)
    found = getattr(found, "pooler_output", found)
    return torch.stack(list(found)) if isinstance(found, list | tuple) else found


def _smolvlm_features(model: Any, pixels: Any) -> Any:
    """Its own `get_image_features` first drops images that are all padding, which no graph of fixed shape can."""
    return model.connector(model.vision_model(pixel_values=pixels).last_hidden_state)


FAMILIES = {
    "llava": Family(lambda pixels: pixels, _llava_features),
    "smolvlm": Family(lambda pixels: pixels[:, None], _smolvlm_features),
}
"""By `model_type`."""


def family(checkpoint: Path) -> Family:
    """Of a checkpoint. Raises `PeerError`."""
    kind = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind not in FAMILIES:
        raise PeerError(f"no inputs are known for the model type {kind!r}: there are {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def export(checkpoint: str, target: str) -> None:
    """Child side: both exports, and the table of embeddings, which no graph of the prefill holds."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForImageTextToText
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    about = family(Path(checkpoint))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()

    class Images(torch.nn.Module):
        """Tower and projector."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model.model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = about.features(self.model, pixel_values)
            return found

    vision = model.config.vision_config
    pixels = torch.randn(1, 3, vision.image_size, vision.image_size)
    shuffled = getattr(model.config, "scale_factor", 1)  # patches of a side that one token of SmolVLM stands for
    tokens = (vision.image_size // vision.patch_size // shuffled) ** 2
    ids = torch.tensor([[40] * 8 + [model.config.image_token_id] * tokens + [41] * 8])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": about.images(pixels)}
    folder = Path(target)
    dynamic, fixed = OnnxConfig(dynamic=True, ort_fusions="cpu"), OnnxConfig(ort_fusions="cpu")
    with torch.no_grad():
        OnnxExporter().export(Images().eval(), {"pixel_values": pixels}, fixed).save_pretrained(folder / "images")
        OnnxExporter().export_for_generation(model, inputs, dynamic).save_pretrained(folder / "language")
        table = model.get_input_embeddings().weight.detach().clone()
    save_file({"embeddings": table}, folder / "embeddings.safetensors")


class Pipeline:
    """See `child.Model`. Child side."""

    sees = True

    def __init__(self, job: dict[str, Any]) -> None:
        import onnxruntime
        import torch
        from safetensors.torch import load_file
        from transformers.exporters.base import ExportedModel

        self._torch, self._task = torch, job["task"]
        torch.set_num_threads(self._task["threads"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._task["threads"]
        folder = Path(job["folder"])
        loaded = {"device": "cpu", "session_options": options}
        self._images = ExportedModel.from_pretrained(folder / "images", **loaded)
        self._parts = ExportedModel.from_pretrained(folder / "language", **loaded).runners
        self._table = load_file(folder / "embeddings.safetensors")["embeddings"]
        self._past: Any = None
        self._count = 0

    def see(self, pixels: Any) -> Any:
        """[1, image tokens, width]."""
        return self._images(pixel_values=self._torch.from_numpy(pixels)).numpy()

    def begin(self, ids: Sequence[int], seen: Any) -> int:
        """See `child.Model`."""
        torch = self._torch
        embeddings = self._table[torch.tensor([ids])].numpy()
        embeddings = child.put_image(ids, self._task["image_token_id"], embeddings, seen)
        self._count = len(ids)
        positions = torch.arange(self._count)[None]
        mask = torch.ones_like(positions)
        out = self._parts["language_model"](
            inputs_embeds=torch.from_numpy(embeddings), position_ids=positions, attention_mask=mask
        )
        self._past = out.past_key_values
        return int(self._parts["lm_head"](input=out.last_hidden_state[:, -1:]).argmax())

    def step(self, token: int) -> int:
        """See `child.Model`."""
        torch = self._torch
        where = torch.tensor([[self._count]])
        out = self._parts["decode"](input_ids=torch.tensor([[token]]), position_ids=where, past_key_values=self._past)
        self._past = out.past_key_values
        self._count += 1
        return int(out.logits.argmax())

    def resume(self, kept: int, ids: Sequence[int]) -> None:
        """Not possible."""
        del kept, ids


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(sys.argv[2], sys.argv[3])
    else:
        child.measure(Pipeline)
