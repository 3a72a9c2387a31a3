"""What `--json` prints: one frozen dataclass per command, whose fields are the keys.

docs/cli.md's tables are made from these classes (docs/make_cli.py): the docstring under a field describes the key.
Records that need nothing of the runtime stand beside their command; those of `export`, `compile`, `eval`, `bench`
and `tune` beside what is measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from edgevlm.watch.replay.found import Flip
from edgevlm_runtime import Answer, Choice, Timings
from edgevlm_runtime.bundle.certificate import Certificate
from edgevlm_runtime.bundle.decoder_info import KVLayout
from edgevlm_runtime.bundle.manifest import (
    FileRecord,
    GenerationDefaults,
    ImageProcessing,
    ModelInfo,
    SelfTest,
    TensorInfo,
)
from edgevlm_runtime.checks.engines import GraphTrials
from edgevlm_runtime.checks.parity import Parity
from edgevlm_runtime.checks.verification import FilesReport, ProviderResult

RECORDS: dict[str, tuple[str, ...]] = {
    "export": ("edgevlm_export.steps.report:ExportReport", "edgevlm.cli.export:MissedReport"),
    "compile": ("edgevlm_export.compile.run:CompileReport",),
    "run": ("edgevlm.cli.records:RunReport",),
    "serve": ("edgevlm.cli.serve:ServeReport",),
    "map": ("edgevlm.bulk.run:MapReport",),
    "watch": (
        "edgevlm.watch.service.run:Summary",
        "edgevlm.watch.preview.report:PreviewReport",
        "edgevlm.cli.watch:WrittenPlan",
    ),
    "replay": ("edgevlm.cli.records:ReplayReport",),
    "eval": ("edgevlm.evaluation.report:EvalReport", "edgevlm.cli.eval:WrittenReport"),
    "verify": ("edgevlm.cli.records:VerifyReport",),
    "bench": ("edgevlm.benchmark.baseline:BenchReport",),
    "tune": ("edgevlm.benchmark.tuned:TuneReport", "edgevlm.benchmark.tuned:ResetReport"),
    "inspect": ("edgevlm.cli.records:InspectReport",),
    "models": ("edgevlm.cli.models:ModelsReport",),
    "triton": ("edgevlm.cli.scale.triton:TritonReport",),
    "doctor": ("edgevlm.cli.doctor:DoctorReport",),
}
"""The record of each command as MODULE:CLASS; a further one is for the case that its own docstring names."""


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """One prompt and its answer."""

    prompt: str
    """As it was given."""
    text: str
    """The answer; with `--choices` the verdict, empty when there is none."""
    token_ids: tuple[int, ...]
    """Every generated token, the end-of-sequence token included; none with `--choices`."""
    finish_reason: str
    """"stop" (end-of-sequence token), "length" (as many tokens as allowed, or the context is full), "stop_string", or
    "choice"."""
    choice: str | None
    """With `--choices`: the verdict, null when the likeliest choice is less probable than `--abstain-below`."""
    probabilities: dict[str, float] | None
    """With `--choices`: the probability of each choice, in the order given; they add up to 1."""
    choices_mass: float | None
    """With `--choices`: the probability that the model gives to all choices together."""
    timings_ms: Timings
    """How long each stage took, in milliseconds."""
    prompt_tokens: int
    """Tokens of the prompt, image tokens included."""
    image_tokens: int
    """Those that stand for images."""
    image_cache: str
    """"hit" (no image had to be encoded), "miss" (at least one was), "none" (no image)."""
    prefix_tokens_reused: int
    """Tokens of the prompt whose keys and values were already in the KV cache."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What answered."""

    name: str
    """Library, version, and provider or GPU."""
    reason: str
    """Why it was this engine: "as asked", or how "auto" decided."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """The answers, and what gave them."""

    answers: tuple[AnswerReport, ...]
    """One per prompt, in their order."""
    engine: EngineReport
    """What answered them."""


def answered(prompt: str, answer: Answer | Choice) -> AnswerReport:
    """The record of an answer, or of a verdict."""
    chosen = isinstance(answer, Choice)
    return AnswerReport(
        prompt=prompt,
        text=str(answer),
        token_ids=() if isinstance(answer, Choice) else answer.token_ids,
        finish_reason="choice" if isinstance(answer, Choice) else answer.finish_reason,
        choice=answer.text if chosen else None,
        probabilities=answer.probabilities if isinstance(answer, Choice) else None,
        choices_mass=answer.mass if isinstance(answer, Choice) else None,
        timings_ms=Timings(**{name: round(value, 3) for name, value in asdict(answer.timings).items()}),
        prompt_tokens=answer.prompt_tokens,
        image_tokens=answer.image_tokens,
        image_cache=answer.image_cache,
        prefix_tokens_reused=answer.prefix_tokens_reused,
    )


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """The stored question, asked here."""

    passed: bool
    """Whether every provider, or the engine, answers as the bundle says."""
    providers: dict[str, ProviderResult]
    """The result on each execution provider, or on the engine, by its name."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what of it does not hold."""

    bundle: str
    """The folder, as it was given."""
    passed: bool
    """Whether everything holds; the exit code is 1 when not."""
    problems: tuple[str, ...]
    """What does not hold, one sentence each."""
    files: FilesReport
    """What the digests say."""
    self_test: SelfTestReport | None
    """Null when the bundle has none, files are bad, or `--no-self-test` was given."""
    reference: str | None
    """With `--reference`: the PyTorch model, and how it ran."""
    same_checkpoint: bool | None
    """With `--reference`: whether the bundle was made from it; null where the bundle does not tell."""
    parity: Parity | None
    """With `--reference`: how close the bundle is to it."""
    engines: tuple[GraphTrials, ...] | None
    """With `--engines`: what each installed engine makes of each graph; null without."""


