"""The bundle's manifest: the contract between the exporter, which writes it, and the runtime, which reads it.

These frozen dataclasses are the single source of truth for `manifest.json`. `decode` checks types and names the
field at fault; fields this version does not know are ignored, fields it needs must be there. `SCHEMA_VERSION` rises
when an older runtime could misread a bundle; a bundle with a higher one is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgevlm_runtime.bundle.decoder_info import DecoderInfo, EmbeddingTable
from edgevlm_runtime.bundle.engine_info import EngineInfo, Profile
from edgevlm_runtime.bundle.fidelity import Fidelity
from edgevlm_runtime.errors import BundleError, BundleTooNew
from edgevlm_runtime.reading import decode_json

SCHEMA_VERSION = 5
MANIFEST_NAME = "manifest.json"
MANIFEST_DIGEST_NAME = "manifest.sha256"
"""sha256 of the manifest, which holds the digest of every other file; as `sha256sum` writes and reads it."""
MANIFEST_DIGEST_BYTES = 4096
"""Far more than that line has."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Digest and size of one file of the bundle; the key in `Manifest.files` is its path relative to the bundle."""

    sha256: str
    """In hexadecimal."""
    bytes: int
    """Its size."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a graph."""

    name: str
    """As the graph calls it."""
    dtype: str
    """As NumPy calls it."""
    shape: tuple[int | str, ...]
    """Integers for fixed and names for dynamic dimensions."""


VALUES = "rotate-values"
"""The transform (`GraphInfo.transforms`) that changes what is in the KV cache: graphs that share one must agree."""
MADE_WHEN_LOADED = "made-when-loaded"
"""Where a graph says that weights lie which are made on the device (`GraphInfo.widened`). There is no such file."""


@dataclass(frozen=True, slots=True)
class WidenedWeight:
    """A weight [out, in] that a bundle holds once, in blocks, and a second graph multiplies in 8 bits with one scale
    for each output (`bundle.blocks.widen`)."""

    name: str
    """The graph's initializers are NAME.int8 [in, out] and NAME.scales [out]."""
    blocks: EmbeddingTable
    """Where its blocks lie."""
    mixed: int = 0
    """How many neighbouring channels of what it multiplies that graph mixes by a Hadamard matrix, and so of the weight
    when it is made: 0, or a power of two that divides its inputs."""


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """One ONNX graph: where it is, what goes in and out, and how its weights are stored."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision: str
    nodes: int
    bytes: int
    exceptions: dict[str, str] = field(default_factory=dict)
    """Layers stored otherwise than `precision` says: parameter name to precision."""
    transforms: tuple[str, ...] = ()
    """What was done to the graph before its weights were quantized; its function is the same."""
    refused: dict[str, str] = field(default_factory=dict)
    """What the precision asks to be done to it and does not fit it: name to the reason."""
    activations: str = "float32"
    """Type of the values between its operators."""
    profiles: tuple[Profile, ...] = ()
    """Of a graph for an engine built ahead of time; the decoder has "prefill" and "decode"."""
    widened: tuple[WidenedWeight, ...] = ()
    """Weights that are made when the graph is loaded, of another graph's."""

    @property
    def widened_bytes(self) -> int:
        """Memory that these take."""
        return sum(math.prod(weight.blocks.shape) + 4 * weight.blocks.shape[0] for weight in self.widened)

    def largest(self, dimension: str) -> int | None:
        """The largest size of a dynamic dimension that any profile allows; None without profiles."""
        sizes = [profile.sizes[dimension][2] for profile in self.profiles if dimension in profile.sizes]
        return max(sizes, default=None)


@dataclass(frozen=True, slots=True)
class FewerTokens:
    """How many of an image's tokens the projector's graph leaves, and which."""

    kept: int
    """Tokens of an image, or of one of its tiles; as many as `options` says."""
    of: int
    """How many the checkpoint makes of it."""
    method: str
    """Which are kept: a name in `edgevlm_export.families.choosing.METHODS`."""


