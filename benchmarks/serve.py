"""What `edgevlm serve` costs: requests a second, first tokens, a second question, ten thousand clients that hang up.

    python -m benchmarks.serve clients second hang_ups inspector=DIR       # bundles
    python -m benchmarks.serve clients questions second clip-l-336-qwen2-0.5b=DIR --peers-work DIR

With `--peers-work` (as for `python -m benchmarks`), `clients` and `questions` are also asked of llama.cpp's
`llama-server` with the same shape, where it was prepared. The server is a process of its own, on the same cores as the
clients, which are threads here and speak over loopback. Results go into benchmarks/results/serve.json, a section and
model replacing what was there of them.
"""

from __future__ import annotations

import concurrent.futures
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import click
import httpx2
import numpy as np

import edgevlm_runtime
from benchmarks import kept, serve_table, servers
from benchmarks.peers import llama_cpp, state
from benchmarks.peers.base import Room
from benchmarks.servers import Target, drawn, first_token, left, png, whole
from edgevlm.machine import processor
from edgevlm_export import inspection

RESULTS = Path(__file__).parent / "results" / "serve.json"
PAGE = Path(__file__).parents[1] / "docs" / "measured.md"
CLIENTS = (1, 4, 16)
REQUESTS, REQUESTS_OF_SHAPES = 320, 16
"""With each number of clients; of models that take seconds, fewer."""
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


def clients(target: Target, name: str) -> Figures:
    """A picture nobody has seen and a question, by so many clients at once, each waiting for its answer's
    first token."""
    found: Figures = {}
    requests = REQUESTS if _knows_parts(name) else REQUESTS_OF_SHAPES
    for count in CLIENTS:
        pictures = [drawn(SIDE, 10_000 * count + number) for number in range(requests)]
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            share = [pictures[start::count] for start in range(count)]
            first = [one for times in pool.map(lambda own: _asked(target, own), share) for one in times]
        spent = time.perf_counter() - begun
        found[str(count)] = {
            "requests": requests,
            "requests_per_second": round(requests / spent, 2),
            "first_token_p50_ms": round(float(np.percentile(first, 50)), 1),
            "first_token_p95_ms": round(float(np.percentile(first, 95)), 1),
        }
    return found


def questions(target: Target, name: str) -> Figures:
    """Two questions about each picture by a client that sends it again: their first tokens."""
    times: list[tuple[float, ...]] = []
    with httpx2.Client(base_url=target.address, trust_env=False, timeout=600) as http:
        for number in range(ROUNDS + 1):
            picture = drawn(336, 900 + number)
            times.append(tuple(first_token(http, target.body(one, picture)) for one in _asked_of(name)))
    first, second = (median(column) for column in zip(*times[1:], strict=True))
    return {"rounds": ROUNDS, "first_question_ms": round(first, 1), "second_question_ms": round(second, 1)}


def second(target: Target, name: str) -> Figures:
    """Another question about the same picture: of a session in this process, and of a client that sends the picture
    again. Verdicts, which take a question's prefill and no answer's tokens; the two take turns."""
    own = edgevlm_runtime.load(_bundle(target), engine="ort")
    ends, choices = _asked_of(name), ["yes", "no"] if _knows_parts(name) else ["y", "n"]
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


def hang_ups(target: Target, name: str) -> Figures:
    """Requests of which half are left at a random moment: every answer is its own picture's, memory stays."""
    own = edgevlm_runtime.load(_bundle(target), engine="ort")
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


Section = Callable[[Target, str], Figures]
SECTIONS: dict[str, Section] = {
    "clients": clients,
    "questions": questions,
    "second": second,
    "hang_ups": hang_ups,
}
OF_PEERS = ("clients", "questions")
"""Sections that need nothing but OpenAI's fields."""


def _knows_parts(name: str) -> bool:
    return name == "inspector"


def _asked_of(name: str) -> tuple[str, str]:
    return QUESTIONS if _knows_parts(name) else SHORT


def _bundle(target: Target) -> Path:
    if target.folder is None:
        raise click.ClickException(f"{target.model} is no bundle of ours")
    return target.folder


def _asked(target: Target, pictures: Sequence[bytes]) -> list[float]:
    with httpx2.Client(base_url=target.address, trust_env=False, timeout=600) as http:
        return [first_token(http, target.body(QUESTIONS[0], one)) for one in pictures]


def _write(section: str, name: str, figures: Figures) -> None:
    kept.store(RESULTS, section, name, figures=figures, targets=TARGETS)
    serve_table.write(RESULTS, PAGE)
    print(name, section, json.dumps(figures))


def _measure(server: AbstractContextManager[Target], sections: Sequence[str], name: str, row: str) -> None:
    with server as target:
        for section in sections:
            _write(section, row, SECTIONS[section](target, name))


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="SECTION... MODEL=DIR...")
@click.option("--peers-work", type=click.Path(path_type=Path, file_okay=False), help="Where llama.cpp was prepared.")
@click.option("--row", "rows", multiple=True, metavar="NAME", help="Only these rows of llama.cpp, as Q8_0.")
def main(words: tuple[str, ...], peers_work: Path | None, rows: tuple[str, ...]) -> None:
    """Measure SECTIONs (clients, questions, second, hang_ups) with each bundle, and write them down."""
    sections = [word for word in words if "=" not in word]
    for given in (word for word in words if "=" in word):
        name, _, folder = given.partition("=")
        _measure(servers.edgevlm(Path(folder)), sections, name, name)
        if peers_work is None:
            continue
        room = Room(peers_work.resolve(), name)
        for _, variant, versions in state.ready_rows(room, (llama_cpp.NAME,)):
            if rows and variant.name not in rows:
                continue
            shared = [one for one in sections if one in OF_PEERS]
            row = f"{name}, llama-server {variant.name} ({versions['llama.cpp']})"
            _measure(servers.llama_server(room, variant, processor().physical_cores), shared, name, row)


if __name__ == "__main__":
    main()
