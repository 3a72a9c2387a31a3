"""A Modbus TCP device: requests that either are answered or say why not; every failure ends the connection, and the
next request makes a new one."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgevlm.installed import installed
from edgevlm.watch.links.mqtt import check_host
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import need

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient

MOST_REGISTERS = 120
HIGHEST = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where the PLC is. Addresses count from 0, as they are on the wire (40001 of some handbooks is 0)."""

    host: str
    port: int = 502
    unit: int = 1
    """Unit id, for PLCs behind a gateway."""
    timeout_s: float = 1.0
    """Waited for a connection, and for each answer."""

    def __post_init__(self) -> None:
        check_host(self.host)
        need(0 < self.port < 65536, "port", self.port, "from 1 to 65535")
        need(0 <= self.unit <= 255, "unit", self.unit, "from 0 to 255")
        need(0.05 <= self.timeout_s <= 60, "timeout_s", self.timeout_s, "from 0.05 to 60 seconds")

    @property
    def address(self) -> str:
        """Host and port, to show."""
        return f"{self.host}:{self.port}"


class ModbusLink:
    """A connection that is made when it is needed. Used from one thread."""

    def __init__(self, device: Device) -> None:
        """Raises `EdgeVLMError` where pymodbus is missing."""
        with installed("camera"):
            from pymodbus.client import ModbusTcpClient
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what fails is said here, once
        self._device = device
        self._client: ModbusTcpClient = ModbusTcpClient(
            device.host, port=device.port, timeout=device.timeout_s, retries=0
        )

    @property
    def connected(self) -> bool:
        """Whether the last request was answered."""
        return bool(self._client.connected)

    def write_registers(self, address: int, values: Sequence[int]) -> None:
        """Write adjacent holding registers in one request. Raises `EdgeVLMError`."""
        unit = self._device.unit
        self._ask(lambda client: client.write_registers(address, list(values), device_id=unit))

    def write_coil(self, address: int, value: bool) -> None:
        """Raises `EdgeVLMError`."""
        self._ask(lambda client: client.write_coil(address, value, device_id=self._device.unit))

    def read_coil(self, address: int) -> bool:
        """Raises `EdgeVLMError`."""
        return bool(self._ask(lambda client: client.read_coils(address, count=1, device_id=self._device.unit)).bits[0])

    def read_registers(self, address: int, count: int) -> list[int]:
        """Raises `EdgeVLMError`."""
        unit = self._device.unit
        answer = self._ask(lambda client: client.read_holding_registers(address, count=count, device_id=unit))
        if len(answer.registers) < count:
            raise EdgeVLMError(f"{self._device.address} gave {len(answer.registers)} registers of {count}")
        return [int(register) for register in answer.registers[:count]]

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _ask(self, request: Callable[[ModbusTcpClient], Any]) -> Any:
        from pymodbus.exceptions import ModbusException

        device = self._device
        try:
            if not self._client.connected:
                self._client.socket = socket.create_connection((device.host, device.port), device.timeout_s)
            answer = request(self._client)
        except (OSError, ModbusException) as error:
            self._client.close()
            raise EdgeVLMError(f"{device.address} is unreachable: {reason(error)}") from error
        if answer.isError():
            raise EdgeVLMError(f"{device.address} refuses a request: {_exception(answer)}")
        return answer


def _exception(answer: Any) -> str:
    """What an exception code stands for."""
    from pymodbus.constants import ExcCodes

    code = getattr(answer, "exception_code", 0)
    name = next((one.name for one in ExcCodes if one.value == code), "unknown")
    return f"exception {code} ({name.lower().replace('_', ' ')}): compare its addresses with the plan's"
