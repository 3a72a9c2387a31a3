"""Requests as OpenAI's clients send them, a server to send them to, a model whose tokens come when a test says so."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from edgevlm.serve.app import Serving
from edgevlm.serve.options import ServeOptions
from edgevlm.serve.run import serving
from edgevlm_runtime.decoding.context import Context
from tests.support.polling import LONG, until

PATIENCE_S = 60.0


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def inline(image: Image.Image | bytes) -> str:
    """The picture as a `data:` URI."""
    data = image if isinstance(image, bytes) else encoded(image)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def user(text: str, *images: Image.Image | bytes | str) -> dict[str, Any]:
    """A question about pictures, which may be addresses."""
    places = [one if isinstance(one, str) else inline(one) for one in images]
    shown = [{"type": "image_url", "image_url": {"url": place}} for place in places]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


@contextmanager
def server(*bundles: Path, **options: Any) -> Iterator[tuple[str, Serving]]:
    """A server on a free port, in this process."""
    chosen = ServeOptions(**{"bundles": bundles, "port": 0, **options})
    with serving(chosen, {"threads": 1, "verify": "size"}) as (address, state):
        yield address, state


def client(address: str, key: str = "none") -> openai.OpenAI:
    """OpenAI's own, which tries nothing twice."""
    plain = httpx2.Client(trust_env=False, timeout=PATIENCE_S)
    return openai.OpenAI(base_url=f"{address}v1", api_key=key, max_retries=0, http_client=plain)


class Gate:
    """Lets one decoding step pass for each time it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.passed = 0
        self._permits = threading.Semaphore(0)
        self._open = False
        real = Context.step
        gate = self

        def step(self: Context, token: int) -> Any:
            gate.wait()
            return real(self, token)

        patch.setattr(Context, "step", step)

    def wait(self) -> None:
        """As a step does."""
        if not self._open:
            assert self._permits.acquire(timeout=LONG), "a test has left the gate closed"
        self.passed += 1

    def let(self, steps: int) -> None:
        """So many pass."""
        self._permits.release(steps)

    def open(self) -> None:
        """All pass from now on."""
        self._open = True
        self._permits.release(1000)


def waiting(state: Serving, running: int, count: int) -> None:
    """Until so many answers are made and so many requests wait."""
    until(
        lambda: (state.models[0].running, state.models[0].waiting) == (running, count),
        f"{running} running, {count} waiting",
    )
