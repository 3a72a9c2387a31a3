"""Fixtures for every test: tiny checkpoints, and bundles exported from them, made once a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

MakeBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaVA checkpoint."""
    from tests.support import checkpoints

    return checkpoints.llava(tmp_path_factory.mktemp("checkpoint") / "tiny-llava")


@pytest.fixture(scope="session")
def export_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Export a checkpoint folder (float32 unless said otherwise) and return the bundle."""
    from edgevlm_export.api import ExportOptions, export
    from tests.support import traces

    traces.remember()

    def make(checkpoint: Path, **options: object) -> Path:
        folder = tmp_path_factory.mktemp("bundle") / checkpoint.name
        options.setdefault("self_test", False)
        options.setdefault("certificate", False)
        return export(ExportOptions(str(checkpoint), folder, **options)).bundle  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, export_bundle: MakeBundle) -> Path:
    """The float32 bundle of `tiny_checkpoint`, with its self-test."""
    return export_bundle(tiny_checkpoint, self_test=True)
