"""Python's values as OPC UA's types: a variable takes a value of its own type and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgevlm_runtime.errors import EdgeVLMError

if TYPE_CHECKING:
    from asyncua import ua

BITS = {"SByte": 8, "Byte": 8, "Int16": 16, "UInt16": 16, "Int32": 32, "UInt32": 32, "Int64": 64, "UInt64": 64}
SIGNED = ("SByte", "Int16", "Int32", "Int64")
FLOATS = ("Float", "Double")


def converted(value: Any, kind: ua.VariantType, name: str) -> ua.Variant:
    """`value` for a variable of this type: numbers are cut to its bits, as a counter that begins anew.

    Raises `EdgeVLMError` for types that such a value cannot have.
    """
    from asyncua import ua

    if kind.name == "Variant":  # a variable that takes any type
        return ua.Variant(value)
    if kind.name == "String":
        return ua.Variant(str(value), kind)
    if kind.name == "Boolean" and not isinstance(value, str):
        return ua.Variant(bool(value), kind)
    if kind.name in FLOATS and not isinstance(value, str):
        return ua.Variant(float(value), kind)
    if kind.name in BITS and isinstance(value, bool | int):
        return ua.Variant(_cut(int(value), BITS[kind.name], kind.name in SIGNED), kind)
    raise EdgeVLMError(f"{name} is of type {kind.name}, which {value!r} is not: choose another variable")


def _cut(number: int, bits: int, signed: bool) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if signed and number >> (bits - 1) else number
