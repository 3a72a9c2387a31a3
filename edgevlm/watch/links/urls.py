"""URLs of a plan: checked, and shown without who logs in."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from edgevlm_runtime.options import need


def check_url(name: str, url: str, schemes: tuple[str, ...] = ("http", "https")) -> None:
    """Raise `EdgeVLMError` for what is no such URL."""
    wanted = f"a URL such as {schemes[0]}://host:port/path"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    need(sound and url.isprintable() and " " not in url, name, without_user(url), wanted)


def without_user(url: str) -> str:
    """The URL without user and password; what cannot be read as one becomes "..." where it may have them."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "..." if "@" in url else url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
