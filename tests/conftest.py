"""Fixtures for every test: tiny checkpoints, and bundles exported from them, made once for all workers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.support import shared

MakeBundle = Callable[..., Path]

TESTS = Path(__file__).parent
UNIT = (
    "arm64",
    "evaluation",
    "export/checkpoints",
    "export/families",
    "export/graphs",
    "export/inspection",
    "export/planning",
    "export/preprocessing",
    "export/test_slices.py",
    "fuzz",
    "runtime",
    "support",
    "terminal",
    "test_house.py",
)
"""Tests of single parts, but for those named below. All others export, start commands, or train: the parity tier."""
WIDE = (
    "benchmark/test_published.py",
    "cli/test_bench.py",
    "export/calibration/test_target.py",
    "export/graphs/test_standard_dialect.py",
    "export/inspector",
    "export/parity/test_blocks.py",
    "export/parity/test_deepstack.py",
    "export/parity/test_dynamic_tiles.py",
    "export/parity/test_fewer_tokens.py",
    "export/parity/test_fewer_tokens_families.py",
    "export/parity/test_image_size.py",
    "export/parity/test_layouts.py",
    "export/parity/test_llava_successors.py",
    "export/parity/test_prefill_graph.py",
    "export/parity/test_row_ends.py",
    "export/parity/test_shared_layers.py",
    "export/parity/test_standard_bundles.py",
    "export/parity/test_states.py",
    "export/parity/test_unchanged_tiles.py",
    "export/writing/test_interrupted.py",
    "test_export_memory.py",
    "test_private.py",
    "test_readme.py",
)
"""What `make test` has no time for and CI has: what one family or one option does beyond what every family is held to,
and the longest single tests."""
LONG = (
    "export/parity/test_parity.py",
    "test_private.py",
    "benchmark/test_published.py",
    "test_export_memory.py",
    "test_readme.py",
    "export/parity",
    "export/inspector",
)
"""What takes longest, and so begins first: else one worker would be left with it at the end."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test is of one tier: `slow` and `fresh` are what is marked so, `unit`, `wide` and `parity` go by place."""

    @functools.cache
    def within(file: Path, places: tuple[str, ...]) -> int:
        """The first place that the test is in, by number, or how many there are."""
        return next((i for i, name in enumerate(places) if file.is_relative_to(TESTS / name)), len(places))

    def belongs(file: Path, places: tuple[str, ...]) -> bool:
        return within(file, places) < len(places)

    for item in items:
        if not any(item.iter_markers("slow")) and not any(item.iter_markers("fresh")):
            tiers = {"wide": WIDE, "unit": UNIT}
            item.add_marker(next((tier for tier, places in tiers.items() if belongs(item.path, places)), "parity"))
    items.sort(key=lambda item: within(item.path, LONG))


def pytest_configure(config: pytest.Config) -> None:
    """The first process of a run makes what its workers share, and removes it."""
    if (folder := shared.begin()) is not None:
        config.add_cleanup(lambda: shared.end(folder))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaVA checkpoint."""
    from tests.support import checkpoints

    return checkpoints.llava(tmp_path_factory.mktemp("checkpoint") / "tiny-llava")


@pytest.fixture(scope="session")
def export_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """A bundle of a checkpoint folder (float32 unless said otherwise), a copy of its own.

    `anew=True` exports it now, where the export itself is what is tested, or something in it is patched.
    """
    from edgevlm_export.api import ExportOptions, export
    from tests.support import bundles, traces

    traces.remember()

    def make(checkpoint: Path, anew: bool = False, **options: object) -> Path:
        folder = tmp_path_factory.mktemp("bundle") / checkpoint.name
        options.setdefault("self_test", False)
        options.setdefault("certificate", False)
        wanted = ExportOptions(str(checkpoint), folder, **options)  # type: ignore[arg-type]
        return export(wanted).bundle if anew or wanted.certificate else bundles.exported(wanted)

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, export_bundle: MakeBundle) -> Path:
    """The float32 bundle of `tiny_checkpoint`, with its self-test."""
    return export_bundle(tiny_checkpoint, self_test=True)
