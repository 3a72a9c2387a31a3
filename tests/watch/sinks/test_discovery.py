"""What Home Assistant is told, against its published schema (home_assistant.json says where that is from)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

from edgevlm.watch.sinks import discovery
from edgevlm.watch.sinks.messages import record_json, state
from edgevlm.watch.sinks.mqtt import Options, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import VERDICTS, about, delivery, record
from tests.support.mosquitto import retained, running
from tests.support.polling import until

SCHEMA = json.loads((Path(__file__).parent / "home_assistant.json").read_text("utf-8"))
BASE = "edgevlm/line-1"


def full() -> dict[str, Any]:
    """With every entity there can be."""
    return discovery.payload("line 1", BASE, VERDICTS, good=("accept",), version="1.2.3", picture=True)


def check_keys(fields: dict[str, Any], *rules: dict[str, Any]) -> None:
    """All that is required is there, and nothing but what is known."""
    required = {key for rule in rules for key in rule["required"]}
    known = required | {key for rule in rules for key in rule["optional"]}
    assert required <= set(fields) <= known
    for rule in rules:
        assert "one_of" not in rule or any(fields.get(key) for key in rule["one_of"])


def render(template: str, payload: bytes) -> str:
    """As Home Assistant does, which has this filter."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["to_json"] = json.dumps
    return environment.from_string(template).render(value_json=json.loads(payload))


def test_the_message_has_what_is_required_and_nothing_unknown():
    message = full()
    check_keys(message, SCHEMA["root"])
    check_keys(message["device"], SCHEMA["device"])
    check_keys(message["origin"], SCHEMA["origin"])
    assert message["qos"] in (0, 1, 2)
    for component in message["components"].values():
        check_keys(component, SCHEMA["entity"], SCHEMA["platforms"][component["platform"]])
        assert component.get("entity_category", "config") in SCHEMA["entity_categories"]
        assert not any(set("+#") & set(value) for key, value in component.items() if key.endswith("topic"))
    assert {one["platform"] for one in message["components"].values()} == set(SCHEMA["platforms"])
    ids = [one["unique_id"] for one in message["components"].values()]
    assert len(set(ids)) == len(ids)


def test_classes_and_units_are_known():
    for component in full()["components"].values():
        rule, kind = SCHEMA["platforms"][component["platform"]], component.get("device_class")
        if "units" in rule:
            assert component.get("unit_of_measurement") in rule["units"][kind]
            assert component.get("state_class", "measurement") in rule["state_classes"]
            assert (kind == "enum") == ("options" in component)
            assert not ("options" in component and "state_class" in component)
        elif kind is not None:
            assert kind in rule["device_classes"]


@pytest.mark.parametrize("name", ["line 1", "Straße/7#+", "a" * 50, "+"])
def test_topics_are_those_that_are_listened_to(name):
    found = re.fullmatch(r"homeassistant/(\w+)/(.+)/config", discovery.topic("homeassistant", name))
    assert found is not None
    assert found[1] == "device"
    assert re.fullmatch(SCHEMA["node_id"], found[2])


def test_templates_make_states_of_what_is_published():
    components = full()["components"]
    for verdict in VERDICTS:
        shown = json.dumps(state(record(5, verdict))).encode()
        assert render(components["verdict"]["value_template"], shown) == verdict
        assert verdict in components["verdict"]["options"]
        assert float(render(components["latency"]["value_template"], shown)) == 123.5
        problem = render(components["problem"]["value_template"], shown)
        assert problem == ("OFF" if verdict == "accept" else "ON")
        assert problem in SCHEMA["platforms"]["binary_sensor"]["states"]


def test_a_record_becomes_an_event_and_a_late_one_says_so():
    component = full()["components"]["record"]
    for status, kind in (("in time", "reject"), ("default", "reject"), ("late", "late")):
        made = json.loads(render(component["value_template"], record_json(record(5, "reject", status, "p\"'{{7}}"))))
        assert made["event_type"] == kind
        assert kind in component["event_types"]
        assert (made["number"], made["id"], made["text"]) == (5, "id-5-reject", "p\"'{{7}}")


def test_a_verdict_with_quotes_keeps_its_template():
    names = ('it\'s "good"', "bad\\ness")
    component = discovery.payload("x", BASE, names, good=names[:1])["components"]["problem"]
    for verdict, problem in zip(names, ("OFF", "ON"), strict=True):
        assert render(component["value_template"], json.dumps({"verdict": verdict}).encode()) == problem


def test_the_broker_keeps_the_message_and_its_topics_are_those_published(tmp_path):
    with running(tmp_path / "broker") as broker:
        sink = make_sink(Options(port=broker.port, discovery="homeassistant", good=("accept",)), about(tmp_path))
        try:
            sink.start()
            sink.beat(True)
            sink.deliver(delivery(1))
            topic = "homeassistant/device/edgevlm_line_1/config"
            message = json.loads(until(lambda: retained(broker, topic), "the message is there"))
            check_keys(message, SCHEMA["root"])
            assert "picture" not in message["components"]
            assert retained(broker, message["availability_topic"]) == "online"
            for name in ("verdict", "health", "problem", "latency"):
                assert until(lambda name=name: retained(broker, message["components"][name]["state_topic"]), name)
        finally:
            sink.close()


def test_a_good_verdict_that_there_is_not_is_one_line(tmp_path):
    with pytest.raises(EdgeVLMError, match="bad value for good: 'fine': it must be one of reject, accept, unsure"):
        make_sink(Options(good=("fine",)), about(tmp_path))
