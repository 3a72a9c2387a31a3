"""A web server of the standard library that receives records, and misbehaves as it is told."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self


@dataclass
class Hook:
    """What it answers next, and what it has received."""

    answers: deque[int | str] = field(default_factory=deque)
    """A status, or "hang" or "close"; 200 when there is none left."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with statuses that are not 200."""
    received: list[tuple[dict[str, str], bytes, int | str, float]] = field(default_factory=list)
    """Headers, body, what was answered, and when by a clock that does not jump."""
    port: int = 0
    certificate: tuple[Path, Path] | None = None
    """With its key: it speaks TLS."""

    def __enter__(self) -> Self:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = hook.answers.popleft() if hook.answers else 200
                hook.received.append((dict(self.headers), body, answer, time.monotonic()))
                if answer == "hang":
                    hook.ended.wait(30)
                if isinstance(answer, str):
                    self.close_connection = True
                    return
                self.send_response(answer)
                for name, value in hook.headers.items() if answer != 200 else ():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def delivered(self) -> list[bytes]:
        """Bodies that were answered 200."""
        return [body for _, body, answer, _ in self.received if answer == 200]
