"""Against a real broker, read by subscribers that come with it."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from PIL import Image

from edgevlm.watch.sinks import publisher
from edgevlm.watch.sinks.mqtt import MqttSink, Options, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.certificates import certificate
from tests.support.made_records import about, condition, counter, delivery, pending
from tests.support.mosquitto import Mosquitto, Subscriber, publish, retained, running
from tests.support.needed import program
from tests.support.polling import until

BASE = "edgevlm/line-1"


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(tmp_path / "broker") as started:
        yield started


@contextmanager
def sink_to(broker: Mosquitto, watch, **options) -> Iterator[MqttSink]:
    sink = make_sink(Options(port=broker.port, **options), watch)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


@contextmanager
def subscriber_to(broker: Mosquitto, topic: str, *arguments: str, ready: str = "ready") -> Iterator[Subscriber]:
    """One that has certainly subscribed."""
    subscriber = Subscriber(broker, topic, *arguments)
    try:
        until(lambda: publish(broker, f"{BASE}/ready", ready) or subscriber.payloads("/ready"), "subscribed")
        yield subscriber
    finally:
        subscriber.stop()


def delivered(watch) -> int:
    return counter(watch, "sink_mqtt_delivered")


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_records_states_and_goodbye(tmp_path, broker, version):
    watch = about(tmp_path)
    with subscriber_to(broker, f"{BASE}/#") as subscriber:
        with sink_to(broker, watch, version=version, picture=True) as sink:
            sink.beat(True)
            until(lambda: "online" in subscriber.payloads("/available"), "online")
            sink.pending(pending(7, "part 7"))
            sink.deliver(delivery(1, text="part 7"))
            sink.deliver(delivery(2, "unsure", status="default"))
            sink.deliver(delivery(3, "reject", status="late"))
            until(lambda: delivered(watch) == 3, "three acknowledged")
        received = until(lambda: len(subscriber.payloads("/available")) >= 2 and subscriber, "offline").records()
        assert subscriber.payloads("/available") == ["online", "offline"]
    assert [one["number"] for one in received] == [1, 2, 3]
    assert received[0]["id"] == "id-1-accept"
    assert received[0]["answers"][0]["probabilities"] == {"yes": 0.125, "no": 0.875}
    assert received[2]["status"] == "late"
    assert json.loads(subscriber.payloads("/pending")[0])["text"] == "part 7"
    pictures = [payload for _, topic, payload in subscriber.lines() if topic.endswith("/picture")]
    assert Image.open(io.BytesIO(pictures[0])).size == (32, 24)
    state = json.loads(retained(broker, f"{BASE}/verdict"))
    assert (state["number"], state["verdict"], state["status"]) == (2, "unsure", "default")  # never the late one
    assert retained(broker, f"{BASE}/health") == "ok"
    assert retained(broker, f"{BASE}/available") == "offline"
    assert retained(broker, f"{BASE}/record") == ""
    assert watch.status.snapshot().conditions == ()


def test_a_broker_that_is_away_for_a_while_gets_everything(tmp_path, broker):
    watch = about(tmp_path)
    with subscriber_to(broker, f"{BASE}/#") as subscriber, sink_to(broker, watch) as sink:
        for number in range(1, 11):
            sink.deliver(delivery(number))
        until(lambda: delivered(watch) == 10, "the first ten")
        broker.stop()
        until(lambda: "unreachable" in condition(watch, "sink mqtt connection"), "the condition")
        for number in range(11, 61):
            sink.deliver(delivery(number, "reject"))
            sink.beat(True)
        assert watch.status.snapshot().gauges["sink_mqtt_waiting"] == 50
        broker.start()
        until(lambda: delivered(watch) >= 60, "all acknowledged")
        until(lambda: {one["number"] for one in subscriber.records()} >= set(range(1, 61)), "all received")
        until(lambda: condition(watch, "sink mqtt connection") == "", "well again")
        assert json.loads(retained(broker, f"{BASE}/verdict"))["number"] == 60
    numbers = [one["number"] for one in subscriber.records()]
    firsts = list(dict.fromkeys(numbers))
    assert firsts == sorted(firsts)
    ids = [one["id"] for one in subscriber.records()]
    assert len(set(ids)) == 60  # a repeat has the id of the first


def test_what_waited_goes_out_after_a_restart(tmp_path, broker):
    broker.stop()
    watch = about(tmp_path)
    with sink_to(broker, watch, drain_s=0) as sink:
        for number in range(1, 31):
            sink.deliver(delivery(number))
    assert delivered(watch) == 0
    broker.start()
    watch = about(tmp_path)
    with subscriber_to(broker, f"{BASE}/#") as subscriber, sink_to(broker, watch) as sink:
        sink.deliver(delivery(31))
        until(lambda: len(subscriber.records()) >= 31, "all of both lives")
        until(lambda: delivered(watch) == 31, "all acknowledged")
        sink.beat(True)
    assert [one["number"] for one in subscriber.records()] == list(range(1, 32))
    watch = about(tmp_path)
    with sink_to(broker, watch):
        until(lambda: retained(broker, f"{BASE}/available") == "online", "a third life")
    assert delivered(watch) == 0  # nothing is sent again


DYING = """
import sys, time
from pathlib import Path
from edgevlm.watch.sinks import publisher
from edgevlm.watch.sinks.mqtt import Options, make_sink
from tests.support.certificates import certificate
from tests.support.made_records import about, delivery
sink = make_sink(Options(port=int(sys.argv[1]), keepalive_s=5), about(Path(sys.argv[2])))
sink.start()
number = int(sys.argv[3])
while True:
    number += 1
    sink.deliver(delivery(number))
    print(number, flush=True)
    sink.beat(True)
