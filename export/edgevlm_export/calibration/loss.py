"""How far a written decoder graph is from the PyTorch model: KL divergence of the next token, on samples."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgevlm_export.finite import is_finite
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.samples import Samples
from edgevlm_runtime import VLM
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.pipeline import Pipeline

CHUNK = 128
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The reference's side of the comparison; `of` computes it."""

    samples: Samples
    wanted: NDArray[np.float32]
    """Log-probabilities [rows, vocab] of the text positions, memory-mapped."""

    @classmethod
    def of(cls, model: StreamedModel, samples: Samples, scratch: Path) -> Loss:
        """Run transformers' own layers in float32, weights streamed, on `samples`. Raises `ExportError` when what they
        give is no number.
        """
        rows = model.decode(samples)[samples.text]
        shape = (len(rows), model.table.num_embeddings)
        wanted = np.lib.format.open_memmap(scratch / "reference.npy", "w+", np.float32, shape)
        model.logits([rows], [wanted])
        for start in range(0, len(rows), CHUNK):
            chosen = torch.log_softmax(torch.from_numpy(wanted[start : start + CHUNK]), -1)
            if not is_finite(chosen):
                raise ExportError("the model overflows: its own logits are no finite numbers in float32")
            wanted[start : start + CHUNK] = chosen.numpy()
        return cls(samples, wanted)

    def measure(self, folder: Path, manifest: Manifest) -> float:
        """Mean KL in nats per position of the bundle in `folder`, which has no manifest yet."""
        vlm = VLM(
            Bundle(folder, manifest, digest=""), RuntimeOptions(engine="ort", max_context=self.samples.text.shape[1])
        )
        total, row = 0.0, 0
        for logits in self._run(vlm.pipeline):
            expected = torch.from_numpy(self.wanted[row : row + len(logits)])
            found = torch.log_softmax(torch.from_numpy(logits), -1)
            total += float((expected.exp() * (expected - found)).sum())
            row += len(logits)
        del vlm
        gc.collect()  # unmap the weights before the folder changes
        return max(total / row, 0.0) if np.isfinite(total) else float("inf")

    def _run(self, pipeline: Pipeline) -> Iterator[NDArray[np.float32]]:
        """Logits of the text positions, in order, by the decoder's graph; what a chunk attends to before it comes from
        the prefill graph, where there is one."""
        for embeddings, text in zip(self.samples.embeddings.numpy(), self.samples.text.numpy(), strict=True):
            length = len(text)
            run = pipeline.decoder.new_run(length)
            for start in range(0, length, CHUNK):
                part = slice(start, min(start + CHUNK, length))
                feeds = pipeline.positions.feeds((), part.start, part.stop)  # every token one further
                rows = np.flatnonzero(text[part])
                logits = run.score(embeddings[part], rows if rows.size else np.zeros(1, np.int64), feeds)
                if rows.size:
                    yield logits
