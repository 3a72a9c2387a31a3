"""URLs of a plan: checked, and shown without what is secret in them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from edgevlm_runtime.options import need

HIDDEN = "..."


def check_url(name: str, url: str, schemes: tuple[str, ...] = ("http", "https")) -> None:
    """Raise `EdgeVLMError` for what is no such URL."""
    wanted = f"a URL such as {schemes[0]}://host:port/path"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    need(sound and url.isprintable() and " " not in url, name, shown(url), wanted)


def shown(url: str) -> str:
    """An address to be read by anybody: without user, password and query, nor parts of a path like user=me&password=it,
    as some cameras have them."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    path = "/".join(HIDDEN if "=" in part or "@" in part else part for part in parts.path.split("/"))
    return urlunsplit((parts.scheme, host, path, "", "")) + ("?" + HIDDEN if parts.query else "")


def without_path(url: str) -> str:
    """The machine alone: an address that verdicts are posted to is often a secret of its own."""
    whole = shown(url)
    scheme, separator, rest = whole.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host}" + (f"{slash}{HIDDEN}" if path else "") if separator else whole
