"""Home Assistant's MQTT discovery: one retained message that makes a device with its entities of a watch.

https://www.home-assistant.io/integrations/mqtt/#discovery-messages-and-payload
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

EVENT = (
    "{{ {'event_type': 'late' if value_json.status == 'late' else value_json.verdict, 'id': value_json.id, "
    "'number': value_json.number, 'text': value_json.trigger_text, 'status': value_json.status} | to_json }}"
)
"""Template that makes an event of a record."""
LATE = "late"


def node(name: str) -> str:
    """A watch's name as Home Assistant takes it in a topic."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_") or "watch"


def topic(prefix: str, name: str) -> str:
    """Where the message goes, retained."""
    return f"{prefix}/device/edgevlm_{node(name)}/config"


def payload(
    name: str, base: str, verdicts: Sequence[str], *, good: Sequence[str] = (), version: str = "", picture: bool = False
) -> dict[str, Any]:
    """The message. `base`: what the topics of the watch begin with; `good`: verdicts that are no problem."""
    unique = f"edgevlm_{node(name)}"
    components = {"verdict": _verdict(base, verdicts), "latency": _latency(base), "record": _record(base, verdicts)}
    components["health"] = _health(base)
    if good:
        components["problem"] = _problem(base, good)
    if picture:
        components["picture"] = _picture(base)
    for key, component in components.items():
        component["unique_id"] = f"{unique}_{key}"
    return {
        "device": _without_empty(
            {
                "identifiers": [unique],
                "name": name,
                "manufacturer": "edgevlm",
                "model": "inspection camera",
                "sw_version": version,
            }
        ),
        "origin": _without_empty({"name": "edgevlm", "sw_version": version}),
        "availability_topic": f"{base}/available",
        "qos": 1,
        "components": components,
    }


def _verdict(base: str, verdicts: Sequence[str]) -> dict[str, Any]:
    return {
        "platform": "sensor",
        "name": "Verdict",
        "device_class": "enum",
        "options": list(dict.fromkeys(verdicts)),
        "state_topic": f"{base}/verdict",
        "value_template": "{{ value_json.verdict }}",
        "json_attributes_topic": f"{base}/verdict",
    }


def _latency(base: str) -> dict[str, Any]:
    return {
        "platform": "sensor",
        "name": "Latency",
        "device_class": "duration",
        "unit_of_measurement": "ms",
        "state_class": "measurement",
        "suggested_display_precision": 0,
        "entity_category": "diagnostic",
        "state_topic": f"{base}/verdict",
        "value_template": "{{ value_json.latency_ms }}",
    }


def _record(base: str, verdicts: Sequence[str]) -> dict[str, Any]:
    return {
        "platform": "event",
        "name": "Record",
        "event_types": list(dict.fromkeys([*verdicts, LATE])),
        "state_topic": f"{base}/record",
        "value_template": EVENT,
    }


def _health(base: str) -> dict[str, Any]:
    return {
        "platform": "binary_sensor",
        "name": "Health",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": f"{base}/health",
        "payload_on": "problem",
        "payload_off": "ok",
    }


def _problem(base: str, good: Sequence[str]) -> dict[str, Any]:
    return {
        "platform": "binary_sensor",
        "name": "Problem",
        "device_class": "problem",
        "state_topic": f"{base}/verdict",
        "value_template": f"{{{{ 'OFF' if value_json.verdict in {list(good)!r} else 'ON' }}}}",
    }


def _picture(base: str) -> dict[str, Any]:
    return {
        "platform": "image",
        "name": "Last picture",
        "image_topic": f"{base}/picture",
        "content_type": "image/jpeg",
    }


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
