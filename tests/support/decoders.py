"""A checkpoint's decoder graph alone, run by the runtime's own decoder, beside transformers' text model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForImageTextToText

from edgevlm_export.checkpoints import checkpoint, skeleton
from edgevlm_export.families import get_family
from edgevlm_export.families.text_config import kv_shape
from edgevlm_export.planning.graph_plan import GraphPlan, plan_graph
from edgevlm_export.precision.plan import GraphPrecision
from edgevlm_export.writing.writer import write_graph
from edgevlm_runtime.bundle import decoder_info
from edgevlm_runtime.decoding.decoder import Decoder, DecoderRun
from edgevlm_runtime.engines import make_engine
from edgevlm_runtime.options import RuntimeOptions
from tests.support.graphs import alone


class Embeddings:
    """Stands in for `TokenEmbeddings`: rows of transformers' own table."""

    def __init__(self, table: torch.nn.Embedding) -> None:
        self.table = table

    def one(self, token_id: int, out: np.ndarray) -> None:
        out[...] = self.gather([token_id])[0]

    def gather(self, token_ids) -> np.ndarray:
        with torch.no_grad():
            return self.table(torch.as_tensor(np.asarray(token_ids))).numpy()


@dataclass(frozen=True)
class TextModel:
    """transformers' decoder of a checkpoint."""

    text_model: torch.nn.Module
    head: torch.nn.Module
    mrope: bool

    @classmethod
    def load(cls, folder: Path) -> TextModel:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        family = get_family(model.config.model_type)(model, None, {}, 64)  # type: ignore[arg-type]
        return cls(family.text_model, model.get_output_embeddings(), family.mrope)

    @property
    def embeddings(self) -> Embeddings:
        return Embeddings(self.text_model.get_input_embeddings())

    def positions(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """M-RoPE positions that differ in time, row and column; nothing for the others."""
        if not self.mrope:
            return {}
        places = np.arange(start, stop)
        return {"position_ids": np.stack([places // 3, places // 2, places])[:, None]}

    @torch.no_grad()
    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """[S, vocab] of embeddings [S, hidden], without a cache."""
        positions = self.positions(0, len(embeddings)).get("position_ids", np.arange(len(embeddings))[None])
        hidden = self.text_model(
            inputs_embeds=torch.from_numpy(embeddings)[None], position_ids=torch.from_numpy(positions), use_cache=False
        ).last_hidden_state
        return self.head(hidden)[0].numpy()

    def greedy(self, embeddings: np.ndarray, tokens: int) -> list[int]:
        """Most probable tokens, the whole sequence computed anew for each."""
        chosen: list[int] = []
        for _ in range(tokens):
            chosen.append(int(self.logits(embeddings)[-1].argmax()))
            embeddings = np.concatenate([embeddings, self.embeddings.gather(chosen[-1:])])
        return chosen


def write_decoder(folder: Path, out: Path, precision: GraphPrecision, context: int) -> tuple[GraphPlan, DecoderRun]:
    """The decoder graph of the checkpoint in `folder`, written to `out`, and a run over an empty cache."""
    config = checkpoint.load_config(folder)
    model = skeleton.build(config)
    family = get_family(config.model_type)(model, None, {}, context)  # type: ignore[arg-type]
    plan = plan_graph("decoder", family.decoder(), model, precision)
    out.mkdir()
    write_graph(plan, out, checkpoint.open_weights(folder, model), lambda count: None)
    text, kv = family.text_config, kv_shape(family.text_config)
    table = decoder_info.EmbeddingTable("", 0, "float32", (text.vocab_size, text.hidden_size))
    info = decoder_info.DecoderInfo(
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        max_context=context,
        positions=family.positions,
        kv=decoder_info.KVLayout(kv.layers, kv.kv_heads, kv.head_dim, plan.activations, sizes=kv.differing),
        embedding=table,
        step_inputs=plan.step_inputs,
    )
    graph = make_engine(RuntimeOptions(threads=1)).load(alone(out / "decoder.onnx"))
    embeddings = TextModel.load(folder).embeddings
    return plan, Decoder(graph, info, embeddings).new_run(context)  # type: ignore[arg-type]
