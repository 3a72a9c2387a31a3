"""What an export is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgevlm_export import chat_templates
from edgevlm_export.checkpoints.hub import readable_name
from edgevlm_export.families.image_request import ImageRequest
from edgevlm_export.planning.targets import get_target
from edgevlm_export.precision.plan import PrecisionPlan
from edgevlm_export.precision.plans import choose
from edgevlm_export.streaming.material import read_folder
from edgevlm_runtime.errors import ExportError


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and how. Raises `ExportError` for values that mean nothing."""

    model: str
    """A folder, an alias, or a Hugging Face id."""
    output: Path | None = None
    """The bundle's folder; None makes one here, named after model and precision."""
    precision: str = "fp32"
    vision: str | None = None
    """Precision of the vision encoder, where it differs; likewise for projector and decoder."""
    projector: str | None = None
    decoder: str | None = None
    prefill: str | None = None
    """Precision of a second decoder graph that computes prompts; None lets the decoder compute them itself."""
    kv: str | None = None
    """How the KV cache is stored: "fp32" (None too), "int8" or "int8:channel" (`edgevlm_export.precision.kv_cache`)."""
    image_size: int | None = None
    """Side in pixels of the square pictures that the vision encoder shall take; None for the checkpoint's own."""
    image_tokens: int | None = None
    """How many tokens of an image, or of each of its tiles, the decoder shall read; None for all."""
    image_token_method: str | None = None
    """How they are chosen: a name in `edgevlm_export.families.choosing.METHODS`; None for the family's first."""
    system_prompt: str | None = None
    """System message of the bundle's sessions and chats that are opened without one."""
    chat_template: str | None = None
    """A file, or a name of `edgevlm_export.chat_templates`, in place of the checkpoint's own template."""
    bake_prefix: bool = True
    """Put keys and values of what every prompt begins with into the bundle (`edgevlm_export.steps.prefix`)."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Layers stored otherwise, in any graph: name, or pattern of names, to precision ({"*.down_proj": "int8b"})."""
    max_kl: float | None = None
    """What quantizing the decoder may cost: mean KL divergence of the next token from PyTorch's, in nats. The worst
    layers are lifted to finer precisions until that holds. None: the precision's own target; infinity: none."""
    calibrate: Path | None = None
    """A folder to calibrate with: images, with a questions file as `edgevlm eval` reads it, or texts (UTF-8), or both.
    What it lacks, and None, are made up for by the inspection images and by English that every Python has."""
    force: bool = False
    """Replace a bundle that is there already."""
    max_context: int | None = None
    """Longest sequence the bundle shall take; None takes what the checkpoint allows, up to 32,768 tokens."""
    self_test: bool = True
    """Run the new bundle once and store what it answered."""
    certificate: bool = True
    """Compare the new bundle with the PyTorch model, and store the figures."""
    target: str = "onnx"
    """What the graphs are for: "onnx" (ONNX Runtime), or standard operators for "tensorrt" or "tensorrt-rtx"."""
    allow_drift: str | None = None
    """Why a bundle that is too far from the PyTorch model is wanted all the same; None keeps it aside."""

    def __post_init__(self) -> None:
        _ = self.plan, self.images
        if self.system_prompt is not None and not self.system_prompt.strip():
            raise ExportError("empty system prompt: give it a text, or leave out --system-prompt")
        if self.chat_template is not None:
            chat_templates.resolve(self.chat_template)
        if self.allow_drift is not None and not self.allow_drift.strip():
            raise ExportError("no reason given: --allow-drift goes into the certificate: say why, or leave it out")
        if self.calibrate is not None:
            read_folder(self.calibrate)
            if not (self.plan.calibrates or self.image_tokens):
                raise ExportError(
                    f"nothing to calibrate: {self.precision} rounds without samples: leave out --calibrate"
                )
        if self.max_context is not None and self.max_context < 16:
            raise ExportError(f"context too short: {self.max_context} tokens: at least 16 are needed")

    @property
    def plan(self) -> PrecisionPlan:
        """How each graph is stored, overrides applied."""
        dialect = get_target(self.target).dialect
        plan = choose(self.precision, self.vision, self.projector, self.decoder, dialect, self.kv, self.prefill)
        return plan.with_layers(self.layers, dialect).held_to(self.max_kl)

    @property
    def images(self) -> ImageRequest:
        """What is to be done otherwise with images."""
        return ImageRequest(self.image_size, self.image_tokens, self.image_token_method)

    @property
    def folder(self) -> Path:
        """Where the bundle goes."""
        if self.output is not None:
            return self.output
        parts = [self.name.lower(), self.precision] + ([] if self.target == "onnx" else [self.target])
        parts += [
            f"{number}{unit}" for number, unit in ((self.image_size, "px"), (self.image_tokens, "tokens")) if number
        ]
        return Path("-".join(parts))

    @property
    def name(self) -> str:
        """The model's name in the manifest."""
        folder = Path(self.model).expanduser()
        return readable_name(folder.resolve()) if folder.is_dir() else self.model.split("/")[-1]
