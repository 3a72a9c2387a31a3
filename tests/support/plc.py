"""A PLC: pymodbus's own server in a thread, which notes every request that writes; read by a client of its own."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any, Self

from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.support.polling import free_port, listens, until

SIZE = 64


@dataclass
class Plc:
    """Coils and holding registers 0 to 63 of one unit."""

    unit: int = 1
    port: int = field(default_factory=free_port)
    writes: list[tuple[int, list[int]]] = field(default_factory=list)
    """Address and values of each request that wrote registers, in order."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, all zero."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait(60)
        until(lambda: listens(self.port), "the PLC listens")

    def stop(self) -> None:
        """Stop it; connections end."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(60)
        self._thread.join(60)

    def registers(self, address: int, count: int = 1) -> list[int]:
        """Read holding registers."""
        unit = self.unit
        return self._ask(lambda client: client.read_holding_registers(address, count=count, device_id=unit)).registers

    def coil(self, address: int) -> bool:
        """Read a coil."""
        return self._ask(lambda client: client.read_coils(address, count=1, device_id=self.unit)).bits[0]

    def set_coil(self, address: int, value: bool) -> None:
        """Write a coil."""
        self._ask(lambda client: client.write_coil(address, value, device_id=self.unit))

    def set_registers(self, address: int, values: list[int]) -> None:
        """Write holding registers."""
        self._ask(lambda client: client.write_registers(address, values, device_id=self.unit))

    def _ask(self, request: Any) -> Any:
        with ModbusTcpClient("127.0.0.1", port=self.port, timeout=30) as client:
            answer = request(client)
        assert not answer.isError(), answer
        return answer

    async def _serve(self, ready: threading.Event) -> None:
        coils = [SimData(0, values=[False] * SIZE, datatype=DataType.BITS)]
        registers = [SimData(0, values=[0] * SIZE, datatype=DataType.REGISTERS)]
        device = SimDevice(self.unit, (coils, coils, registers, registers), action=self._note)
        self._loop = asyncio.get_running_loop()
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        ready.set()
        await self._server.serve_forever()

    async def _note(
        self, function: int, _start: int, address: int, _count: int, _now: list[int], values: list[int] | None
    ) -> None:
        if function in (6, 16) and values is not None:
            self.writes.append((address, list(values)))
