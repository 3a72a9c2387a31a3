"""Is what a command printed what docs/cli.md says of it?"""

from __future__ import annotations

from dataclasses import fields
from pkgutil import resolve_name
from typing import Any

import msgspec

from edgevlm.cli.records import RECORDS


def check(command: str, printed: dict[str, Any], record: int = 0) -> None:
    """Keys and types of `printed`, at every depth, are those of the command's record (the first, unless another is
    named), neither more nor fewer. msgspec reads them, which takes no part in writing them."""
    documented = resolve_name(RECORDS[command][record])
    assert list(printed) == [field.name for field in fields(documented)]
    read = msgspec.convert(printed, documented, dec_hook=lambda kind, value: kind(value))
    assert msgspec.json.decode(msgspec.json.encode(read, enc_hook=str)) == printed
