"""A message on an MQTT topic asks for a verdict; its payload, or one key of it, is the part's number.

Retained messages are passed over: they are of another time. Nothing is kept for us while we are away, for the same
reason.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgevlm.watch.links.mqtt import Broker, check_topic, open_client
from edgevlm.watch.status import Status
from edgevlm.watch.triggers.waiting import Asked, Waiting
from edgevlm_runtime.errors import reason
from edgevlm_runtime.options import need

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

CONNECTION = "trigger mqtt connection"
LONGEST_PAYLOAD = 64 * 1024
JOIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Broker):
    """Where the broker is, and what is listened to."""

    topic: str
    """May have the wildcards + and #."""
    text_key: str = ""
    """Of a payload that is a JSON object: the key whose value is the part's number; empty: all of the payload."""

    def __post_init__(self) -> None:
        Broker.__post_init__(self)
        check_topic("topic", self.topic, wildcards=True)
        levels = self.topic.split("/")
        sound = all(level in ("+", "#") or not set("+#") & set(level) for level in levels) and "#" not in levels[:-1]
        need(sound, "topic", self.topic, "a topic in which + and # are levels of their own, # the last")


class MqttTrigger(Asked):
    """Listens in the client's thread, and comes back by itself."""

    def __init__(self, options: Options, status: Status) -> None:
        self._options, self._status = options, status
        self._waiting = Waiting("mqtt", status)
        self._client: Client | None = None
        self._refusal = ""

    def start(self) -> None:
        """Begin to connect. Raises `EdgeVLMError` for certificates that cannot be read."""
        if self._client is not None:
            return
        options = self._options
        client = open_client(options, "")
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_connect_fail, client.on_disconnect = self._on_connect_fail, self._on_disconnect
        client.on_subscribe = self._on_subscribe
        self._client = client
        client.connect_async(options.host, options.reached_port, options.keepalive_s)
        client.loop_start()

    def close(self) -> None:
        """Stop listening, within seconds."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            ending = threading.Thread(target=client.loop_stop, daemon=True)  # it may be inside a look-up of a name
            ending.start()
            ending.join(JOIN_S)
        self._waiting.close()

    def _on_connect(self, client: Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if code.is_failure:
            self._refusal = f"it refused us: {code}"
            self._lost(self._refusal)
            return
        self._refusal = ""
        client.subscribe(self._options.topic, qos=1)

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, codes: Any, _more: Any) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self._lost(f"it does not let us read {self._options.topic}: {refused[0]}")
        else:
            self._status.clear_condition(CONNECTION)

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        failure = sys.exc_info()[1]  # called while it is handled, and not told
        self._lost("no connection" if failure is None else reason(failure))

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if self._client is not None:
            self._lost(self._refusal or ("the connection broke" if code == "Unspecified error" else str(code)))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if not message.retain:
            self._waiting.put(self._text(bytes(message.payload)))

    def _text(self, payload: bytes) -> str:
        """The part's number. A payload without the key still asks for a verdict, and is counted."""
        text = payload[:LONGEST_PAYLOAD].decode("utf-8", "replace")
        if not self._options.text_key:
            return text
        try:
            found = json.loads(text)[self._options.text_key]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            self._status.count("trigger_mqtt_without_key")
            return ""
        return found if isinstance(found, str) else json.dumps(found)

    def _lost(self, why: str) -> None:
        self._status.raise_condition(CONNECTION, f"{self._options.address} is unreachable: {why}", bad=True)


def make_trigger(options: Options, status: Status) -> MqttTrigger:
    """The trigger; nothing is touched yet."""
    return MqttTrigger(options, status)
