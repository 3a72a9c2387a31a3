"""Who may ask: whoever has the token, or, without one, whoever sits at this machine.

A browser on this machine also shows other people's pages: without a token, requests whose `Host` is not this machine
(DNS rebinding) are refused, and so is whatever has another site's `Origin`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edgevlm.web.loopback import is_loopback

OPEN = ("/health", "/ready")
"""What a supervisor asks without a token: it tells nothing but yes or no."""
COOKIE = "edgevlm"
"""Begins its name; the port follows, for a browser gives a cookie to every port of a host."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """ASGI middleware: 401 without the token, 403 for another site's request; and headers that every answer has."""

    def __init__(
        self,
        app: ASGIApp,
        token: str | Sequence[str] | None,
        refuse: Callable[[int, str], Response] | None = None,
    ) -> None:
        """`token`: the one, or several that are as good; `refuse`: makes the answer of a status and a reason."""
        self._app = app
        self._tokens = (token,) if isinstance(token, str) else tuple(token or ())
        self._refuse = refuse or _plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers")
                message["headers"] = [*(given if isinstance(given, (list, tuple)) else ()), *HEADERS]
            await send(message)

        refusal = None if scope["path"] in OPEN else self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)  # type: ignore[arg-type]

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = urlsplit(f"//{headers.get('host', '')}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host.netloc:
            return self._refuse(403, "another site's request")
        if not self._tokens:
            here = is_loopback(host.hostname or "")
            return None if here else self._refuse(403, "ask for it by this machine's own address")
        query = parse_qs(scope["query_string"].decode("latin-1"))
        shown = query.pop("token", [""])[-1]
        if self._is_token(shown) and scope["method"] == "GET":
            return self._let_in(_name(headers), shown, scope["path"], urlencode(query, doseq=True))
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else _cookie(headers.get("cookie", ""), _name(headers))
        if self._is_token(given):
            return None
        return self._refuse(401, "a token is needed: open /?token=TOKEN, or send it as a bearer token")

    def _is_token(self, given: str) -> bool:
        data = given.encode(errors="replace")
        return sum(hmac.compare_digest(data, token.encode()) for token in self._tokens) > 0  # all, whichever it is

    def _let_in(self, cookie: str, token: str, path: str, query: str) -> Response:
        """The token leaves the address, where it would stay in histories, and goes into a cookie."""
        answer = RedirectResponse(f"/{path.lstrip('/')}{'?' if query else ''}{query}", 303)
        answer.set_cookie(cookie, token, httponly=True, samesite="strict")
        return answer


def _plain(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status)


def _name(headers: Mapping[str, str]) -> str:
    """Of the cookie, by the port that the browser asked."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}-{port}" if re.fullmatch("[0-9]{1,5}", port) else COOKIE


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
