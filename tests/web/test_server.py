"""The server in a thread of its own."""

from __future__ import annotations

import socket

import httpx2
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from edgevlm.web.server import Server


def test_answers_do_not_wait_for_receipts() -> None:
    """Head and body are two packets; with Nagle's algorithm the second waits until the first is acknowledged."""
    seen: list[int] = []
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here\n"))])
    server = Server(app, "a test", "127.0.0.1", 0, None)
    with httpx2.Client(base_url=server.start(), trust_env=False, timeout=60) as client:
        assert client.get("/").text == "here\n"
        for connection in server._server.server_state.connections:  # kept alive
            accepted = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]
            seen.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    server.stop()
    assert len(seen) == 1
    assert all(seen)