@dataclass(frozen=True, slots=True)
class GraphReport:
    """One ONNX graph."""

    bytes: int
    """Size of the graph with its weights."""
    widened_bytes: int
    """Weights that are made of the decoder's when the bundle is loaded: memory, and no disk."""
    precision: str
    """How its weights are stored: "fp32", "fp16", "int8", "int4" or a finer name."""
    nodes: int
    """Operators in it."""
    exceptions: dict[str, str]
    """Layers stored otherwise than `precision` says: parameter name to precision."""
    transforms: tuple[str, ...]
    """What was done to the graph before its weights were quantized; its function is the same."""
    refused: dict[str, str]
    """What the precision asks to be done to it and does not fit it: name to the reason."""
    inputs: tuple[TensorInfo, ...]
    """In the graph's order."""
    outputs: tuple[TensorInfo, ...]
    """In the graph's order."""


@dataclass(frozen=True, slots=True)
class KVCacheReport(KVLayout):
    """The KV cache: one key and one value tensor of shape [1, kv_heads, tokens, head_dim] per layer."""

    bytes_per_1k_tokens: int = field(kw_only=True)
    """Memory for 1024 tokens."""


@dataclass(frozen=True, slots=True)
class PrefixReport:
    """What every prompt begins with, and the bundle has keys and values of."""

    tokens: int
    """How many tokens that is."""
    token_ids: tuple[int, ...]
    """These tokens."""
    dtype: str
    """Type of the stored keys and values."""
    bytes: int
    """Size of their file."""


@dataclass(frozen=True, slots=True)
class InspectReport:
    """What is in the bundle."""

    bundle: str
    """The folder."""
    digest: str
    """SHA-256 of the manifest, which has the digest of every other file: it names the bundle."""
    schema_version: int
    """Version of the manifest's format."""
    min_runtime_version: str
    """The oldest edgevlm-runtime that can run it."""
    model: ModelInfo
    """Where the bundle comes from."""
    graphs: dict[str, GraphReport]
    """By name: `vision_encoder`, `projector`, `decoder`, and `prefill` where prompts have a graph of their own."""
    bytes_total: int
    """Size of all files but the manifest."""
    target: str
    """What the graphs were made for: "onnx", "tensorrt" or "tensorrt-rtx"."""
    max_context: int
    """Tokens of prompt, images and answer together."""
    kv_cache: KVCacheReport
    """Its layout, and what it takes."""
    system_prompt: str | None
    """System message of sessions that are opened without one."""
    prefix: PrefixReport | None
    """Null where no beginning was computed at export."""
    image: ImageProcessing
    """How an image becomes the vision encoder's input."""
    generation: GenerationDefaults
    """What holds where a question says nothing else."""
    versions: dict[str, str]
    """Packages that made the bundle."""
    files: dict[str, FileRecord]
    """Every file but the manifest, by its path in the bundle."""
    notes: tuple[str, ...]
    """What whoever uses the bundle should know of how it was made, one sentence each."""
    self_test: SelfTest | None
    """The stored question and its answer."""
    certificate: Certificate | None
    """How close the bundle came to the PyTorch model when it was exported."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Records that were asked again."""

    records: str
    """The file or folder, as it was given."""
    passed: bool
    """Whether the chain holds, and no more verdicts flip than `--max-flips` allows; the exit code is 1 when not."""
    found: int
    """Records that are there."""
    problems: tuple[str, ...]
    """What does not hold in the chain: records that were removed, altered, exchanged. One sentence each."""
    notes: tuple[str, ...]
    """What is no problem and should be known, as older files that were deleted."""
    last_sha256: tuple[str, ...]
    """Of each chain's last record: held against a copy elsewhere, it covers all records before."""
    bundle: str | None
    """The bundle that was asked; null with `--check`."""
    bundle_digest: str | None
    """Its content digest; records name theirs in the same way."""
    asked: int
    """Records that were asked again."""
    inexact: int
    """Of these, asked with a picture kept as JPEG, which is not exactly what was judged."""
    left_out: dict[str, int]
    """Why records were not asked again, and how many."""
    largest_change: float
    """Of any probability of a choice, from then to now."""
    flips: tuple[Flip, ...]
    """Verdicts that are others now, in the order of the records."""
