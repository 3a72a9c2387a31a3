"""What `edgevlm serve` costs: requests a second, first tokens, a second question, ten thousand clients that hang up.

    python -m benchmarks.serve clients second hang_ups inspector=DIR       # bundles
    python -m benchmarks.serve second clip-l-336-qwen2-0.5b=DIR

The server is a process of its own, on the same cores as the clients, which are threads here and speak over loopback.
Results go into benchmarks/results/serve.json, a section and model replacing what was there of them.
"""

from __future__ import annotations

import base64
import concurrent.futures
import io
import json
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
import numpy as np
import psutil
from PIL import Image

import edgevlm_runtime
from edgevlm.machine import memory, package_versions, processor
from edgevlm_export import inspection
from edgevlm_runtime import child

RESULTS = Path(__file__).parent / "results" / "serve.json"
CLIENTS = (1, 4, 16)
REQUESTS = 320
"""With each number of clients."""
SIDE = 480
QUESTIONS = ("Is there a defect on this part?", "Is there a scratch?")
SHORT = ("scratches?", "any dents?")
"""For tokenizers with one token a character."""
ROUNDS = 10
LONGEST = 48
"""Tokens of a whole answer about a part."""
HANG_UPS, WARM_UP, AT_ONCE, PICTURES = 10_000, 1_000, 8, 40
TARGETS = {"stateless second question, as a multiple of a session's": 1.1, "growth, MB": 20.0}
Figures = dict[str, Any]


class Target:
    """A server that runs, and the same bundle in this process, for what is right."""

    def __init__(self, folder: Path, address: str, process: psutil.Process) -> None:
        self.folder, self.address, self.process = folder, address, process
        self.model = folder.resolve().name

    def body(self, question: str, picture: bytes, **more: Any) -> dict[str, Any]:
        """A request about a picture."""
        place = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        parts = [{"type": "image_url", "image_url": {"url": place}}, {"type": "text", "text": question}]
        return {"model": self.model, "messages": [{"role": "user", "content": parts}], **more}


def clients(target: Target) -> Figures:
    """A picture nobody has seen and a question, by so many clients at once, each waiting for its answer."""
    found: Figures = {}
    for count in CLIENTS:
        pictures = [drawn(SIDE, 10_000 * count + number) for number in range(REQUESTS)]
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            share = [pictures[start::count] for start in range(count)]
            first = [one for times in pool.map(lambda own: _asked(target, own), share) for one in times]
        spent = time.perf_counter() - begun
        found[str(count)] = {
            "requests_per_second": round(REQUESTS / spent, 1),
            "first_token_p50_ms": round(float(np.percentile(first, 50)), 1),
            "first_token_p95_ms": round(float(np.percentile(first, 95)), 1),
        }
    return found


def second(target: Target) -> Figures:
    """Another question about the same picture: of a session in this process, and of a client that sends the picture
    again. Verdicts, which take a question's prefill and no answer's tokens; the two take turns."""
    own = edgevlm_runtime.load(target.folder)
    ends, choices = (QUESTIONS, ["yes", "no"]) if "inspector" in target.model else (SHORT, ["y", "n"])
    of_session: list[float] = []
    of_client: list[float] = []
    computed: list[float] = []
    with httpx2.Client(base_url=target.address, trust_env=False, timeout=600) as http:
        for number in range(ROUNDS):
            picture = drawn(336, 500 + number)
            with own.session(picture) as session:
                session.choose(ends[0], choices)
                begun = time.perf_counter()
                session.choose(ends[1], choices)
                of_session.append((time.perf_counter() - begun) * 1e3)
            http.post("/v1/chat/completions", json=target.body(ends[0], picture, choices_of=choices)).raise_for_status()
            begun = time.perf_counter()
            answer = http.post("/v1/chat/completions", json=target.body(ends[1], picture, choices_of=choices))
            of_client.append((time.perf_counter() - begun) * 1e3)
            computed.append(answer.json()["edgevlm"]["timings_ms"]["total"])
    session_ms, client_ms = median(of_session[1:]), median(of_client[1:])
    return {
        "rounds": ROUNDS,
        "session_ms": round(session_ms, 2),
        "stateless_client_ms": round(client_ms, 2),
        "of_it_in_the_runtime_ms": round(median(computed[1:]), 2),
        "times": round(client_ms / session_ms, 3),
    }


