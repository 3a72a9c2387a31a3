"""The page and what it asks for, as a Starlette application."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

import msgspec
import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from edgevlm.watch.page.board import Board
from edgevlm.watch.page.metrics import metrics
from edgevlm.watch.records.record import Record
from edgevlm.web.guard import Guard
from edgevlm.web.server import Server
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import known

VIEWERS = 16
"""Pages that may be open at once: each keeps a connection."""
SHOWN = 120
"""Records a page begins with."""
PAUSE_S = 0.15
"""How often an open page is looked after: the least time between two updates."""
QUIET_S = 10.0
"""Silence after which a page is told that the watch is alive."""
BODY = 4096
"""Bytes of a mark."""


class Mark(msgspec.Struct, forbid_unknown_fields=True):
    """What a person says of a record."""

    number: int
    right: str
    """The verdict that is right: the record's own, or another."""
    note: str = ""


def application(board: Board, token: str | None) -> Any:
    """The ASGI application. `token`: asked of every request but /health and /ready."""
    live = _Live(board)
    routes = [
        Route("/", live.page),
        Route("/frame.jpg", live.frame),
        Route("/events", live.events),
        Route("/api/state", live.state),
        Route("/api/marks", live.mark, methods=["POST"]),
        Route("/health", live.health),
        Route("/ready", live.ready),
        Route("/metrics", live.metrics),
    ]
    return Guard(Starlette(routes=routes), token)


class _Live:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._viewers = 0
        self._page = (files("edgevlm.watch.page") / "live.html").read_text(encoding="utf-8")

    async def page(self, _: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(self._page.replace("NONCE", nonce), headers={"content-security-policy": policy})

    async def frame(self, _: Request) -> Response:
        jpeg = await asyncio.to_thread(self._board.jpeg)
        if jpeg is None:
            return PlainTextResponse("no frame yet\n", 404)
        return Response(jpeg, media_type="image/jpeg")

    async def state(self, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not (after.isdecimal() and len(after) < 19):
            return PlainTextResponse("after: the number of a record\n", 400)
        return Response(self._state(self._board.records(int(after))), media_type="application/json")

    async def health(self, _: Request) -> Response:
        return _lamp(self._board.healthy, "healthy")

    async def ready(self, _: Request) -> Response:
        return _lamp(self._board.ready, "ready")

    async def metrics(self, _: Request) -> Response:
        return Response(metrics(self._board), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def events(self, request: Request) -> Response:
        if self._viewers >= VIEWERS:
            return PlainTextResponse(f"{VIEWERS} pages are open: close one\n", 503)
        return StreamingResponse(self._changes(request), media_type="text/event-stream")

    async def mark(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY:
                return PlainTextResponse("a mark is shorter\n", 413)
        try:
            given = msgspec.json.decode(body, type=known(Mark))
            await asyncio.to_thread(self._board.mark, given.number, given.right, given.note)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, EdgeVLMError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        return Response(status_code=204)

    async def _changes(self, request: Request) -> AsyncIterator[bytes]:
        """Server-sent events: the state at once, then whenever something has changed."""
        self._viewers += 1  # not before: what is never begun, since the page was gone by then, has no end either
        try:
            seen, last, quiet = -1, 0, 0.0
            while not await request.is_disconnected():
                changes = self._board.wait(seen, 0)
                if changes != seen or quiet >= QUIET_S:
                    records = self._board.records(last)
                    seen, last, quiet = changes, records[-1].number if records else last, 0.0
                    yield b"data: " + self._state(records) + b"\n\n"
                await asyncio.sleep(PAUSE_S)
                quiet += PAUSE_S
        finally:
            self._viewers -= 1

    def _state(self, records: Sequence[Record]) -> bytes:
        """The newest of `records`, counters, gauges, conditions, temperature, as JSON."""
        board = self._board
        seen = board.status.snapshot()
        return msgspec.json.encode(
            {
                "about": board.about,
                "healthy": board.healthy,
                "ready": board.ready,
                "records": records[-SHOWN:],
                "counters": seen.counters,
                "gauges": seen.gauges,
                "conditions": seen.conditions,
                "celsius": _celsius(),
            },
            enc_hook=str,  # paths of masks
        )


def _lamp(lit: bool, word: str) -> Response:
    return PlainTextResponse(f"{word}\n" if lit else f"not {word}\n", 200 if lit else 503)


def _celsius() -> float | None:
    """The hottest sensor, where the system tells."""
    read = getattr(psutil, "sensors_temperatures", None)
    try:
        found = [one.current for group in (read() if read else {}).values() for one in group]
    except (OSError, ValueError):
        return None
    return max(found, default=None)


def page_server(board: Board, host: str, port: int, token: str | None) -> Server:
    """The page's server, to be started. Raises `EdgeVLMError` for a host that others reach, without a token."""
    return Server(application(board, token), "the page", host, port, token)
