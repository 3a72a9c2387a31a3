"""Verdicts to an MQTT broker, each record with QoS 1 and from the disk until the broker has it.

PREFIX/NAME/record       every record as JSON; a repeat has an id that was there before
PREFIX/NAME/verdict      the verdict now, retained
PREFIX/NAME/pending      a part is being judged
PREFIX/NAME/health       "ok" or "problem", retained
PREFIX/NAME/available    "online" or "offline", retained; the broker says "offline" when we are gone
PREFIX/NAME/picture      the last picture as JPEG, retained, where asked for
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import msgspec
from PIL import Image

from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.links.mqtt import Broker, check_topic, level, open_client
from edgevlm.watch.sinks import discovery
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.sinks.messages import LATE, pending_state, record_json, state
from edgevlm.watch.sinks.publisher import Publisher
from edgevlm.watch.sinks.spooling.kept import Kept, check_spool
from edgevlm_runtime.options import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Broker):
    """Where the broker is, and what is published."""

    prefix: str = "edgevlm"
    """What topics begin with; the watch's name follows."""
    spool_mb: float = 64.0
    """Records kept on disk while the broker is away; beyond it the oldest are dropped, counted and shown."""
    drain_s: float = 5.0
    """How long the end waits for the broker to take what is left; the rest is sent after the next start."""
    discovery: str = ""
    """Topic prefix of Home Assistant's discovery, usually "homeassistant"; empty: none."""
    good: tuple[str, ...] = ()
    """Verdicts that are no problem: with them, Home Assistant gets a problem sensor."""
    picture: bool = False
    """Publish the last judged picture."""
    picture_width: int = 640

    def __post_init__(self) -> None:
        Broker.__post_init__(self)
        check_topic("prefix", self.prefix)
        need(not self.prefix.startswith("$"), "prefix", self.prefix, "a topic that does not begin with $")
        check_spool(self.spool_mb, self.drain_s)
        need(
            not self.discovery or not set("+#\0") & set(self.discovery), "discovery", self.discovery, "a topic's prefix"
        )
        need(16 <= self.picture_width <= 8192, "picture_width", self.picture_width, "from 16 to 8192 pixels")


class MqttSink:
    """Keeps every record in the spool; `Publisher` sends them in a thread of its own."""

    def __init__(self, options: Options, about: About) -> None:
        self._options, self._about = options, about
        self._base = f"{options.prefix}/{level(about.name)}"
        self._publisher: Publisher | None = None
        self._healthy: bool | None = None

    def start(self) -> None:
        """Open the spool and begin to connect. Raises `EdgeVLMError` for what a later try may mend."""
        self._running()

    def pending(self, pending: Pending) -> None:
        """Say that a part is being judged; lost when the broker is away."""
        self._running().say(f"{self._base}/pending", msgspec.json.encode(pending_state(pending)))

    def deliver(self, delivery: Delivery) -> None:
        """Keep the record until the broker has it, and show its verdict. Raises `EdgeVLMError` when the disk is full;
        the record then goes out all the same where the broker is there."""
        publisher = self._running()
        if delivery.record.status != LATE:
            publisher.show(f"{self._base}/verdict", msgspec.json.encode(state(delivery.record)))
        if self._options.picture and delivery.has_picture:
            publisher.show(f"{self._base}/picture", _jpeg(delivery.frame, self._options.picture_width))
        publisher.record(record_json(delivery.record))

    def beat(self, healthy: bool) -> None:
        """Show whether the watch is well; write how far the broker has the records."""
        publisher = self._running()
        if healthy is not self._healthy:
            publisher.show(f"{self._base}/health", b"ok" if healthy else b"problem")
            self._healthy = healthy
        publisher.kept.tick()

    def close(self) -> None:
        """Send what is left within `drain_s`, and say that we are offline."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close(self._options.drain_s)

    def _running(self) -> Publisher:
        if self._publisher is None:
            options = self._options
            target = (options.host, options.reached_port, self._base)
            kept = Kept("mqtt", options.address, target, options.spool_mb, self._about)
            try:
                client = open_client(options, f"edgevlm-{level(self._about.name)}-sink")
            except BaseException:
                kept.close()
                raise
            publisher = Publisher(client, kept, self._about.status, self._base, options.address)
            if options.discovery:
                publisher.show(discovery.topic(options.discovery, self._about.name), self._discovered())
            publisher.start(options.host, options.reached_port, options.keepalive_s)
            self._publisher = publisher
        return self._publisher

    def _discovered(self) -> bytes:
        about, options = self._about, self._options
        found = discovery.payload(
            about.name, self._base, about.verdicts, good=options.good, version=about.version, picture=options.picture
        )
        return msgspec.json.encode(found)


def make_sink(options: Options, about: About) -> MqttSink:
    """The sink; nothing is touched yet. Raises `EdgeVLMError` for a good verdict that there is not."""
    for verdict in options.good:
        need(verdict in about.verdicts, "good", verdict, f"one of {', '.join(about.verdicts)}")
    return MqttSink(options, about)


def _jpeg(frame: Frame, width: int) -> bytes:
    picture = Image.fromarray(frame.pixels)
    picture.thumbnail((width, width * 4))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
