"""An OPC UA server: writes to its variables, each in the type that the variable has.

The client lives in an event loop of its own in a thread; every call from outside ends within a bound.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgevlm.installed import installed
from edgevlm.watch.links.urls import check_url
from edgevlm.watch.links.variants import converted
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import need
from edgevlm_runtime.reading import read_bytes, why

if TYPE_CHECKING:
    from asyncua import ua
    from asyncua.client.client import Client
    from asyncua.common.node import Node

POLICIES = ("", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
MODES = ("SignAndEncrypt", "Sign")
EXCHANGES = 4
"""Time for a write that has to connect first, in `timeout_s`."""
LARGEST_CERTIFICATE = 1 << 20
GOODBYE_S = 2.0
"""For each step of the end."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the server is, and how it knows us."""

    url: str
    """opc.tcp://HOST:PORT/PATH."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    """Without a policy it goes over the network as most servers want it then: readable."""
    policy: str = ""
    """Security policy: "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"; empty: none."""
    mode: str = "SignAndEncrypt"
    """"SignAndEncrypt" or "Sign"."""
    cert: Path | None = None
    """Our certificate (PEM or DER), which a policy needs; its URI has to be `application_uri`."""
    key: Path | None = None
    server_cert: Path | None = None
    """The server's certificate; None takes the one that it shows."""
    application_uri: str = "urn:edgevlm:watch"
    timeout_s: float = 4.0
    """For each exchange."""

    def __post_init__(self) -> None:
        check_url("url", self.url, ("opc.tcp",))
        need("@" not in self.url, "url", "...", "without a user: that is the option user")
        need(self.password is None or self.user is not None, "user", self.user, "given with a password")
        need(self.policy in POLICIES, "policy", self.policy, " or ".join(map(repr, POLICIES)))
        need(self.mode in MODES, "mode", self.mode, " or ".join(map(repr, MODES)))
        need((self.cert is None) == (self.key is None), "key", self.key, "given with cert, and only with it")
        need(
            bool(self.policy) == (self.cert is not None), "policy", self.policy, "given with cert and key, both or none"
        )
        need(0.1 <= self.timeout_s <= 60, "timeout_s", self.timeout_s, "from 0.1 to 60 seconds")


class OpcUaLink:
    """A connection that is made when it is needed. Used from one thread."""

    def __init__(self, server: Server) -> None:
        """Raises `EdgeVLMError` where asyncua is missing."""
        with installed("opcua"):
            import asyncua  # noqa: F401
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what fails is said here, once
        self._server = server
        self._client: Client | None = None
        self._nodes: dict[str, tuple[Node, ua.VariantType]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the last write was answered."""
        return self._client is not None

    def write(self, values: Mapping[str, Any], within_s: float | None = None) -> None:
        """Write values by node id, in one request. Raises `EdgeVLMError`; the next one then connects anew."""
        try:
            self._run(self._write(values), within_s or EXCHANGES * self._server.timeout_s)
        except EdgeVLMError:
            raise  # it answered: the connection is sound
        except FutureTimeout:
            self._drop()
            raise EdgeVLMError(f"{self._server.url} is unreachable: no answer in time") from None
        except Exception as error:  # asyncua's own, of many kinds
            self._drop()
            raise EdgeVLMError(f"{self._server.url} is unreachable: {reason(error)}") from error

    def close(self) -> None:
        """End the connection and the thread, within seconds."""
        self._drop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GOODBYE_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _T], within_s: float) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(within_s)
        except FutureTimeout:
            future.cancel()
            raise

    def _drop(self) -> None:
        client, self._client, self._nodes = self._client, None, {}
        if client is None:
            return
        try:
            self._run(client.disconnect(), GOODBYE_S)
        except Exception:  # it is gone, whatever it says
            logging.getLogger(__name__).debug("ending the connection failed", exc_info=True)

    async def _write(self, values: Mapping[str, Any]) -> None:
        from asyncua import ua

        if self._client is None:
            self._client = await self._connect()
        client = self._client
        for name in values:
            if name not in self._nodes:
                self._nodes[name] = await self._typed(client, name)
        nodes = [self._nodes[name] for name in values]
        data = [
            ua.DataValue(converted(value, kind, name))
            for (name, value), (_, kind) in zip(values.items(), nodes, strict=True)
        ]
        answers = await client.write_values([node for node, _ in nodes], data, raise_on_partial_error=False)
        bad = [f"{name}: {answer.name}" for name, answer in zip(values, answers, strict=True) if not answer.is_good()]
        if bad:
            raise EdgeVLMError(f"{self._server.url} refuses to have written {', '.join(bad)}")

    async def _typed(self, client: Client, name: str) -> tuple[Node, ua.VariantType]:
        """A node with its type, as it is now. Raises `EdgeVLMError` for one that is not there."""
        from asyncua.ua.uaerrors import UaStatusCodeError, UaStringParsingError

        try:
            node = client.get_node(name)
            return node, await node.read_data_type_as_variant_type()
        except (UaStatusCodeError, UaStringParsingError, ValueError) as error:
            raise EdgeVLMError(f"{self._server.url} has no variable {name}: {reason(error)}") from error

    async def _connect(self) -> Client:
        from asyncua.client.client import Client

        server = self._server
        client = Client(server.url, timeout=server.timeout_s)
        client.application_uri, client.name = server.application_uri, "edgevlm"
        if server.user is not None:
            client.set_user(server.user)
            client.set_password(server.password or "")
        if server.policy:
            await _secure(client, server)
        try:
            await client.connect()
        except BaseException:  # given up from outside, too
            client.disconnect_socket()
            raise
        return client


async def _secure(client: Client, server: Server) -> None:
    """Set policy and certificates. Raises `EdgeVLMError` for those that cannot be read."""
    from asyncua import ua
    from asyncua.crypto import security_policies
    from asyncua.crypto.uacrypto import CertProperties

    def read(path: Path) -> CertProperties:
        data = read_bytes(path, LARGEST_CERTIFICATE)
        return CertProperties(data, "pem" if b"-----BEGIN" in data else "der")  # whatever its name ends in

    policy = getattr(security_policies, f"SecurityPolicy{server.policy}")
    assert server.cert is not None
    assert server.key is not None
    try:
        ours, key = read(server.cert), read(server.key)
        theirs = None if server.server_cert is None else read(server.server_cert)
    except OSError as error:
        raise EdgeVLMError(f"cannot read {error.filename}: {why(error)}") from error
    await client.set_security(policy, ours, key, None, theirs, ua.MessageSecurityMode[server.mode])