@dataclass(frozen=True, slots=True)
class ImageProcessing:
    """How an image becomes the vision encoder's input."""

    kind: str
    """Names a file in `edgevlm_runtime/images/kinds/` ("fixed", "tiles", "native", ...)."""
    options: dict[str, Any]
    """That kind's own frozen dataclass `Options`, as plain JSON."""
    exif_orientation: bool = False
    """Whether image files are turned as their EXIF orientation says, before anything else. Schema 1 did not know this,
    and took pictures as their pixels lie."""
    size: int | None = None
    """Side of the vision encoder's pictures in pixels, where the export was asked for another than the checkpoint's."""
    fewer: FewerTokens | None = None
    """Where the export was asked for fewer image tokens than the checkpoint makes."""


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How messages become tokens. The chat template renders one `image_token` for each image; `image_token_id` stands
    for each of its rows (most families have one token for both)."""

    chat_template: str
    tokenizer: str
    image_token: str
    image_token_id: int
    bos_token: str | None
    eos_token: str | None
    template_variables: dict[str, Any] = field(default_factory=dict)
    """Further names the template may use (other special tokens)."""
    template_given: bool = False
    """Whether the chat template was given at export, in place of the checkpoint's own."""
    flat_image: str | None = None
    """What an image part becomes where the template takes a message's content as one string only ("<image>\\n"); None
    where it takes parts."""
    stop_strings: tuple[str, ...] = ()
    system_prompt: str | None = None
    """System message of sessions and chats that are opened without one."""


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The checkpoint's own generation config, as far as it changes tokens."""

    eos_token_ids: tuple[int, ...]
    """Tokens that end an answer."""
    repetition_penalty: float = 1.0
    """Above 1, tokens seen before are less likely."""
    temperature: float = 0.0
    """0 takes the likeliest token; above 0, tokens are sampled."""
    top_k: int = 0
    """Sampled among so many of the likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Sampled among the likeliest tokens with this probability together."""
    max_new_tokens: int = 256
    """An answer ends after so many."""
    suppress_tokens: tuple[int, ...] = ()
    """Tokens that are never generated."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A stored image and prompt with what the bundle answered when it was exported (files under `selftest/`)."""

    image: str
    """File of the image."""
    prompt: str
    """The question."""
    token_ids: tuple[int, ...]
    """The answer."""
    embeddings: str
    """File of the expected image embeddings, float32 `.npy`, shape [tokens, width of the projector's rows]."""
    tolerance: float
    """How much a value of them may differ."""


@dataclass(frozen=True, slots=True)
class CheckpointDigest:
    """Tells the checkpoint that the bundle was made from apart from others."""

    sha256: str
    """In hexadecimal."""
    covers: str
    """What of the checkpoint went into it, in words."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Where the bundle comes from."""

    name: str
    """Name of the checkpoint."""
    family: str
    """The model family, a `model_type`."""
    architecture: str
    """Name of its class in transformers."""
    parameters: int
    """Number of parameters of the checkpoint."""
    license: str | None = None
    """As the checkpoint states it."""
    checkpoint: CheckpointDigest | None = None
    """What tells it apart from others; None in bundles of early exporters."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a bundle. See the module's docstring."""

    schema_version: int
    min_runtime_version: str
    model: ModelInfo
    graphs: dict[str, GraphInfo]
    """`vision_encoder`, `projector` and `decoder`."""
    decoder: DecoderInfo
    image: ImageProcessing
    prompt: PromptFormat
    generation: GenerationDefaults
    files: dict[str, FileRecord]
    """Every file of the bundle but the manifest itself."""
    versions: dict[str, str]
    """Packages that made the bundle."""
    target: str = "onnx"
    """What the graphs were made for: "onnx" (ONNX Runtime), "tensorrt" or "tensorrt-rtx" (standard operators only)."""
    fidelity: Fidelity | None = None
    """Where the decoder was to meet a target."""
    self_test: SelfTest | None = None
    notes: tuple[str, ...] = ()
    """What whoever uses the bundle should know of how it was made, one sentence each."""
    engines: tuple[EngineInfo, ...] = ()
    """Compiled engines, where `edgevlm compile` made some."""


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """Read a manifest; `where` names the file in errors.

    Raises `BundleTooNew` for a newer schema and `BundleError` for anything that is not a manifest.
    """
    version = decode_json(data, _SchemaOnly, f"not a bundle manifest: {where}", error=BundleError).schema_version
    if version < 1:
        raise BundleError(f"damaged bundle manifest: {where}: schema_version is {version}: export the model again")
    if version > SCHEMA_VERSION:
        raise BundleTooNew(
            f"bundle schema {version} is newer than this runtime knows ({SCHEMA_VERSION}): {where}: "
            "upgrade edgevlm-runtime"
        )
    complaint = f"damaged bundle manifest: {where}"
    return decode_json(data, Manifest, complaint, error=BundleError, remedy="export the model again")


@dataclass(frozen=True, slots=True)
class _SchemaOnly:
    schema_version: int
