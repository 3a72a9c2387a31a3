"""Pictures of a request, as bytes: out of a `data:` URI, a file below the one folder that is allowed, or an address.

Nothing is decoded here: the runtime's own loader does that, with its limits.
"""

from __future__ import annotations

import asyncio
import binascii
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgevlm.serve.pictures.fetching import PORTS, Fetcher
from edgevlm.serve.refusals import bad
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import read_bytes

DATA, FILE = "data:", "file:"
MOST_PICTURES = 16
"""In one request."""
BAD = "invalid_image_url"


class Pictures:
    """Brings the pictures that clients name."""

    def __init__(self, folder: Path | None, fetcher: Fetcher | None, most_bytes: int) -> None:
        """`folder`: whose files clients may name; `fetcher`: for addresses; None allows none. Raises `EdgeVLMError`
        for a folder that is none."""
        if folder is not None and not folder.is_dir():
            raise EdgeVLMError(f"no such folder: {folder}: give one whose pictures clients may name")
        self._folder = None if folder is None else folder.resolve()
        self._fetcher, self._most = fetcher, most_bytes

    async def get(self, url: str) -> bytes:
        """The picture's bytes. Raises `Refusal` (400)."""
        if url[: len(DATA)].lower() == DATA:
            return _inline(url)
        scheme = url.partition(":")[0].lower()
        if scheme in PORTS and "://" in url:
            if self._fetcher is None:
                raise bad("addresses are not allowed here: send the picture as a data: URI", "messages", BAD)
            return await self._fetcher.get(url)
        return await asyncio.to_thread(self._file, url)

    def _file(self, url: str) -> bytes:
        if self._folder is None:
            raise bad("files are not allowed here: send the picture as a data: URI", "messages", BAD)
        nowhere = bad("no such picture below the folder that is allowed", "messages", BAD)
        try:
            path = (self._folder / _path(url)).resolve(strict=True)
            if not path.is_relative_to(self._folder):
                raise nowhere
            return read_bytes(path, self._most)
        except (OSError, ValueError, RuntimeError):  # a loop of links, a zero byte
            raise nowhere from None


def _path(url: str) -> str:
    """Of `file:` addresses of this machine, and of plain paths."""
    if url[: len(FILE)].lower() != FILE:
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(url)
    return unquote(parts.path)


def _inline(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise bad("a data: URI must be data:image/...;base64,DATA", "messages", BAD)
    try:
        return binascii.a2b_base64(unquote(data) if "%" in data else data, strict_mode=True)
    except ValueError as error:
        raise bad(f"the picture's base64 is damaged: {error}", "messages", "invalid_base64") from error
