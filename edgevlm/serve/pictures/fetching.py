"""Pictures at addresses that clients name: public ones alone, within a size and a time, never sent on to another.

A name is resolved once, every address it has is checked, and one of those is connected to: what a name server says a
moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import httpx2

from edgevlm.serve.refusals import Refusal, bad

SECONDS = 10.0
"""For a whole picture, from its name to its last byte."""
PORTS = {"http": 80, "https": 443}
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""NAT64: IPv6 addresses that stand for IPv4 ones."""
Address = IPv4Address | IPv6Address


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the internet: not this machine, its network, or anything that stands for those."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Fetcher:
    """Brings pictures."""

    def __init__(
        self, most_bytes: int, seconds: float = SECONDS, allowed: Callable[[Address], bool] = is_public
    ) -> None:
        """`allowed`: which addresses may be connected to."""
        self._most, self._seconds, self._allowed = most_bytes, seconds, allowed

    async def get(self, url: str) -> bytes:
        """The picture's bytes. Raises `Refusal` (400)."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(url)
        except TimeoutError:
            raise _failed(f"no whole picture in {self._seconds:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, UnicodeError) as error:
            raise _failed(type(error).__name__) from error

    async def _get(self, url: str) -> bytes:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        except ValueError:
            raise _failed("not an address") from None
        if not host or parts.username is not None or not url.isprintable() or " " in url:
            raise _failed("not an address of the form https://HOST/PATH")
        address = await self._resolved(host, port)
        shown = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        target = httpx2.URL(url).copy_with(host=shown.strip("[]"), fragment=None)
        named = f"[{host}]" if ":" in host else host.encode("idna").decode()
        headers = {"Host": named if parts.port is None else f"{named}:{port}", "Accept": "image/*"}
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=self._seconds) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": named}) as answer,
        ):
            return await self._body(answer)

    async def _body(self, answer: httpx2.Response) -> bytes:
        if answer.is_redirect:
            raise _failed("it sends to another address: give that one")
        if answer.status_code != 200:
            raise _failed(f"it answers {answer.status_code}")
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > self._most:
                raise _failed(f"it is larger than {self._most} bytes")
        return bytes(body)

    async def _resolved(self, host: str, port: int) -> Address:
        """An address of `host`, all of which are allowed."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [ip_address(one[4][0]) for one in found]
        except (OSError, ValueError, UnicodeError):
            raise _failed("its host is not known") from None
        if not addresses or not all(self._allowed(one) for one in addresses):
            raise _failed("its host is not on the public internet")
        return addresses[0]


def _failed(why: str) -> Refusal:
    return bad(f"the picture at the address cannot be fetched: {why}", "messages", "invalid_image_url")