"""


def test_kill_9_brings_the_last_will_and_loses_no_record(tmp_path, broker):
    said, last = set[int](), 0
    with subscriber_to(broker, f"{BASE}/#") as subscriber:
        for life, lines in enumerate((40, 3, 90)):
            command = [sys.executable, "-c", DYING, str(broker.port), str(tmp_path / "watch"), str(last)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            numbers = [int(process.stdout.readline()) for _ in range(lines)]
            until(lambda life=life: subscriber.payloads("/available").count("online") == life + 1, "online")
            os.kill(process.pid, signal.SIGKILL)
            numbers += [int(line) for line in process.stdout.readlines() if line.endswith(b"\n")]
            process.wait()
            until(lambda life=life: subscriber.payloads("/available").count("offline") == life + 1, "the last will")
            assert retained(broker, f"{BASE}/available") == "offline"
            said, last = said | set(numbers), max(numbers) + 1
        watch = about(tmp_path / "watch")
        with sink_to(broker, watch):
            until(lambda: {one["number"] for one in subscriber.records()} >= said, "every record that was kept")


def test_records_that_the_broker_refuses_wait_until_it_takes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(publisher, "AGAIN_S", 0.1)
    acl = tmp_path / "acl"
    acl.write_text(f"topic readwrite {BASE}/available\ntopic readwrite {BASE}/ready\ntopic read #\n")
    acl.chmod(0o644)
    watch = about(tmp_path)
    broker = Mosquitto(tmp_path / "broker", ("allow_anonymous true", f"acl_file {acl}"))
    broker.start()
    try:
        with subscriber_to(broker, f"{BASE}/#") as subscriber, sink_to(broker, watch, version="5") as sink:
            for number in range(1, 31):
                sink.deliver(delivery(number))
            until(lambda: "Not authorized" in condition(watch, "sink mqtt refused"), "refused")
            assert (delivered(watch), subscriber.records()) == (0, [])
            broker.stop()
            broker.options = ("allow_anonymous true",)
            broker.start()
            until(lambda: delivered(watch) == 30, "all delivered")
            until(lambda: {one["number"] for one in subscriber.records()} == set(range(1, 31)), "all received")
            assert condition(watch, "sink mqtt refused") == ""
    finally:
        broker.stop()


def test_password_and_tls(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir(mode=0o755)
    (ca, key), (wrong, _) = certificate(folder, "server"), certificate(folder, "other")
    (folder / "passwords").touch()
    tool = program("mosquitto_passwd", "mosquitto")
    subprocess.run([tool, "-b", str(folder / "passwords"), "line", "pass word"], check=True)
    for file in folder.iterdir():
        file.chmod(0o644)
    options = (
        "allow_anonymous false",
        f"password_file {folder / 'passwords'}",
        f"certfile {ca}",
        f"keyfile {key}",
    )
    right = {"host": "localhost", "tls": True, "ca": ca, "user": "line", "password": "pass word"}
    cases = [({}, ""), ({"password": "wrong"}, "Not authorized"), ({"ca": wrong}, "certificate verify failed")]
    with running(folder, *options) as broker:
        for change, said in [*cases, ({"host": "127.0.0.1"}, "certificate verify failed")]:
            watch = about(tmp_path / "watch")
            with sink_to(broker, watch, **{**right, **change}, drain_s=0) as sink:
                sink.deliver(delivery(1))
                if not change:
                    until(partial(delivered, watch), "delivered over TLS")
                    continue
                for _ in range(2):  # it stays said while the client tries again
                    text = until(partial(condition, watch, "sink mqtt connection"), f"a condition for {change}")
                    assert said in text
                    assert "pass word" not in text
                    time.sleep(0.5)
                assert delivered(watch) == 0


def test_beyond_the_spool_the_oldest_go_counted_and_shown(tmp_path, broker):
    broker.stop()
    watch = about(tmp_path)
    with sink_to(broker, watch, spool_mb=0.03) as sink:
        for number in range(1, 101):
            sink.deliver(delivery(number))
        sink.beat(True)
        dropped = counter(watch, "sink_mqtt_dropped")
        assert 0 < dropped < 100
        assert "dropped" in condition(watch, "sink mqtt spool")
        broker.start()
        until(lambda: delivered(watch) == 100 - dropped, "the rest")
        sink.beat(True)
        assert condition(watch, "sink mqtt spool") == ""


def test_a_peer_that_accepts_and_says_nothing_does_not_hold_the_end_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        watch = about(tmp_path)
        sink = make_sink(Options(port=silent.getsockname()[1], drain_s=1), watch)
        sink.start()
        sink.deliver(delivery(1))
        begun = time.monotonic()
        sink.close()
        sink.close()
        assert time.monotonic() - begun < 20
    assert delivered(watch) == 0
    assert list(tmp_path.rglob("*.spool"))


def test_a_broker_that_stops_answering_does_not_hold_the_end_up_and_gets_all_later(tmp_path, broker):
    watch = about(tmp_path)
    assert broker.process is not None
    with sink_to(broker, watch, drain_s=0.5) as sink:
        sink.deliver(delivery(1))
        until(lambda: delivered(watch) == 1, "the first")
        broker.process.send_signal(signal.SIGSTOP)
        for number in range(2, 40):
            sink.deliver(delivery(number))
        time.sleep(0.3)
        assert sink._publisher is not None
        assert len(sink._publisher._client._out_messages) < 30  # nothing piles up in memory
        begun = time.monotonic()
        sink.close()
        assert time.monotonic() - begun < 20
    broker.process.send_signal(signal.SIGCONT)
    watch = about(tmp_path)
    with subscriber_to(broker, f"{BASE}/#") as subscriber, sink_to(broker, watch):
        until(lambda: {one["number"] for one in subscriber.records()} >= set(range(20, 40)), "what waited")
        until(lambda: delivered(watch) == 38, "all acknowledged")


def test_a_broker_that_is_slow_gets_the_newest_state_at_last(tmp_path, broker):
    watch = about(tmp_path)
    assert broker.process is not None
    with sink_to(broker, watch) as sink:
        sink.deliver(delivery(1))
        until(lambda: delivered(watch) == 1, "the first")
        broker.process.send_signal(signal.SIGSTOP)
        for number in range(2, 100):
            sink.deliver(delivery(number, "reject" if number % 2 else "accept"))
        broker.process.send_signal(signal.SIGCONT)
        until(lambda: delivered(watch) == 99, "all acknowledged")
        until(lambda: json.loads(retained(broker, f"{BASE}/verdict"))["number"] == 99, "the newest")


def test_a_full_disk_is_said_and_records_go_out_all_the_same(tmp_path, broker, monkeypatch):
    watch = about(tmp_path)

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with subscriber_to(broker, f"{BASE}/#") as subscriber, sink_to(broker, watch) as sink:
        sink.deliver(delivery(1))
        until(lambda: delivered(watch) == 1, "the first")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(EdgeVLMError, match="No space left"):
                sink.deliver(delivery(2))
            until(lambda: len(subscriber.records()) == 2, "the second, from memory")
            assert "No space left" in condition(watch, "sink mqtt spool")
        sink.deliver(delivery(3))
        until(lambda: delivered(watch) == 2, "the third")
        sink.beat(True)
        assert condition(watch, "sink mqtt spool") == ""
        received = until(lambda: len(subscriber.records()) == 3 and subscriber.records(), "all three")
    assert [one["number"] for one in received] == [1, 2, 3]


def test_close_without_start_touches_nothing(tmp_path):
    make_sink(Options(), about(tmp_path)).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "mqtt://broker"}, "bad value for host"),
        ({"port": 0}, "bad value for port"),
        ({"version": "4"}, "bad value for version"),
        ({"prefix": "a/#"}, "bad value for prefix"),
        ({"password": "secret"}, "bad value for user"),
        ({"ca": "/ca.pem"}, "bad value for tls"),
        ({"tls": True, "cert": "/cert.pem"}, "bad value for key"),
        ({"spool_mb": 0}, "bad value for spool_mb"),
        ({"drain_s": 1e9}, "bad value for drain_s"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(EdgeVLMError, match=said) as caught:
        Options(**options)
    assert "secret" not in str(caught.value)


def test_certificates_that_cannot_be_read_are_one_line(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    sink = make_sink(Options(tls=True, ca=tmp_path / "ca.pem"), about(tmp_path))
    with pytest.raises(EdgeVLMError, match="cannot use the certificates"):
        sink.start()
    sink.close()


def test_a_password_is_never_shown():
    assert "secret" not in repr(Options(user="me", password="secret"))
