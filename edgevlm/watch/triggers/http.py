"""POST /trigger asks for a verdict; the body, or ?text=, is the part's number.

    curl -d 'part 48112' http://127.0.0.1:8751/trigger
    curl -X POST -H 'Authorization: Bearer TOKEN' 'http://line-1:8751/trigger?text=part%2048112'

202: taken; 503: too many wait already. The verdict goes to the sinks.
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edgevlm.watch.status import Status
from edgevlm.watch.triggers.waiting import Asked, Waiting
from edgevlm.web.loopback import is_loopback
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import need

log = logging.getLogger(__name__)

PATH = "/trigger"
LONGEST_BODY = 4096
MOST_CONNECTIONS = 16
LONGEST_EXCHANGE_S = 10.0
"""From a connection to its end, however slowly the other side speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where to listen."""

    port: int = 8751
    host: str = "127.0.0.1"
    """The address that is listened on; one that others reach asks for a token."""
    token: str | None = field(default=None, repr=False)
    """Expected as `Authorization: Bearer TOKEN`."""

    def __post_init__(self) -> None:
        need(0 <= self.port < 65536, "port", self.port, "from 1 to 65535, or 0 for any that is free")
        sound = self.token is None or (len(self.token) >= 8 and self.token.isascii() and self.token.isprintable())
        need(sound, "token", "...", "8 or more printable ASCII characters")
        need(self.token is not None or is_loopback(self.host), "host", self.host, "loopback, or given with a token")


class HttpTrigger(Asked):
    """A small server in a thread of its own."""

    def __init__(self, options: Options, status: Status) -> None:
        self._options = options
        self._waiting = Waiting("http", status)
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once it has started."""
        return self._options.port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises `EdgeVLMError` when the port is taken."""
        if self._server is not None:
            return
        host, port = self._options.host, self._options.port
        try:
            self._server = _Server((host, port), self._waiting, self._options.token)
        except OSError as error:
            raise EdgeVLMError(f"cannot listen on {host}:{port}: {reason(error)}: choose another port") from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http-trigger", daemon=True).start()

    def close(self) -> None:
        """Stop listening; requests under way are cut off."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        self._waiting.close()


def make_trigger(options: Options, status: Status) -> HttpTrigger:
    """The trigger; nothing is touched yet."""
    return HttpTrigger(options, status)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], waiting: Waiting, token: str | None) -> None:
        self.waiting, self.token = waiting, token
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, where there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In that thread: cut it off when it takes too long."""
        cut = threading.Timer(LONGEST_EXCHANGE_S, _cut_off, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are nobody's business."""
        log.debug("a request from %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "edgevlm", ""
    timeout = LONGEST_EXCHANGE_S

    def do_POST(self) -> None:
        """The one thing that can be asked for."""
        refused = self._refusal()
        if refused is not None:
            self._answer(refused)
            return
        text = self._text()
        if text is None:
            self._answer(HTTPStatus.BAD_REQUEST)
        elif self.server.waiting.put(text):
            self._answer(HTTPStatus.ACCEPTED)
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)

    def do_GET(self) -> None:
        """Nothing is to be read here."""
        known = urlsplit(self.path).path == PATH
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND)

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815 -- as the base class calls them

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Requests go to the log of this module alone, without their query."""
        log.debug("%s %s", self.command, urlsplit(getattr(self, "path", "")).path)

    def _refusal(self) -> HTTPStatus | None:
        """Why this request is not taken; before its body is read."""
        token = self.server.token
        if token is not None:
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                return HTTPStatus.UNAUTHORIZED
        elif self.headers.get("Origin") is not None:
            return HTTPStatus.FORBIDDEN  # a page in a browser on this machine
        if urlsplit(self.path).path != PATH:
            return HTTPStatus.NOT_FOUND
        if self.headers.get("Transfer-Encoding") is not None:
            return HTTPStatus.LENGTH_REQUIRED
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            return HTTPStatus.BAD_REQUEST
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if len(length) > 9 or int(length) > LONGEST_BODY else None

    def _text(self) -> str | None:
        """The part's number; None where a body was announced and does not come, or is no text."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            return None
        try:
            query = parse_qs(urlsplit(self.path).query, max_num_fields=16, errors="strict")
            return query["text"][0] if "text" in query else body.decode("utf-8")
        except ValueError:
            return None

    def _answer(self, status: HTTPStatus) -> None:
        body = f"{status.phrase}\n".encode()
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _cut_off(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a slow connection had ended already")
