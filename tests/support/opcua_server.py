"""An OPC UA server: asyncua's own, in a thread; its variables are read by a client of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.sync import Client

from tests.support.polling import free_port, listens, until

VARIABLES: dict[str, tuple[Any, ua.VariantType]] = {
    "Text": ("before", ua.VariantType.String),
    "Int16": (9, ua.VariantType.Int16),
    "UInt16": (9, ua.VariantType.UInt16),
    "Byte": (9, ua.VariantType.Byte),
    "UInt32": (9, ua.VariantType.UInt32),
    "Int64": (9, ua.VariantType.Int64),
    "Double": (9.0, ua.VariantType.Double),
    "Float": (9.0, ua.VariantType.Float),
    "Bool": (True, ua.VariantType.Boolean),
    "Bool2": (True, ua.VariantType.Boolean),
    "Other": ("before", ua.VariantType.String),
    "Time": (None, ua.VariantType.DateTime),
}


class Door:
    """Lets one user in, and where there is none, everybody."""

    def __init__(self, user: str, password: str) -> None:
        self._pair = (user, password)

    def get_user(
        self, _server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """None: stay outside."""
        inside = self._pair in (("", ""), (username, password))
        return User(role=UserRole.User) if inside else None


@dataclass
class OpcUaServer:
    """Variables of every type, ns=2;s=NAME, all writable but `ReadOnly`."""

    user: str = ""
    password: str = ""
    policies: Iterable[ua.SecurityPolicyType] = (ua.SecurityPolicyType.NoSecurity,)
    cert: Path | None = None
    key: Path | None = None
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"opc.tcp://127.0.0.1:{self.port}/line"

    def start(self) -> None:
        """Start it, with the values it begins with."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        until(lambda: listens(self.port), "the server listens")

    def stop(self) -> None:
        """Stop it; connections end."""
        self._stop.set()
        self._thread.join(60)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It keeps its connections and answers nothing."""
        end = threading.Event()
        self._loop.call_soon_threadsafe(end.wait, 300)
        try:
            yield
        finally:
            end.set()

    def values(self, *names: str) -> list[Any]:
        """Read by a client that shares nothing with the sink's."""
        with Client(self.url, timeout=30) as client:
            if self.user:
                client.set_user(self.user)
                client.set_password(self.password)
            return [client.get_node(f"ns=2;s={name}").read_value() for name in names]

    def kinds(self, *names: str) -> list[ua.VariantType]:
        """Types of the values that are there now."""
        with Client(self.url, timeout=30) as client:
            return [client.get_node(f"ns=2;s={name}").read_data_value().Value.VariantType for name in names]

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = Server(user_manager=Door(self.user, self.password))
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy(list(self.policies))
        if self.cert is not None and self.key is not None:
            await server.load_certificate(self.cert, "pem")
            await server.load_private_key(self.key, format="pem")
        await server.register_namespace("urn:line")
        for name, (value, kind) in VARIABLES.items():
            node = await server.nodes.objects.add_variable(f"ns=2;s={name}", name, value, kind)
            await node.set_writable()
        await server.nodes.objects.add_variable("ns=2;s=ReadOnly", "ReadOnly", 0, ua.VariantType.Int32)
        async with server:
            while not self._stop.is_set():
                await asyncio.sleep(0.02)
