"""The page's server: uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import threading

import uvicorn

from edgevlm.watch.page.app import application
from edgevlm.watch.page.board import Board
from edgevlm.watch.page.guard import is_loopback
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import why

STOP_S = 3.0


class PageServer:
    """Serves a board from `start` to `stop`."""

    def __init__(self, board: Board, host: str, port: int, token: str | None) -> None:
        """Raises `EdgeVLMError` for a host that others reach, without a token."""
        if token is None and not is_loopback(host):
            raise EdgeVLMError(f"the page on {host} would be open to everybody: give it a token, or host 127.0.0.1")
        self._host, self._port = host, port
        # Open pages keep their connections: at the end they are closed, not waited for.
        config = uvicorn.Config(
            application(board, token), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; returns the page's address, without its token. Raises `EdgeVLMError` for a port that is taken."""
        try:
            listening = socket.create_server(
                (self._host, self._port), family=socket.AF_INET6 if ":" in self._host else socket.AF_INET
            )
        except (OSError, OverflowError) as error:
            what = why(error) if isinstance(error, OSError) else str(error)
            raise EdgeVLMError(f"no page on {self._host}:{self._port}: {what}: choose another port") from error
        port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="page", daemon=True
        )
        self._thread.start()
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/"

    def stop(self) -> None:
        """End; may be called twice, and without `start`."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S)
