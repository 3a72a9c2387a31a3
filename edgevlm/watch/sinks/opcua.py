"""Verdicts into variables of an OPC UA server, all of a part in one request.

Each option NAME_node is a variable's node id, such as "ns=2;s=Line1.Verdict"; those without one are not written. A
variable keeps its type: a code goes into an Int16 as well as into a Double.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgevlm.watch.links.opcua import GOODBYE_S, OpcUaLink, Server
from edgevlm.watch.sinks.base import About, Delivery, Pending
from edgevlm.watch.sinks.latest import Latest, check_keep, codes_of
from edgevlm.watch.sinks.messages import LATE, decisive_answer
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import need

NODES = ("verdict", "code", "probability", "text", "number", "pending", "heartbeat", "ready")
HIGHEST_CODE = 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Server):
    """Where the server is, and which variables are written."""

    verdict_node: str | None = None
    """The verdict as text."""
    code_node: str | None = None
    """Its code; 0: none yet."""
    probability_node: str | None = None
    """Of the answer that decided; 0 where there is none."""
    text_node: str | None = None
    """The part's number, as it came with the trigger."""
    number_node: str | None = None
    """The record's."""
    pending_node: str | None = None
    """True while a part is judged."""
    heartbeat_node: str | None = None
    """Counts about once a second."""
    ready_node: str | None = None
    """True while the watch is well."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Verdict to code, for all or none; none: 1, 2, ... in the plan's order."""
    keep_s: float = 2.0
    """How long a verdict waits for a server that cannot be reached; then it is dropped and counted."""

    def __post_init__(self) -> None:
        Server.__post_init__(self)
        given = [node for node in (getattr(self, f"{name}_node") for name in NODES) if node is not None]
        need(bool(given), "verdict_node", self.verdict_node, "a node id, or another of the nodes has to be one")
        for name in NODES:
            node = getattr(self, f"{name}_node")
            need(node is None or (node.isprintable() and "=" in node), f"{name}_node", node, 'such as "ns=2;s=Verdict"')
            need(node is None or given.count(node) == 1, f"{name}_node", node, "a variable that nothing else goes into")
        check_keep(self.keep_s)


class OpcUaSink:
    """Writes what is new; what cannot be written is tried again at the next beat."""

    def __init__(self, options: Options, about: About, codes: Mapping[str, int]) -> None:
        self._options, self._about, self._codes = options, about, codes
        self._link: OpcUaLink | None = None
        none_yet = {"verdict": "", "code": 0, "probability": 0.0, "text": "", "number": 0, "pending": False}
        self._latest = Latest("opcua", about.status, options.keep_s, none_yet)
        self._heartbeat = 0

    def start(self) -> None:
        """Say that there is no verdict yet. A server that cannot be reached is a condition, and tried again."""
        self._latest.write(self._write)

    def pending(self, pending: Pending) -> None:
        """Set pending."""
        self._latest.set(pending=True)
        self._latest.write(self._write)

    def deliver(self, delivery: Delivery) -> None:
        """Write all of a part, and clear pending. A late one is not the state, and is not written."""
        record = delivery.record
        if record.status == LATE:
            return
        decisive = decisive_answer(record)
        self._latest.set(pending=False)
        self._latest.set_verdict(
            delivery.made,
            verdict=record.verdict,
            code=self._codes[record.verdict],
            probability=0.0 if decisive is None or decisive.probability is None else decisive.probability,
            text=record.trigger_text,
            number=record.number,
        )
        self._latest.write(self._write)

    def beat(self, healthy: bool) -> None:
        """Count the heartbeat, say whether we are ready, and try what could not be written."""
        self._heartbeat = (self._heartbeat + 1) & 0xFFFF
        self._latest.set(heartbeat=self._heartbeat, ready=healthy)
        self._latest.write(self._write)

    def close(self) -> None:
        """Say that we are not ready, where the server is there."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            if link.connected:
                link.write(self._by_node({"pending": False, "ready": False}), GOODBYE_S)
        except EdgeVLMError:
            self._about.status.count("sink_opcua_failed")
        link.close()

    def _write(self, values: Mapping[str, Any]) -> None:
        if self._link is None:
            self._link = OpcUaLink(self._options)
        written = self._by_node(values)
        if written:
            self._link.write(written)

    def _by_node(self, values: Mapping[str, Any]) -> dict[str, Any]:
        nodes = {name: getattr(self._options, f"{name}_node") for name in values}
        return {node: values[name] for name, node in nodes.items() if node is not None}


def make_sink(options: Options, about: About) -> OpcUaSink:
    """The sink; nothing is touched yet. Raises `EdgeVLMError` when a verdict has no code."""
    return OpcUaSink(options, about, codes_of(about.verdicts, options.codes, HIGHEST_CODE))
