"""What the words of a quick start stand for: a source by its form, a trigger and a sink as KIND:VALUE.

    rtsp://camera/1      http://camera/video    /dev/video0    line.mp4    parts/    parts/*.png
    interval:2           every:10               mqtt://broker/parts        http:8080    file:go.txt
    terminal             mqtt://broker          webhook:https://host/path  modbus:plc:502    pictures:kept/

The value is that of the kind's first option that has no default, else of its first option.
"""

from __future__ import annotations

import dataclasses
import glob
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from edgevlm.installed import installed
from edgevlm.watch.plan.secrets import without_user
from edgevlm.watch.sources import SOURCES
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import shown
from edgevlm_runtime.registry import Registry

Table = dict[str, Any]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
"""Endings of files that are one picture; any other file is taken for a video."""
TRIGGER, SINK = "--trigger", "--sink"
"""Flags whose words `part` reads."""
ANSWER_S = 5.0
"""Seconds in which a camera must say what it sends."""
_NUMBERS: dict[Any, Callable[[str], Any]] = {int: int, float: float}


def source(words: Sequence[str], kind: str | None = None) -> Table:
    """The table [source] for the words after the bundle; `kind` where the user says it. Raises `EdgeVLMError`."""
    if len(words) > 1:
        strangers = [word for word in words if source_kind(word) != "pictures"]
        if strangers:
            raise EdgeVLMError(f"several sources: {', '.join(map(_shown, words[:2]))}: give one, or only picture files")
    kind = kind or source_kind(words[0])
    if kind not in SOURCES:
        SOURCES.get(kind)  # which says what there is
    found = {"kind": kind, **_value(SOURCES, kind, _files(words) if kind == "pictures" else words[0])}
    return {**found, "existing": True} if kind == "folder" else found


def source_kind(word: str) -> str:
    """Which kind of source a word means. An http address is asked what it sends. Raises `EdgeVLMError`."""
    scheme, separator, _ = word.partition("://")
    if separator:
        return _scheme_kind(scheme.lower(), word)
    path = Path(word)
    if _is_pattern(word):
        return "pictures"
    if word.startswith("/dev/"):
        return "v4l2"
    if not _is_there(path):
        known = "give a file, a folder, /dev/videoN, or an rtsp:// or http:// address"
        raise EdgeVLMError(f"no such source: {_shown(word)}: {known}")
    if path.is_dir():
        return "folder"
    return "pictures" if path.suffix.lower() in PICTURES else "video"


def _scheme_kind(scheme: str, address: str) -> str:
    if scheme in ("rtsp", "rtsps"):
        return "rtsp"
    if scheme in ("http", "https"):
        return _what_it_sends(address)
    raise EdgeVLMError(f"unknown kind of address: {_shown(address)}: known are rtsp://, rtsps://, http://, https://")


def _what_it_sends(address: str) -> str:
    """ "snapshot" for an address that answers with one picture, else "http". Raises `EdgeVLMError`."""
    with installed("camera"):
        import httpx2

    try:
        with httpx2.stream("GET", address, timeout=ANSWER_S, follow_redirects=True) as answer:
            answer.raise_for_status()
            sent = answer.headers.get("content-type", "")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise EdgeVLMError(
            f"{_shown(address)} does not say what it sends: {without_user(reason(error))}: "
            "say it with --source http (a stream) or --source snapshot (one picture a request)"
        ) from error
    return "snapshot" if sent.lower().startswith("image/") else "http"


def _is_there(path: Path) -> bool:
    """Whether there is something of this name, which may be one that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_pattern(word: str) -> bool:
    return glob.has_magic(word) and not _is_there(Path(word))


def _shown(word: str) -> str:
    """What the user wrote, on one line and without passwords."""
    return shown(without_user(word))


def _files(words: Sequence[str]) -> list[str]:
    found: list[str] = []
    for word in words:
        matching = sorted(glob.glob(word)) if _is_pattern(word) else [word]  # noqa: PTH207 -- it may be absolute
        if not matching:
            raise EdgeVLMError(f"no file is called {_shown(word)}")
        found += matching
    return found


def part(registry: Registry, word: str, option: str) -> Table:
    """The table of a trigger or sink for KIND, KIND:VALUE, or KIND://ADDRESS; `option` is which flag it came with.

    Raises `EdgeVLMError`.
    """
    kind, separator, value = word.partition(":")
    kind = {"mqtts": "mqtt"}.get(kind, kind)
    try:
        registry.get(kind)
    except EdgeVLMError as error:
        raise EdgeVLMError(f"{option}: {error}") from None
    if not separator:
        return {"kind": kind}
    if kind in _ADDRESSES:
        return {"kind": kind, **_ADDRESSES[kind](word, option)}
    try:
        return {"kind": kind, **_value(registry, kind, value)}
    except ValueError:
        raise EdgeVLMError(f"{option}: {value!r} is not a number: write {kind}:NUMBER") from None


def _value(registry: Registry, kind: str, value: str | list[str]) -> Table:
    """The one option that a word gives. Raises `ValueError` for what is no number where one is wanted."""
    options: Any = registry.get(kind).Options
    required = dataclasses.MISSING
    fields = dataclasses.fields(options)
    needed = [one.name for one in fields if one.default is required and one.default_factory is required]
    key = (needed or [one.name for one in fields])[0]
    number = _NUMBERS.get(typing.get_type_hints(options)[key])
    return {key: number(value) if number and isinstance(value, str) else value}


def _address(word: str, option: str) -> tuple[SplitResult, Table]:
    """An address in its parts, and the options of its host."""
    try:
        parts = urlsplit(word if "://" in word else word.replace(":", "://", 1))
        table: Table = {"host": parts.hostname or "", "port": parts.port}
    except ValueError as error:
        raise EdgeVLMError(f"{option}: {_shown(word)} is no address: {reason(error)}") from None
    if not table["host"]:
        raise EdgeVLMError(f"{option}: there is no host in {_shown(word)}: write {parts.scheme}://HOST")
    return parts, {key: value for key, value in table.items() if value is not None}


def _mqtt(word: str, option: str) -> Table:
    """mqtt://user:password@host:port/topic; mqtts:// for TLS."""
    parts, table = _address(word, option)
    if parts.username:
        table |= {"user": unquote(parts.username), "password": unquote(parts.password or "")}
    if parts.scheme == "mqtts":
        table["tls"] = True
    if topic := parts.path.strip("/"):
        table["topic" if option == TRIGGER else "prefix"] = unquote(topic)
    return table


def _modbus(word: str, option: str) -> Table:
    """modbus:host:port, and for a trigger /coil after it."""
    parts, table = _address(word, option)
    coil = parts.path.strip("/")
    if option != TRIGGER and not coil:
        return table
    if option != TRIGGER or not coil.isdecimal():
        form = "modbus://HOST:PORT/COIL" if option == TRIGGER else "modbus:HOST:PORT"
        raise EdgeVLMError(f"{option}: {_shown(word)}: write {form}")
    return {**table, "coil": int(coil)}


def _opcua(word: str, option: str) -> Table:
    """opcua:opc.tcp://host:port#ns=2;s=Verdict."""
    url, _, node = word.partition(":")[2].partition("#")
    if not node:
        raise EdgeVLMError(f"{option}: {_shown(word)}: which variable is missing: write opcua:URL#NODE")
    return {"url": url, "verdict_node": node}


_ADDRESSES: dict[str, Callable[[str, str], Table]] = {"mqtt": _mqtt, "modbus": _modbus, "opcua": _opcua}
