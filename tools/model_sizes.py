"""What the aliases' checkpoints become: writes `edgevlm_export/checkpoints/sizes.json` for `edgevlm models`.

    PYTHONPATH=.venv/timm python -m tools.model_sizes     # FastVLM's tower is timm's: make .venv/timm

From shapes alone (`published_shapes.py`): every parameter in the format that the plan of that precision holds it in,
without layers that `--max-kl` lifts. Memory is what the process of one question takes on a CPU: the weights, keys and
values of `CONTEXT` tokens, and `BESIDE`, what every run in benchmarks/results has beside these two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from edgevlm_export.checkpoints import aliases, skeleton
from edgevlm_export.checkpoints.aliases import ALIASES
from edgevlm_export.checkpoints.checkpoint import load_config
from edgevlm_export.checkpoints.weights.ties import tied_weights
from edgevlm_export.families import get_family
from edgevlm_export.families.text_config import kv_shape
from edgevlm_export.precision import get_format
from edgevlm_export.precision.plan import PrecisionPlan
from edgevlm_export.precision.plans import get_plan
from tools.published_shapes import PUBLISHED

PRECISIONS = ("fp32", "int8", "int4")
CONTEXT = 2048
"""Tokens."""
BESIDE = 250 * 2**20
"""Bytes: Python, ONNX Runtime, activations."""
GATED = ("down_proj", "w2")
"""Layers that read a gated MLP's product, as transformers calls them."""
TARGET = Path(aliases.__file__).with_name("sizes.json")


def config_of(alias: str) -> PreTrainedConfig:
    """The architecture behind an alias."""
    if ALIASES[alias].repo_id is None:
        from edgevlm_export.inspector import checkpoint_path

        return load_config(Path(checkpoint_path()))
    published = PUBLISHED[alias]
    tied = published.text["tie_word_embeddings"]
    parts = {"text_config": published.text, "vision_config": published.vision}
    config = AutoConfig.for_model(published.model_type, **parts, tie_word_embeddings=tied, **published.more)
    assert isinstance(config, PreTrainedConfig)
    return config


class Model:
    """The parameters of one architecture, by the graph they go into."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self.model = skeleton.build(config)
        self.tied = tied_weights(self.model)
        self.linear = {f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        modules = {module: name for name, module in self.model.named_modules()}
        self.projector = get_family(config.model_type).projector_module
        self.table = modules[self.model.get_input_embeddings()] + ".weight"
        self.text = self.table.removesuffix("embed_tokens.weight")
        self.head = modules[self.model.get_output_embeddings()] + ".weight"

    @property
    def parameters(self) -> int:
        """How many."""
        return sum(value.numel() for name, value in self.model.named_parameters() if name not in self.tied)

    def bundle_bytes(self, plan: PrecisionPlan) -> int:
        """Of the weights, as `plan` holds them."""
        stored = {name: self._stored(name, tuple(value.shape), plan) for name, value in self.model.named_parameters()}
        if (
            self.tied
            and get_format(plan.graph("decoder").format_name(self.head, "head"))
            .pack(self.head, self._shape(self.head))
            .table
        ):
            del stored[self.table]  # its rows are read from the head's bytes
        return sum(stored.values())

    def kv_bytes(self, tokens: int) -> int:
        """Keys and values in float32."""
        return 2 * 4 * sum(heads * width for heads, width in kv_shape(self.config.get_text_config()).sizes) * tokens

    def _shape(self, name: str) -> tuple[int, int]:
        rows, columns = self.model.get_parameter(name).shape
        return rows, columns

    def _stored(self, name: str, shape: tuple[int, ...], plan: PrecisionPlan) -> int:
        if name.startswith(f"{self.text}embed_tokens"):  # tables that tokens are looked up in
            return get_format(plan.embedding).pack(name, self._shape(name)).nbytes
        graph = plan.graph(self._graph(name))
        if name not in self.linear:
            plain = "fp16" if graph.default == "fp16" else "fp32"
            return get_format(plain).pack(name, (1, self.model.get_parameter(name).numel())).nbytes
        role = "head" if name == self.head else "mlp_down" if name.split(".")[-2] in GATED else None
        return get_format(graph.format_name(name, role)).pack(name, self._shape(name)).nbytes

    def _graph(self, name: str) -> str:
        if name == self.head or name.startswith(self.text):
            return "decoder"
        return "projector" if name.startswith(self.projector) else "vision_encoder"


def sizes(config: PreTrainedConfig) -> dict[str, Any]:
    """Parameters, and bytes of bundle and memory by precision."""
    model = Model(config)
    found: dict[str, Any] = {"parameters": model.parameters}
    for precision in PRECISIONS:
        bundle = model.bundle_bytes(get_plan(precision))
        found[precision] = {"bundle_bytes": bundle, "memory_bytes": bundle + model.kv_bytes(CONTEXT) + BESIDE}
    return found


def text() -> str:
    """The file's contents."""
    return json.dumps({alias: sizes(config_of(alias)) for alias in ALIASES}, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
