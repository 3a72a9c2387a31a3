"""What the page's server answers, over a real connection."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2 as httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from edgevlm.watch.page.app import VIEWERS, _Live, page_server
from edgevlm.web.loopback import is_loopback
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.boards import HandBoard, record

TOKEN = "s3cret"


@pytest.fixture
def board() -> HandBoard:
    return HandBoard()


@pytest.fixture
def client(board: HandBoard) -> Iterator[httpx.Client]:
    yield from _client(board, None)


@pytest.fixture
def locked(board: HandBoard) -> Iterator[httpx.Client]:
    yield from _client(board, TOKEN)


def _client(board: HandBoard, token: str | None) -> Iterator[httpx.Client]:
    server = page_server(board, "127.0.0.1", 0, token)
    with httpx.Client(base_url=server.start(), trust_env=False, timeout=30) as client:
        yield client
    server.stop()


def test_ready_and_healthy(client: httpx.Client, board: HandBoard) -> None:
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
    board.add(record(1), (1, 2, 3))
    board.status.raise_condition("records", "disk full", bad=True)
    assert client.get("/ready").status_code == 200
    assert client.get("/health").status_code == 503
    board.status.clear_condition("records")
    assert client.get("/health").status_code == 200


def test_the_frame(client: httpx.Client, board: HandBoard) -> None:
    assert client.get("/frame.jpg").status_code == 404
    board.add(record(1), (200, 10, 10))
    answer = client.get("/frame.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    red, _, _ = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((5, 5))
    assert red > 180


def test_state_has_the_records_after_one(client: httpx.Client, board: HandBoard) -> None:
    for number in range(1, 4):
        board.add(record(number), (0, 0, 0))
    state = client.get("/api/state", params={"after": 1}).json()
    assert [one["number"] for one in state["records"]] == [2, 3]
    assert state["about"]["name"] == "line <1>"
    for bad in ("-1", "x", "9" * 30):
        assert client.get("/api/state", params={"after": bad}).status_code == 400


def test_events_come_as_they_happen(client: httpx.Client, board: HandBoard) -> None:
    with client.stream("GET", "/events") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines)[6:])["records"] == []
        board.add(record(1, "reject"), (0, 0, 0))
        assert [one["verdict"] for one in json.loads(next(lines)[6:])["records"]] == ["reject"]
        board.add(record(2), (0, 0, 0))
        assert [one["number"] for one in json.loads(next(lines)[6:])["records"]] == [2]


def test_pages_that_were_closed_leave_their_place(client: httpx.Client) -> None:
    for _ in range(3):
        with ExitStack() as open_pages:
            for _ in range(VIEWERS):
                _open_page(client, open_pages)
            assert client.get("/events").status_code == 503


def test_pages_that_are_gone_before_they_begin_take_no_place(board: HandBoard) -> None:
    """A server may give a connection up before it asks for the first byte of its answer."""
    request = Request({"type": "http", "method": "GET", "path": "/events", "headers": []})
    live = _Live(board)
    answers = [asyncio.run(live.events(request)) for _ in range(2 * VIEWERS)]
    assert {answer.status_code for answer in answers} == {200}


def _open_page(client: httpx.Client, open_pages: ExitStack) -> None:
    """One more; one that was closed may take a moment to leave."""
    for _ in range(200):
        stream = client.stream("GET", "/events")
        if stream.__enter__().status_code == 200:
            open_pages.push(stream)
            return
        stream.__exit__(None, None, None)
        time.sleep(0.05)
    pytest.fail("closed pages keep their places")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"number": 7, "right": "accept"}', "no record 7"),
        ('{"number": 1, "right": "perfect"}', "no verdict"),
        ('{"number": "1", "right": "accept"}', "int"),
        ('{"right": "accept"}', "number"),
        ('{"number": 1, "right": "accept", "why": 1}', "unknown field"),
        ("[" * 4000, ""),
        ("\xff", ""),
        ("", ""),
    ],
)
def test_bad_marks_are_refused_in_one_line(client: httpx.Client, board: HandBoard, body: str, says: str) -> None:
    board.add(record(1), (0, 0, 0))
    answer = client.post("/api/marks", content=body.encode("latin-1"))
    assert answer.status_code == 400
    assert says in answer.text
    assert answer.text.count("\n") == 1
    assert board.marks == []


def test_a_huge_mark_is_not_read_to_its_end(client: httpx.Client) -> None:
    assert client.post("/api/marks", content=b"x" * 100_000).status_code == 413


def test_metrics_are_prometheus_text(client: httpx.Client, board: HandBoard) -> None:
    board.status.count("frames", 12)
    board.status.count("verdicts.reject", 3)
    board.status.count("verdicts.accept", 4)
    board.status.measure("latency_ms", 12.5)
    board.status.raise_condition("source", 'gone: "rtsp"', bad=True)
    families = {one.name: one for one in text_string_to_metric_families(client.get("/metrics").text)}
    assert families["edgevlm_watch_frames"].samples[0].value == 12
    by_word = {one.labels["kind"]: one.value for one in families["edgevlm_watch_verdicts"].samples}
    assert by_word == {"reject": 3, "accept": 4}
    assert families["edgevlm_watch_latency_ms"].samples[0].value == 12.5
    assert families["edgevlm_watch_condition"].samples[0].labels == {"name": "source", "bad": "true"}
    assert families["edgevlm_watch_healthy"].samples[0].value == 0


PLACES = ("/", "/frame.jpg", "/events", "/api/state", "/metrics")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", [{}, {"authorization": "Bearer wrong"}, {"cookie": f"edgevlm-1={TOKEN}"}])
def test_without_the_token_nothing_is_told(locked: httpx.Client, place: str, how: dict[str, str]) -> None:
    answer = locked.get(place, headers=how)
    assert answer.status_code == 401
    assert TOKEN not in answer.text


def test_a_mark_needs_the_token(locked: httpx.Client, board: HandBoard) -> None:
    board.add(record(1), (0, 0, 0))
    mark = {"number": 1, "right": "reject"}
    assert locked.post("/api/marks", json=mark).status_code == 401
    assert locked.post(f"/api/marks?token={TOKEN}", json=mark).status_code == 401  # an address is no place for it
    assert locked.post("/api/marks", json=mark, headers={"authorization": f"bearer {TOKEN}"}).status_code == 204
    assert board.marks == [(1, "reject", "")]


def test_with_the_token_all_is_told(locked: httpx.Client, board: HandBoard) -> None:
    board.add(record(1), (0, 0, 0))
    assert locked.get("/health").status_code == 200
    assert locked.get("/ready").status_code == 200
    first = locked.get(f"/?token={TOKEN}&x=1")
    assert first.status_code == 303
    assert first.headers["location"] == "/?x=1"
    for place in ("/", "/frame.jpg", "/api/state", "/metrics"):
        assert locked.get(place).status_code == 200  # by the cookie
    assert list(locked.cookies) == [f"edgevlm-{locked.base_url.port}"]  # of this port alone
    raw = http.client.HTTPConnection(locked.base_url.host, locked.base_url.port)
    raw.request("GET", f"//evil.example/?token={TOKEN}")
    assert raw.getresponse().headers["location"] == "/evil.example/"  # here, not there
    raw.close()


def test_other_sites_are_refused(client: httpx.Client, board: HandBoard) -> None:
    board.add(record(1), (0, 0, 0))
    mark = {"number": 1, "right": "reject"}
    assert client.post("/api/marks", json=mark, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/frame.jpg", headers={"host": "evil.example:8750"}).status_code == 403
    assert board.marks == []


def test_every_answer_forbids_what_is_not_needed(client: httpx.Client) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for place in ("/", "/health", "/nowhere"):
        headers = client.get(place).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_a_host_that_others_reach_needs_a_token(board: HandBoard) -> None:
    with pytest.raises(EdgeVLMError, match="give it a token"):
        page_server(board, "0.0.0.0", 0, None)


def test_a_port_that_is_taken_is_said(board: HandBoard) -> None:
    first = page_server(board, "127.0.0.1", 0, None)
    port = int(first.start().rstrip("/").rpartition(":")[2])
    with pytest.raises(EdgeVLMError, match=f"the page cannot listen on 127.0.0.1:{port}: Address already in use"):
        page_server(board, "127.0.0.1", port, None).start()
    first.stop()
    with pytest.raises(EdgeVLMError, match="choose another port"):
        page_server(board, "127.0.0.1", 99999, None).start()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "10.0.0.1", "localhost.evil.example", "::", "example"])
def test_not_this_machine(host: str) -> None:
    assert not is_loopback(host)
