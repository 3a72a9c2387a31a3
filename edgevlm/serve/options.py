"""How a server is set up. Bad values raise `EdgeVLMError` when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

MEGABYTE = 1_000_000
MAX_PIXELS = 32_000_000
"""Of a client's picture: 8K has 33 million. Decoded it takes 128 MB, twice while it is converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What `edgevlm serve` is told."""

    bundles: tuple[Path, ...]
    """Each is served by the name of its folder."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes a free one."""
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """API keys: each lets in. Without any, only this machine is answered."""
    contexts: int = 4
    """KV caches of each bundle, kept between requests."""
    waiting: int = 16
    """Requests that wait for each bundle, at most."""
    parallel: int = 1
    """Answers of each bundle made at once."""
    allow_files: Path | None = None
    """The folder whose pictures clients may name; None: no files."""
    allow_urls: bool = False
    """Whether clients may name pictures at addresses of the public internet."""
    max_body: float = 16.0
    """Megabytes of a request, and of a picture that is named."""

    def __post_init__(self) -> None:
        need(len(self.bundles) > 0, "bundles", self.bundles, "one at least")
        for name in ("contexts", "waiting", "parallel"):
            need(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        need(self.max_body > 0, "max_body", self.max_body, "a number of megabytes above 0")
        for token in self.tokens:
            plain = token.isascii() and token.isprintable() and " " not in token and len(token) > 0
            need(plain, "token", "...", "letters, digits and signs of ASCII, without spaces")
        names = [name_of(one) for one in self.bundles]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise EdgeVLMError(f"two bundles are named {twice}: rename one of the folders")

    @property
    def most_bytes(self) -> int:
        """`max_body` in bytes."""
        return int(self.max_body * MEGABYTE)


def name_of(bundle: Path) -> str:
    """A bundle's name as a model: its folder's."""
    return bundle.resolve().name
