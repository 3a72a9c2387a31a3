"""Servers of a tiny model made by hand, and of `inspector` in int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import VLM
from tests.runtime.conftest import make_bundle
from tests.support.chatting import Gate, client, server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a model that says nonsense, quickly."""
    return make_bundle(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def vlm(tiny: Path) -> VLM:
    """The same, asked without a server."""
    return edgevlm_runtime.load(tiny, threads=1)


@pytest.fixture(scope="module")
def address(tiny: Path) -> Iterator[str]:
    """Of a server of the tiny model, for all tests of a file."""
    with server(tiny) as (found, _):
        yield found


@pytest.fixture(scope="module")
def asking(address: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client of it."""
    with client(address) as found:
        yield found


@pytest.fixture(scope="session")
def inspector(export_bundle: Callable[..., Path]) -> Path:
    """The shipped model in int8."""
    from edgevlm_export.inspector import checkpoint_path

    return export_bundle(checkpoint_path(), precision="int8")


@pytest.fixture
def picture() -> Callable[[int], Image.Image]:
    """Different images by number."""

    def make(number: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(number).integers(0, 256, (11, 13, 3), dtype=np.uint8))

    return make


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Closed until the test opens it."""
    made = Gate(monkeypatch)
    yield made
    made.open()
