"""Passwords, tokens and headers of a plan: taken from the environment where it says so, shown nowhere.

[[sink]]
kind = "mqtt"
password = {env = "MQTT_PASSWORD"}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgevlm.watch.plan.faults import Fault, Place
from edgevlm_runtime.options import shown

HIDDEN = "***"
LEAST = 3
"""Shorter secrets are hidden only where they stand in quotation marks: every "a" of a sentence tells nothing."""
_ENDINGS = ("password", "token", "authorization", "api-key")
"""Of keys; the last two are headers that a webhook may need."""
HEADERS = "headers"
"""The table within a table whose values may all be secret, whatever their names."""
_USER = re.compile(r"(?<=://)[^/@\s?#]*@")


def is_secret(name: str) -> bool:
    """Whether a key of this name, or an option, has a value that nobody may see."""
    return name.lower().endswith(_ENDINGS)


def from_environment(table: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """`table` with `{env = "NAME"}` of passwords, tokens and headers replaced.

    Raises `Fault` for a variable that is not set.
    """
    found = dict(table)
    for key, value in table.items():
        if is_secret(key) and isinstance(value, dict):
            found[key] = _variable(value, (*place, key))
        elif key == HEADERS and isinstance(value, dict):
            found[key] = {
                name: _variable(header, (*place, key, name)) if isinstance(header, dict) else header
                for name, header in value.items()
            }
    return found


def _variable(value: dict[str, Any], place: Place) -> str:
    name = value.get("env")
    if list(value) != ["env"] or not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise Fault(place, 'it must be text, or {env = "NAME"} to take it from an environment variable')
    text = os.environ.get(name, "")
    if not text:
        state = "empty" if name in os.environ else "not set"
        raise Fault(place, f"the environment variable {name} is {state}: export {name}=... before edgevlm starts")
    return text


def hide(text: str, table: Mapping[str, Any]) -> str:
    """`text`, an error's, without what is secret in `table`, and without users and passwords in addresses."""
    for secret in sorted(_secrets(table), key=len, reverse=True):
        written = shown(secret).removesuffix("...")
        text = text.replace(written, HIDDEN)
        if len(secret) >= LEAST:
            text = text.replace(written[1:-1], HIDDEN).replace(secret, HIDDEN)
    return without_user(text)


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if is_secret(key) and isinstance(value, str) and value:
            yield value
        elif key == HEADERS and isinstance(value, dict):
            yield from (header for header in value.values() if isinstance(header, str) and header)
        elif isinstance(value, dict):
            yield from _secrets(value)


def without_user(text: str) -> str:
    """Addresses in `text` without their user part: rtsp://***@camera/1."""
    return _USER.sub(f"{HIDDEN}@", text)
