"""An HTTP server in a thread of its own: uvicorn."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

from edgevlm.web.loopback import is_loopback
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import why

STOP_S = 3.0


class Server:
    """Serves an ASGI application from `start` to `stop`."""

    def __init__(self, application: Any, what: str, host: str, port: int, token: str | None) -> None:
        """`what` it is, for errors; port 0 takes a free one. Raises `EdgeVLMError` for a host that others reach,
        without a token."""
        if not token and not is_loopback(host):
            raise EdgeVLMError(f"{what} on {host} would be open to everybody: give it a token, or host 127.0.0.1")
        self._what, self._host, self._port = what, host, port
        # Open connections are closed at the end, not waited for.
        config = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; returns the address. Raises `EdgeVLMError` for a port that is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listening = socket.create_server((self._host, self._port), family=family)
        except (OSError, OverflowError) as error:
            said = why(error) if isinstance(error, OSError) else str(error)
            raise EdgeVLMError(
                f"{self._what} cannot listen on {self._host}:{self._port}: {said}: choose another port"
            ) from error
        # Connections have it of the listening socket: asyncio gives it only to sockets that name their protocol.
        # Without it an answer's second packet waits 40 ms for the receipt of the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name=self._what, daemon=True
        )
        self._thread.start()
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/"

    def stop(self) -> None:
        """End; may be called twice, and without `start`."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S)
