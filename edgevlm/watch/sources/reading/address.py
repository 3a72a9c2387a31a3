"""Addresses of cameras: with the user and password where they are opened, without them wherever somebody reads them."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from edgevlm.watch.links.urls import shown
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need


def need_url(name: str, url: object, schemes: tuple[str, ...]) -> None:
    """Raise `EdgeVLMError` for what is no address with one of `schemes` and a host; its password is not told."""
    wanted = f"an address that begins with {' or '.join(f'{one}://' for one in schemes)}"
    need(isinstance(url, str), name, url, wanted)
    try:
        parts = urlsplit(str(url))
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and str(url).isprintable()
    except ValueError:
        sound = False
    if not sound:
        raise EdgeVLMError(f"bad value for {name}: {shown(str(url))}: it must be {wanted}")


def credentials(url: str, user: str, password: str) -> tuple[str, str]:
    """User and password: those given, else those in the address."""
    if user or password:
        return user, password
    parts = urlsplit(url)
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_credentials(url: str) -> str:
    """The address without user and password, all else kept: what is opened where they are sent another way."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def with_credentials(url: str, user: str, password: str) -> str:
    """The address with these in it, or as it is where there are none."""
    if not user and not password:
        return url
    parts = urlsplit(without_credentials(url))
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))
