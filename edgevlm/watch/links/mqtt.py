"""An MQTT broker: where it is, who we are there, and a client of it that comes back by itself."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgevlm.installed import installed
from edgevlm_runtime.errors import EdgeVLMError, reason
from edgevlm_runtime.options import need

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORT, TLS_PORT = 1883, 8883
CONNECT_S = 5.0
SLOWEST_RETRY_S = 30
VERSIONS = ("3.1.1", "5")
LONGEST_TOPIC = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and how it knows us."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: 1883, with TLS 8883."""
    version: str = "3.1.1"
    """Of MQTT: "3.1.1" or "5"."""
    client_id: str = ""
    """Unique on the broker: two of one name, a sink and a trigger as well, keep throwing each other out. Empty: a sink
    makes it of the watch's name, which stays the same over restarts, so that the broker takes a connection that died
    for what it is; a trigger, for which the broker keeps nothing, has another one each time."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """Encrypt, and check the broker's certificate."""
    ca: Path | None = None
    """Certificates that the broker's must be signed by; None takes the system's."""
    cert: Path | None = None
    """Our own certificate, for brokers that ask for one."""
    key: Path | None = None
    keepalive_s: int = 30
    """A broker that has not heard of us for one and a half times this many seconds says that we are offline."""

    def __post_init__(self) -> None:
        check_host(self.host)
        need(self.port is None or 0 < self.port < 65536, "port", self.port, "from 1 to 65535")
        need(self.version in VERSIONS, "version", self.version, " or ".join(map(repr, VERSIONS)))
        need(self.password is None or self.user is not None, "user", self.user, "given with a password")
        files = self.ca is not None or self.cert is not None or self.key is not None
        need(self.tls or not files, "tls", self.tls, "true where ca, cert or key are given")
        need((self.cert is None) == (self.key is None), "key", self.key, "given with cert, and only with it")
        need(1 <= self.keepalive_s <= 65535, "keepalive_s", self.keepalive_s, "from 1 to 65535")

    @property
    def address(self) -> str:
        """Host and port, to show."""
        return f"{self.host}:{self.reached_port}"

    @property
    def reached_port(self) -> int:
        """The port that is connected to."""
        return self.port or (TLS_PORT if self.tls else PORT)


def open_client(broker: Broker, client_id: str) -> Client:
    """A client that is not connected yet, and once it is, comes back by itself with a growing pause.

    Raises `EdgeVLMError` for certificates that cannot be read, and where paho-mqtt is missing.
    """
    with installed("camera"):
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    version = MQTTProtocolVersion.MQTTv5 if broker.version == "5" else MQTTProtocolVersion.MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, client_id=broker.client_id or client_id, protocol=version)
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.tls:
        client.tls_set_context(_context(broker))
    client.connect_timeout = CONNECT_S
    client.reconnect_delay_set(1, SLOWEST_RETRY_S)
    return client


def check_host(host: str) -> None:
    """Raise `EdgeVLMError` for what is no host's name or address."""
    need(bool(re.fullmatch(r"[\w.:%\[\]-]+", host)), "host", host, "a host's name or address, without a port or scheme")


def check_topic(name: str, topic: str, wildcards: bool = False) -> None:
    """Raise `EdgeVLMError` for a topic that no broker takes; `wildcards` allows + and #."""
    sound = 0 < len(topic.encode()) <= LONGEST_TOPIC and "\0" not in topic
    need(sound, name, topic, f"a topic of 1 to {LONGEST_TOPIC} bytes")
    need(wildcards or not set("+#") & set(topic), name, topic, "a topic without + and #")


def level(name: str) -> str:
    """A name as one level of a topic."""
    return re.sub(r"[/+#\0\s]+", "-", name).strip("-$") or "watch"


def _context(broker: Broker) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=broker.ca)
        if broker.cert is not None:
            context.load_cert_chain(broker.cert, broker.key)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = ", ".join(str(path) for path in (broker.ca, broker.cert, broker.key) if path is not None)
        raise EdgeVLMError(f"cannot use the certificates {files}: {reason(error)}: they must be PEM files") from error
    return context
