"""The thread that publishes: the spool's records a few at a time, what is shown again after every reconnect.

Everything that happens (a record, an acknowledgement, a lost connection) comes to this one thread through a queue,
since the client's callbacks run inside its locks.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edgevlm.watch.sinks.spooling.kept import Kept
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError, reason

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

IN_FLIGHT = 16
"""Records that are sent and not yet acknowledged, at most; brokers commonly allow 20 messages."""
AGAIN_S = 5.0
"""Pause before a record is sent again that the broker refused."""
GOODBYE_S = 2.0
"""How long the end may take beyond draining."""
CONNECTION, REFUSED, THREAD = "sink mqtt connection", "sink mqtt refused", "sink mqtt thread"


class Publisher:
    """One connection to a broker. Methods are called from any thread; those with an underscore run in its own."""

    def __init__(self, client: Client, kept: Kept, status: Status, base: str, address: str) -> None:
        """`base`: what topics begin with; `address`: the broker's, to show."""
        self._client, self.kept, self._status, self._base, self._address = client, kept, status, base, address
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._shown: dict[str, bytes] = {}
        self._showing: dict[int, str] = {}
        self._changed: set[str] = set()
        self._spool = kept.spool
        self._next = kept.spool.next
        self._in_flight: dict[int, int] = {}
        self._refused: list[int] = []
        self._paused_until = 0.0
        self._connected = False
        self._refusal = ""
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="mqtt-sink", daemon=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_publish = self._on_publish
        client.will_set(f"{base}/available", "offline", qos=1, retain=True)

    def start(self, host: str, port: int, keepalive_s: int) -> None:
        """Begin to connect; returns at once."""
        self._client.connect_async(host, port, keepalive_s)
        self._client.loop_start()
        self._thread.start()

    def record(self, payload: bytes) -> None:
        """Keep a record until the broker has it. Raises `EdgeVLMError` when the disk takes nothing."""
        try:
            self.kept.add(payload)
        except EdgeVLMError:
            self._events.put(partial(self._send_unspooled, payload))
            raise
        self._events.put(_nothing)

    def show(self, topic: str, payload: bytes) -> None:
        """Publish retained, now and after every reconnect; only the newest of a topic."""
        self._events.put(partial(self._show, topic, payload))

    def say(self, topic: str, payload: bytes) -> None:
        """Publish if the broker is there."""
        self._events.put(partial(self._say, topic, payload))

    def close(self, drain_s: float) -> None:
        """Send what is left for up to `drain_s`, say goodbye. Never takes more than `GOODBYE_S` longer."""
        self._events.put(partial(self._stop, time.monotonic() + drain_s))
        self._thread.join(drain_s + GOODBYE_S / 2)
        ending = threading.Thread(target=self._client.loop_stop, daemon=True)  # it may be inside a look-up of a name
        ending.start()
        ending.join(GOODBYE_S / 2)
        self.kept.close()

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._refusal = f"it refused us: {code}" if code.is_failure else ""
        self._events.put(partial(self._lost, self._refusal) if code.is_failure else self._found)

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        failure = sys.exc_info()[1]  # called while it is handled, and not told
        self._refusal = ""
        self._events.put(partial(self._lost, "no connection" if failure is None else reason(failure)))

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        why = "the connection broke" if code == "Unspecified error" else str(code)
        self._events.put(partial(self._lost, self._refusal or why))

    def _on_publish(self, _client: Client, _data: Any, mid: int, code: Any, _more: Any) -> None:
        self._events.put(partial(self._acknowledged, mid, str(code) if code.is_failure else ""))

    def _run(self) -> None:
        while not self._finished():
            try:
                self._events.get(timeout=0.2)()
                self._fill()
            except queue.Empty:
                self._safely(self._fill)
            except Exception as error:
                log.debug("publishing failed", exc_info=True)
                self._status.raise_condition(THREAD, reason(error))
        self._safely(self._say_goodbye)

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            log.debug("publishing failed", exc_info=True)
            self._status.raise_condition(THREAD, reason(error))

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        sent = self._spool.waiting == 0 and not self._changed
        return sent or not self._connected or time.monotonic() >= self._stop_at

    def _fill(self) -> None:
        """Send records until as many are under way as may be."""
        if self._connected and self._refused and time.monotonic() >= self._paused_until:
            self._next, self._refused = min(self._next, *self._refused), []
        sending = set(self._in_flight.values())
        while self._connected and not self._refused and len(self._in_flight) < IN_FLIGHT:
            found = self._spool.read(self._next)
            if found is None:
                return
            number, payload = found
            self._next = number + 1
            if number not in sending:
                self._in_flight[self._client.publish(f"{self._base}/record", payload, qos=1).mid] = number

    def _acknowledged(self, mid: int, failure: str) -> None:
        topic = self._showing.pop(mid, None)
        if topic is not None and topic in self._changed:
            self._publish_shown(topic)
        number = self._in_flight.pop(mid, None)
        if number is None:
            return
        if failure:
            self._refused.append(number)
            self._paused_until = time.monotonic() + AGAIN_S
            self._status.count("sink_mqtt_repeated")
            self._status.raise_condition(REFUSED, f"{self._address} refuses records: {failure}: they wait on disk")
            return
        self.kept.acknowledge(number)
        self._status.count("sink_mqtt_delivered")
        self._status.clear_condition(REFUSED)

    def _found(self) -> None:
        """Connected: the client sends again by itself what was under way."""
        self._connected = True
        self._status.count("sink_mqtt_repeated", len(self._in_flight))
        self._client.publish(f"{self._base}/available", "online", qos=1, retain=True)
        for topic in self._shown:
            self._publish_shown(topic)
        self._status.clear_condition(CONNECTION)

    def _lost(self, why: str) -> None:
        self._connected = False
        if self._stop_at is None:
            self._status.raise_condition(CONNECTION, f"{self._address} is unreachable ({why}): records wait on disk")

    def _show(self, topic: str, payload: bytes) -> None:
        self._shown[topic] = payload
        if self._connected:
            self._publish_shown(topic)

    def _publish_shown(self, topic: str) -> None:
        """One message of a topic is under way at a time: a broker that is slow gets the newest, not a queue."""
        if topic in self._showing.values():
            self._changed.add(topic)
            return
        self._changed.discard(topic)
        self._showing[self._client.publish(topic, self._shown[topic], qos=1, retain=True).mid] = topic

    def _say(self, topic: str, payload: bytes) -> None:
        if self._connected:
            self._client.publish(topic, payload, qos=0)

    def _send_unspooled(self, payload: bytes) -> None:
        if self._connected:
            self._client.publish(f"{self._base}/record", payload, qos=1)
            self._status.count("sink_mqtt_unspooled")
        else:
            self._status.count("sink_mqtt_dropped")

    def _stop(self, at: float) -> None:
        self._stop_at = at

    def _say_goodbye(self) -> None:
        if self._connected:
            said = self._client.publish(f"{self._base}/available", "offline", qos=1, retain=True)
            said.wait_for_publish(GOODBYE_S / 4)
        self._client.disconnect()


def _nothing() -> None:
    """Only wakes the thread."""
