"""Every record as a POST of JSON, in order, from the disk until the other side has answered 2xx.

    POST /hook
    Content-Type: application/json
    Idempotency-Key: the record's id           a repeat is recognised by it
    Authorization: Bearer TOKEN                where there is a token
    X-Signature-256: sha256=HEX                HMAC of the body by the signing token, where there is one

What cannot be connected to, 5xx, 429, and answers that a change of the configuration mends (401, 403, 404, ...) are
tried again with a growing pause, or when `Retry-After` says. A record that is refused itself (400, 413, 415, 422) is
counted and given up, for it would hold up all that follow; the record file has it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from edgevlm.watch.links.urls import check_url, without_path
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.sinks.courier import Courier
from edgevlm.watch.sinks.messages import record_json
from edgevlm.watch.sinks.spooling.kept import Kept, check_spool
from edgevlm_runtime.options import need

OURS = ("content-type", "content-length", "host", "idempotency-key", "transfer-encoding", "x-signature-256")
"""Headers that a plan cannot set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where records are posted to."""

    url: str
    """http:// or https://."""
    token: str | None = field(default=None, repr=False)
    """Sent as `Authorization: Bearer TOKEN`."""
    signing_token: str | None = field(default=None, repr=False)
    """Key of the HMAC-SHA256 in `X-Signature-256`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further ones."""
    ca: Path | None = None
    """Certificates that the server's must be signed by; None takes the system's."""
    timeout_s: float = 10.0
    """For connecting, and for every wait of an exchange."""
    spool_mb: float = 64.0
    """Records kept on disk while the server is away; beyond it the oldest are dropped, counted and shown."""
    drain_s: float = 5.0
    """How long the end waits for the server to take what is left; the rest is sent after the next start."""

    def __post_init__(self) -> None:
        check_url("url", self.url)
        need(0.1 <= self.timeout_s <= 600, "timeout_s", self.timeout_s, "from 0.1 to 600 seconds")
        for name, value in self.headers.items():
            sound = re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) and name.lower() not in OURS
            need(bool(sound), "headers", name, f"a header's name, and none of {', '.join(OURS)}")
            need(value.isascii() and value.isprintable(), f"headers.{name}", "...", "printable ASCII")
        for name in ("token", "signing_token"):
            secret = getattr(self, name)
            need(secret is None or (secret.isascii() and secret.isprintable()), name, "...", "printable ASCII")
        check_spool(self.spool_mb, self.drain_s)


class WebhookSink:
    """Keeps every record in the spool; `Courier` sends them in a thread of its own."""

    def __init__(self, options: Options, about: About) -> None:
        self._options, self._about = options, about
        self._courier: Courier | None = None

    def start(self) -> None:
        """Open the spool; nothing is connected before there is a record. Raises `EdgeVLMError`."""
        self._running()

    def pending(self, pending: Pending) -> None:
        """Not told: a POST that comes when its record does is of no use."""

    def deliver(self, delivery: Delivery) -> None:
        """Keep the record until the server has it. Raises `EdgeVLMError` when the disk takes nothing."""
        self._running().add(record_json(delivery.record))

    def beat(self, healthy: bool) -> None:
        """Write how far the server has the records."""
        self._running().kept.tick()

    def close(self) -> None:
        """Send what is left within `drain_s`."""
        courier, self._courier = self._courier, None
        if courier is not None:
            courier.close(self._options.drain_s)

    def _running(self) -> Courier:
        if self._courier is None:
            options = self._options
            shown, target = without_path(options.url), _target(options.url)
            kept = Kept("webhook", shown, target, options.spool_mb, self._about)
            try:
                courier = Courier(options.url, kept, self._about.status, options.timeout_s, options.ca, self._headers)
            except BaseException:
                kept.close()
                raise
            courier.start()
            self._courier = courier
        return self._courier

    def _headers(self, body: bytes, record_id: str) -> dict[str, str]:
        options = self._options
        headers = {"User-Agent": f"edgevlm/{self._about.version}", **options.headers}
        headers |= {"Content-Type": "application/json", "Idempotency-Key": record_id}
        if options.token is not None:
            headers["Authorization"] = f"Bearer {options.token}"
        if options.signing_token is not None:
            digest = hmac.new(options.signing_token.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Signature-256"] = f"sha256={digest}"
        return headers


def make_sink(options: Options, about: About) -> WebhookSink:
    """The sink; nothing is touched yet."""
    return WebhookSink(options, about)


def _target(url: str) -> tuple[object, ...]:
    """What makes it another place; of a query, which may hold a key, its digest."""
    parts = urlsplit(url)
    query = (hashlib.sha256(parts.query.encode()).hexdigest(),) if parts.query else ()
    return (parts.hostname, parts.port, parts.path, *query)
