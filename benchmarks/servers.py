"""Servers that speak OpenAI's chat completions, ours and llama.cpp's, and clients of theirs."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
import numpy as np
import psutil
from PIL import Image

from benchmarks.peers import llama_cpp, tools
from benchmarks.peers.base import Room, Variant
from edgevlm_runtime import child

START_S = 120
"""In which a server must be ready."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs."""

    address: str
    """Ends with a slash."""
    model: str
    process: psutil.Process
    folder: Path | None = None
    """Of our bundle: who loads it here knows what is right."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What every request says beside OpenAI's fields."""

    def body(self, question: str, picture: bytes, **more: Any) -> dict[str, Any]:
        """A request about a picture."""
        place = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        parts = [{"type": "image_url", "image_url": {"url": place}}, {"type": "text", "text": question}]
        return {"model": self.model, "messages": [{"role": "user", "content": parts}], **self.extra, **more}


@contextmanager
def edgevlm(folder: Path) -> Iterator[Target]:
    """`edgevlm serve` of a bundle."""
    arguments = ["-m", "edgevlm", "serve", folder, "--port", "0", "--queue", "64", "--engine", "ort"]
    with child.start(arguments, stderr=subprocess.PIPE) as running:
        try:
            line = running.stderr.readline() if running.stderr else ""
            found = re.search(r"at (\S+)v1$", line.strip())
            if found is None:
                raise click.ClickException(line.strip())
            threading.Thread(target=lambda: list(running.stderr or ()), daemon=True).start()
            yield Target(found[1], folder.resolve().name, psutil.Process(running.pid), folder)
        finally:
            running.terminate()


@contextmanager
def llama_server(room: Room, variant: Variant, threads: int) -> Iterator[Target]:
    """llama.cpp's `llama-server`, as it is by default but for threads and room for some pictures at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tools.serving(llama_cpp.server_command(room, variant, port, threads)) as running:
        address = f"http://127.0.0.1:{port}/"
        _await(address, running.poll)
        yield Target(address, variant.name, psutil.Process(running.pid), extra={"ignore_eos": True})


def _await(address: str, ended: Callable[[], int | None]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and ended() is None:
        try:
            if httpx2.get(f"{address}health", trust_env=False, timeout=5).status_code == httpx2.codes.OK:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    raise click.ClickException(f"llama-server did not become ready (ended with {ended()})")


def first_token(http: httpx2.Client, body: dict[str, Any]) -> float:
    """Milliseconds of an answer of one token. Not streamed: the token of random weights may have no text to send."""
    begun = time.perf_counter()
    http.post("/v1/chat/completions", json={**body, "max_tokens": 1}).raise_for_status()
    return (time.perf_counter() - begun) * 1e3


def whole(http: httpx2.Client, body: dict[str, Any]) -> str:
    """An answer's text."""
    answer = http.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def left(address: str, body: dict[str, Any], seconds: float) -> None:
    """Ask, and hang up."""
    place, data = urlsplit(address), json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=60) as connection:
        connection.sendall(head.encode() + data)
        time.sleep(seconds)


def png(image: Image.Image) -> bytes:
    """As a file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawn(side: int, seed: int) -> bytes:
    """A picture that no other seed has: patches, as JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side // 24, side // 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
