"""What a client sends, within a size and a time; and whether it is still there."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import ClientDisconnect, Request

from edgevlm.serve.refusals import Refusal

SECONDS = 60.0
"""For a whole body."""
DRAIN_S = 2.0
"""For the rest of one that is refused: a client that is still sending may not look for an answer."""


async def read(request: Request, most: int) -> bytearray:
    """The body. Raises `Refusal` (413, 408) and Starlette's `ClientDisconnect`."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        await drain(request)
        raise _large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    break
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {SECONDS:g} s", "timeout") from None
    if len(body) > most:
        await drain(request)
        raise _large(most)
    return body


async def drain(request: Request) -> None:
    """Let what is still coming come, for a moment."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAIN_S):
            while (message := await request.receive())["type"] == "http.request" and message.get("more_body"):
                pass


async def gone(request: Request) -> None:
    """Returns when the client has hung up. For requests whose body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most / 1e6:g} MB: send smaller pictures", "too_large")