def hang_ups(target: Target) -> Figures:
    """Requests of which half are left at a random moment: every answer is its own picture's, memory stays."""
    own = edgevlm_runtime.load(target.folder)
    parts = list(inspection.examples("test", PICTURES))
    asked = [target.body(one.question, png(one.image), max_tokens=LONGEST) for one in parts]
    wanted = [own.ask(one.image, one.question, max_new_tokens=LONGEST).text for one in parts]
    truth = sum(told == one.answer for told, one in zip(wanted, parts, strict=True))

    def one(seed: int) -> bool | None:
        rng = random.Random(seed)
        number = rng.randrange(PICTURES)
        body = {**asked[number], "stream": rng.random() < 0.5}
        if rng.random() < 0.5:
            left(target.address, body, rng.random() * 0.03)
            return None
        return whole(http, {**body, "stream": False}) == wanted[number]

    with (
        httpx2.Client(base_url=target.address, timeout=600, trust_env=False) as http,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        list(pool.map(one, range(WARM_UP)))
        before = target.process.memory_info().rss
        begun = time.perf_counter()
        answers = [found for found in pool.map(one, range(WARM_UP, WARM_UP + HANG_UPS)) if found is not None]
        spent = time.perf_counter() - begun
    grown = target.process.memory_info().rss - before
    return {
        "requests": HANG_UPS,
        "left": HANG_UPS - len(answers),
        "wrong_answers": sum(not right for right in answers),
        "pictures": PICTURES,
        "different_answers": len(set(wanted)),
        "answers_as_drawn": truth,
        "growth_mb": round(grown / 1e6, 1),
        "seconds": round(spent, 1),
    }


SECTIONS: dict[str, Callable[[Target], Figures]] = {"clients": clients, "second": second, "hang_ups": hang_ups}


def first_token(http: httpx2.Client, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Milliseconds from the request to the first piece of text, and what the server told of it."""
    begun = time.perf_counter()
    spent, extra = 0.0, {}
    with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if not spent and any(one["delta"].get("content") for one in event["choices"]):
                spent = (time.perf_counter() - begun) * 1e3
            extra = event.get("edgevlm", extra)
    return spent, extra


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


def _asked(target: Target, pictures: Sequence[bytes]) -> list[float]:
    with httpx2.Client(base_url=target.address, trust_env=False, timeout=600) as http:
        return [first_token(http, target.body(QUESTIONS[0], one, max_tokens=8))[0] for one in pictures]


@contextmanager
def served(folder: Path) -> Iterator[Target]:
    """`edgevlm serve` of a bundle."""
    arguments = ["-m", "edgevlm", "serve", folder, "--port", "0", "--queue", "64"]
    with child.start(arguments, stderr=subprocess.PIPE) as running:
        try:
            line = running.stderr.readline() if running.stderr else ""
            found = re.search(r"at (\S+)v1$", line.strip())
            if found is None:
                raise click.ClickException(line.strip())
            threading.Thread(target=lambda: list(running.stderr or ()), daemon=True).start()
            yield Target(folder, found[1], psutil.Process(running.pid))
        finally:
            running.terminate()


def _write(section: str, name: str, figures: Figures) -> None:
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {"processor": asdict(processor()), "memory": asdict(memory()), "packages": package_versions()}
    stored["machine"], stored["targets"] = machine, TARGETS
    stored.setdefault(section, {})[name] = figures
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="SECTION... MODEL=DIR...")
def main(words: tuple[str, ...]) -> None:
    """Measure SECTIONs (clients, second, hang_ups) with each bundle, and write them down."""
    sections = [word for word in words if "=" not in word]
    for given in (word for word in words if "=" in word):
        name, _, folder = given.partition("=")
        with served(Path(folder)) as target:
            for section in sections:
                figures = SECTIONS[section](target)
                _write(section, name, figures)
                print(name, section, json.dumps(figures))


if __name__ == "__main__":
    main()
