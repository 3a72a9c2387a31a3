"""Clients that hang up, lines that are full, turns that are taken: with a model whose tokens come when a test says."""

from __future__ import annotations

import concurrent.futures
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import psutil
import pytest
from PIL import Image

from edgevlm_runtime import VLM
from tests.support.chatting import Gate, client, server, user, waiting
from tests.support.polling import LONG, until

Picture = Callable[[int], Image.Image]
HELLO = [{"role": "user", "content": "hello"}]
STEPS = 100


def send(address: str, key: str = "", **fields: Any) -> socket.socket:
    """A request whose answer nobody has read yet."""
    place = urlsplit(address)
    data = json.dumps({"model": "tiny", "messages": HELLO, "max_tokens": STEPS, **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(data)}\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=LONG)
    connection.sendall(head.encode() + b"\r\n" + data)
    return connection


def status(connection: socket.socket) -> int:
    return int(connection.recv(1 << 16).split(b" ")[1])


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place_within_a_token(tiny: Path, gate: Gate, stream: bool) -> None:
    with server(tiny, waiting=1) as (address, state):
        first = send(address, stream=stream)
        waiting(state, 1, 0)
        second = send(address)
        waiting(state, 1, 1)
        gate.let(3)
        until(lambda: gate.passed == 3, "three tokens")
        first.close()
        until(lambda: b"edgevlm_serve_hang_ups_total{" in state.metrics.text(), "the server has noticed")
        gate.let(1)  # the token being computed
        waiting(state, 1, 0)  # and the second has its turn
        gate.open()
        assert status(second) == 200
        assert gate.passed <= 4 + STEPS
        second.close()


def test_a_client_that_waits_and_hangs_up_leaves_the_line_at_once(tiny: Path, gate: Gate) -> None:
    with server(tiny, waiting=1) as (address, state):
        first = send(address)
        waiting(state, 1, 0)
        second = send(address)
        waiting(state, 1, 1)
        second.close()
        waiting(state, 1, 0)
        third = send(address)
        waiting(state, 1, 1)
        gate.open()
        assert [status(first), status(third)] == [200, 200]
        first.close()
        third.close()


def test_a_full_line_says_so(tiny: Path, gate: Gate) -> None:
    with server(tiny, waiting=2) as (address, state), client(address) as asking:
        first = send(address)
        waiting(state, 1, 0)
        others = [send(address) for _ in range(2)]
        waiting(state, 1, 2)
        with pytest.raises(openai.RateLimitError) as caught:
            asking.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        gate.open()
        assert [status(one) for one in (first, *others)] == [200] * 3
        for one in (first, *others):
            one.close()
        assert asking.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)  # type: ignore[arg-type]


def test_clients_take_turns(tiny: Path, gate: Gate) -> None:
    """One client's six requests came first; another's two are the second and fourth to be answered after that."""
    order: list[str] = []
    with server(tiny, waiting=7, tokens=("greedy", "modest")) as (address, state):
        connections = [("greedy", send(address, "greedy", max_tokens=2))]
        waiting(state, 1, 0)
        for number, key in enumerate(["greedy"] * 5 + ["modest"] * 2, 1):
            connections.append((key, send(address, key, max_tokens=2)))
            waiting(state, 1, number)

        def answered(key: str, connection: socket.socket) -> None:
            assert status(connection) == 200
            order.append(key)

        readers = [threading.Thread(target=answered, args=one) for one in connections]
        for reader in readers:
            reader.start()
        for number in range(1, len(readers) + 1):
            gate.let(1)  # the first of two tokens; the last is not fed back
            until(lambda number=number: len(order) == number, "the next answer")  # type: ignore[misc]
        for reader in readers:
            reader.join(LONG)
        for _, connection in connections:
            connection.close()
    assert order == ["greedy", "greedy", "modest", "greedy", "modest", "greedy", "greedy", "greedy"]


def test_who_has_most_waiting_makes_room(tiny: Path, gate: Gate) -> None:
    with server(tiny, waiting=3, tokens=("greedy", "modest")) as (address, state):
        mine = [send(address, "greedy")]
        waiting(state, 1, 0)
        for number in range(1, 4):
            mine.append(send(address, "greedy"))
            waiting(state, 1, number)
        other = send(address, "modest")
        assert status(mine[3]) == 429
        gate.open()
        assert [status(one) for one in (*mine[:3], other)] == [200] * 4
        for one in (*mine, other):
            one.close()


def test_a_server_that_stops_tells_who_waits(tiny: Path, gate: Gate) -> None:
    with server(tiny) as (address, state):
        first = send(address)
        waiting(state, 1, 0)
        second = send(address)
        waiting(state, 1, 1)
        state.models[0].close()
        assert status(second) == 503
        assert status(send(address)) == 503
        gate.open()
        assert status(first) == 200
        for one in (first, second):
            one.close()


def test_a_failure_is_one_requests(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(tiny) as (address, state), client(address) as asking:
        monkeypatch.setattr("edgevlm_runtime.asking.prompt_run.PromptRun._prefill", _fails)
        with pytest.raises(openai.InternalServerError) as caught:
            asking.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert "its log says why" in caught.value.message
        assert "secret" not in caught.value.message
        monkeypatch.undo()
        assert asking.chat.completions.create(model="tiny", messages=HELLO, max_tokens=3)  # type: ignore[arg-type]
        assert state.models[0].alive


def _fails(*_: Any) -> Any:
    raise ZeroDivisionError("secret")


REQUESTS, CLIENTS, PICTURES = 400, 8, 12
GROWTH = 20 << 20


def test_many_hang_ups_leave_nothing_behind(tiny: Path, vlm: VLM, picture: Picture) -> None:
    """Every answer is its own picture's, and memory does not grow."""
    wanted = {number: vlm.ask(picture(number), "what is it?", max_new_tokens=30).text for number in range(PICTURES)}
    assert len(set(wanted.values())) > PICTURES // 2
    messages = {number: [user("what is it?", picture(number))] for number in range(PICTURES)}
    with (
        server(tiny, contexts=3, waiting=2 * CLIENTS) as (address, state),
        httpx2.Client(base_url=address, timeout=LONG, trust_env=False) as http,
    ):

        def one(seed: int) -> bool | None:
            rng = random.Random(seed)
            number = rng.randrange(PICTURES)
            if rng.random() < 0.5:
                gone = send(address, messages=messages[number], max_tokens=30, stream=rng.random() < 0.5)
                time.sleep(rng.random() * 0.02)
                gone.close()
                return None
            body = {"model": "tiny", "messages": messages[number], "max_tokens": 30}
            answer = http.post("v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return bool(answer.json()["choices"][0]["message"]["content"] == wanted[number])

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(one, range(REQUESTS // 4)))  # what a server keeps is there by then
            before = psutil.Process().memory_info().rss
            right = [found for found in pool.map(one, range(1000, 1000 + REQUESTS)) if found is not None]
        waiting(state, 0, 0)
        assert psutil.Process().memory_info().rss - before < GROWTH
    assert len(right) > REQUESTS // 4
    assert all(right)
