"""Records the bundle's self-test: one image, one prompt, and what the bundle answers where it was made."""

from __future__ import annotations

import dataclasses
import gc
import logging
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from edgevlm_export.planning.plan import Progress
from edgevlm_export.writing.bundle import file_records
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest, SelfTest
from edgevlm_runtime.errors import ExportError
from edgevlm_runtime.model import VLM
from edgevlm_runtime.options import RuntimeOptions

logger = logging.getLogger(__name__)

FOLDER = "selftest"
PROMPT = "Describe this image."
NEW_TOKENS = 16
TOLERANCE = 2e-2
"""How far an embedding's value may be off on another processor, as a part of the largest value."""
CONTEXT = 4096
"""Tokens of KV cache the self-test asks for, where the model allows as many."""


def record(folder: Path, manifest: Manifest, progress: Progress) -> Manifest:
    """Run the bundle in `folder` once and store what it answers; returns the manifest with the self-test.

    A bundle that needs more memory than this machine has free is left without, with a warning. Raises `ExportError` for
    one that gives what is no number.
    """
    if run_bytes(manifest) > psutil.virtual_memory().available:
        logger.warning("not enough memory to run the bundle here: it carries no self-test")
        return manifest
    progress("recording", 0, 1)
    (folder / FOLDER).mkdir()
    image_file, embeddings_file = f"{FOLDER}/image.png", f"{FOLDER}/embeddings.npy"
    picture().save(folder / image_file)
    tokens, embeddings = _answer(folder, manifest, folder / image_file)
    if not np.isfinite(embeddings).all():
        raise ExportError("the bundle's own image embeddings are no finite numbers: export it with --fp32")
    np.save(folder / embeddings_file, embeddings)
    progress("recording", 1, 1)
    tolerance = TOLERANCE * float(np.abs(embeddings).max())
    return dataclasses.replace(
        manifest,
        self_test=SelfTest(image_file, PROMPT, tokens, embeddings_file, tolerance),
        files=manifest.files | file_records(folder, FOLDER),
    )


def picture(height: int = 120, width: int = 160) -> Image.Image:
    """A picture with edges, gradients and colours, the same on every machine."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows * columns) % 256], axis=-1)
    pixels[30:60, 40:90] = (220, 40, 30)
    pixels[80:110, 100:140] = (20, 60, 200)
    return Image.fromarray(pixels.astype(np.uint8))


def _answer(folder: Path, manifest: Manifest, image: Path) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Tokens and image embeddings, by the runtime itself. The folder has no manifest yet: it is handed over."""
    vlm = VLM(Bundle(folder, manifest, digest=""), RuntimeOptions(engine="ort", max_context=CONTEXT))
    embeddings = vlm.pipeline.encoder.encode(vlm.pipeline.prepare(image)).embeddings
    answer = vlm.ask(image, PROMPT, max_new_tokens=NEW_TOKENS, temperature=0.0)
    tokens = tuple(int(token) for token in answer.token_ids)
    del vlm
    gc.collect()  # unmap the weights before the folder is renamed
    return tokens, np.asarray(embeddings, dtype=np.float32)


def run_bytes(manifest: Manifest) -> int:
    """Memory that the bundle may need to run here: its weights, and as much again while they are loaded."""
    return 2 * sum(
        _loaded_bytes(graph.bytes, graph.precision) + graph.widened_bytes for graph in manifest.graphs.values()
    )


def _loaded_bytes(stored: int, precision: str) -> int:
    """float16 weights are widened when they are loaded on a processor."""
    return stored * 2 if precision == "fp16" else stored
