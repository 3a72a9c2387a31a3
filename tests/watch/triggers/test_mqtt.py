"""Messages sent by mosquitto's own client through a real broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgevlm.watch.status import Status
from edgevlm.watch.triggers.base import Firing
from edgevlm.watch.triggers.mqtt import MqttTrigger, Options, make_trigger
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import frame
from tests.support.mosquitto import Mosquitto, publish, running
from tests.support.polling import until

NAME = "trigger mqtt connection"


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(tmp_path / "broker") as started:
        yield started


@contextmanager
def listening(broker: Mosquitto, topic: str = "line/part", **options) -> Iterator[tuple[MqttTrigger, Status]]:
    """A trigger that has certainly subscribed."""
    status = Status()
    trigger = make_trigger(Options(port=broker.port, topic=topic, **options), status)
    trigger.start()
    try:
        ready = topic.replace("+", "x").replace("#", "x")
        until(lambda: publish(broker, ready, "ready") or trigger.fire(frame()), "subscribed")
        time.sleep(0.2)
        while trigger.fire(frame()):
            pass
        yield trigger, status
    finally:
        trigger.close()


def fired(trigger: MqttTrigger) -> Firing:
    return until(lambda: trigger.fire(frame()), "it fires")


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_message_fires_once_with_its_text(broker, version):
    with listening(broker, version=version) as (trigger, _):
        before = time.time()
        publish(broker, "line/part", "Teil 48112 \n\x07ä")
        firing = fired(trigger)
        assert (firing.kind, firing.text, firing.addressed) == ("mqtt", "Teil 48112   ä", True)
        assert before - 1 <= firing.at <= time.time()
        assert trigger.fire(frame()) is None


def test_the_key_of_a_json_payload(broker):
    with listening(broker, "line/+/part", text_key="part") as (trigger, status):
        for payload in ({"part": "A-7", "x": 1}, {"part": 48112}, {"other": 1}, [1], "text"):
            publish(broker, "line/3/part", json.dumps(payload))
        publish(broker, "line/3/part", "{no json")
        assert [fired(trigger).text for _ in range(6)] == ["A-7", "48112", "", "", "", ""]
        assert status.snapshot().counters["trigger_mqtt_without_key"] >= 4


def test_a_retained_message_is_of_another_time(broker):
    publish(broker, "line/part", "yesterday's", "-r")
    trigger = make_trigger(Options(port=broker.port, topic="line/part"), Status())
    trigger.start()
    try:
        first = until(lambda: publish(broker, "line/part", "today's") or trigger.fire(frame()), "it fires")
        assert first.text == "today's"
    finally:
        trigger.close()


def test_it_comes_back_when_the_broker_does(broker):
    with listening(broker) as (trigger, status):
        broker.stop()
        until(lambda: [one for one in status.snapshot().conditions if one.name == NAME and one.bad], "the condition")
        broker.start()
        until(lambda: not status.snapshot().conditions, "well again")
        publish(broker, "line/part", "after")
        assert fired(trigger).text == "after"


def test_too_many_are_counted_and_shown(broker):
    with listening(broker) as (trigger, status):
        for number in range(70):
            publish(broker, "line/part", str(number))
        until(lambda: status.snapshot().counters.get("trigger_mqtt_dropped", 0) == 6, "six too many")
        assert any(one.name == "trigger mqtt queue" for one in status.snapshot().conditions)
        assert [fired(trigger).text for _ in range(64)] == [str(number) for number in range(64)]
        publish(broker, "line/part", "again")
        assert fired(trigger).text == "again"
        assert not status.snapshot().conditions


@pytest.mark.parametrize("topic", ["", "a/b#", "a/#/b", "a+/b", "x\0"])
def test_bad_topics_are_one_line(topic):
    with pytest.raises(EdgeVLMError, match="bad value for topic"):
        Options(topic=topic)


def test_close_without_start_and_twice():
    trigger = make_trigger(Options(topic="a"), Status())
    trigger.close()
    trigger.close()
