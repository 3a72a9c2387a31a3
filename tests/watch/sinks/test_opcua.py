"""Against asyncua's own server, read by a client of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from edgevlm.watch.links.variants import converted
from edgevlm.watch.sinks import latest
from edgevlm.watch.sinks.opcua import OpcUaSink, Options, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.certificates import certificate
from tests.support.made_records import about, condition, counter, delivery, pending
from tests.support.opcua_server import OpcUaServer

NAME = "sink opcua connection"
NODES = {
    "verdict_node": "ns=2;s=Text",
    "code_node": "ns=2;s=Int16",
    "probability_node": "ns=2;s=Float",
    "text_node": "ns=2;s=Other",
    "number_node": "ns=2;s=UInt32",
    "pending_node": "ns=2;s=Bool",
    "heartbeat_node": "ns=2;s=Byte",
    "ready_node": "ns=2;s=Bool2",
}
NAMES = ("Text", "Int16", "Float", "Other", "UInt32", "Bool", "Byte", "Bool2")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(latest, "AGAIN_S", 0.0)


@contextmanager
def sink_to(server: OpcUaServer, watch, **options) -> Iterator[OpcUaSink]:
    sink = make_sink(Options(**{"url": server.url, "timeout_s": 20, **NODES, **options}), watch)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


@pytest.fixture(scope="module")
def line() -> Iterator[OpcUaServer]:
    """One server for the tests that leave it running: it takes seconds to start."""
    with OpcUaServer() as server:
        yield server


def test_a_part_in_variables(tmp_path, line):
    watch, server = about(tmp_path), line
    with sink_to(server, watch) as sink:
        assert server.values(*NAMES[:6]) == ["", 0, 0.0, "", 0, False]
        sink.beat(True)
        sink.pending(pending())
        assert server.values("Bool", "Byte", "Bool2") == [True, 1, True]
        sink.deliver(delivery(48112, "unsure", text="part 48112 ä"))
        assert server.values(*NAMES) == ["unsure", 3, 0.875, "part 48112 ä", 48112, False, 1, True]
        sink.deliver(delivery(48113, "reject", status="late"))
        assert server.values("Text", "UInt32") == ["unsure", 48112]
        sink.beat(False)
    assert server.values("Text", "Byte", "Bool2") == ["unsure", 2, False]
    kinds = [kind.name for kind in server.kinds(*NAMES)]
    assert kinds == ["String", "Int16", "Float", "String", "UInt32", "Boolean", "Byte", "Boolean"]
    assert counter(watch, "sink_opcua_delivered") == 1
    assert watch.status.snapshot().conditions == ()


def test_it_comes_back_when_the_server_does_with_the_verdict_that_is_fresh(tmp_path):
    watch = about(tmp_path)
    server = OpcUaServer()
    with sink_to(server, watch, keep_s=300, timeout_s=2) as sink:
        assert f"{server.url} is unreachable" in condition(watch, NAME)
        server.start()
        sink.deliver(delivery(1, "reject"))
        assert server.values("Text", "UInt32") == ["reject", 1]
        assert condition(watch, NAME) == ""
        server.stop()
        sink.deliver(delivery(2, "accept"))
        assert condition(watch, NAME)
        sink.deliver(delivery(3, "unsure"))
        assert counter(watch, "sink_opcua_dropped") == 1
        server.start()
        sink.beat(True)
        assert server.values("Text", "UInt32", "Byte") == ["unsure", 3, 1]
        assert condition(watch, NAME) == ""
    server.stop()


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"verdict_node": "ns=2;s=Nowhere"}, "has no variable ns=2;s=Nowhere"),
        ({"verdict_node": "nonsense="}, "has no variable nonsense="),
        ({"verdict_node": "ns=2;s=Double"}, "ns=2;s=Double is of type Double, which 'accept' is not"),
        ({"number_node": "ns=2;s=Time"}, "ns=2;s=Time is of type DateTime"),
        ({"code_node": "ns=2;s=ReadOnly"}, "refuses to have written ns=2;s=ReadOnly: Bad"),
    ],
)
def test_variables_that_cannot_be_written_are_said(tmp_path, line, nodes, said):
    watch = about(tmp_path)
    with sink_to(line, watch, **nodes) as sink:
        sink.deliver(delivery(1))
        assert said in condition(watch, NAME)
        assert counter(watch, "sink_opcua_failed") >= 2


def test_user_and_password(tmp_path):
    with OpcUaServer(user="line", password="right pass") as server:
        for password, inside in (("right pass", True), ("wrong pass", False)):
            watch = about(tmp_path)
            with sink_to(server, watch, user="line", password=password) as sink:
                sink.deliver(delivery(1))
                assert bool(counter(watch, "sink_opcua_delivered")) is inside
                assert bool(condition(watch, NAME)) is not inside
                assert "pass" not in condition(watch, NAME)


def test_signed_and_encrypted(tmp_path):
    cert, key = certificate(tmp_path, "server", uri="urn:freeopcua:python:server")
    ours, our_key = certificate(tmp_path, "client", uri="urn:edgevlm:watch")
    policies = (ua.SecurityPolicyType.NoSecurity, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt)
    with OpcUaServer(policies=policies, cert=cert, key=key) as server:
        for more in ({}, {"server_cert": cert}):
            watch = about(tmp_path)
            secured = {"policy": "Basic256Sha256", "cert": ours, "key": our_key, **more}
            with sink_to(server, watch, **secured) as sink:
                sink.deliver(delivery(5, "reject"))
                assert condition(watch, NAME) == ""
                assert server.values("Text", "UInt32") == ["reject", 5]
        secured = {"policy": "Basic256Sha256", "cert": ours, "key": our_key}
        nowhere = {"cert": tmp_path / "nowhere.pem"}
        for wrong, said in (({"policy": "Aes256Sha256RsaPss"}, "unreachable"), (nowhere, "cannot read")):
            watch = about(tmp_path)
            with sink_to(server, watch, **{**secured, **wrong}) as sink:
                sink.deliver(delivery(6))
                assert said in condition(watch, NAME)


def test_a_server_that_hangs_does_not_hold_the_end_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        watch = about(tmp_path)
        url = f"opc.tcp://127.0.0.1:{silent.getsockname()[1]}"
        sink = make_sink(Options(url=url, timeout_s=0.2, **NODES), watch)
        begun = time.monotonic()
        sink.start()
        sink.deliver(delivery(1))
        sink.close()
        sink.close()
        assert time.monotonic() - begun < 30
        assert condition(watch, NAME)


def test_a_server_that_stops_answering_does_not_hold_the_end_up(tmp_path, line):
    watch = about(tmp_path)
    with sink_to(line, watch, timeout_s=60) as sink:
        sink.deliver(delivery(1))
        assert counter(watch, "sink_opcua_delivered") == 1
        with line.hanging():
            begun = time.monotonic()
            sink.close()
            assert time.monotonic() - begun < 30
    assert line.values("Text") == ["accept"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (65535 + 5, "UInt16", 4),
        (40000, "Int16", 40000 - 65536),
        (300, "Byte", 44),
        (True, "Int32", 1),
        (2, "Double", 2.0),
        (0.5, "Float", 0.5),
        (1, "Boolean", True),
        (7, "String", "7"),
    ],
)
def test_values_take_the_type_of_their_variable(value, kind, expected):
    made = converted(value, ua.VariantType[kind], "node")
    assert (made.Value, made.VariantType.name) == (expected, kind)
    assert type(made.Value) is type(expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://plc"}, "bad value for url"),
        ({"url": "opc.tcp://me:secret@plc:4840"}, "bad value for url"),
        ({"policy": "Basic128"}, "bad value for policy"),
        ({"policy": "Basic256Sha256"}, "bad value for policy"),
        ({"cert": "/cert.pem"}, "bad value for key"),
        ({"code_node": "ns=2;s=Text"}, "bad value for verdict_node"),
        ({"code_node": "Code"}, "bad value for code_node"),
        ({"verdict_node": None}, "bad value for verdict_node"),
        ({"codes": {"accept": 40000}}, "bad value for codes.accept"),
        ({"password": "secret"}, "bad value for user"),
    ],
)
def test_bad_options_are_one_line(tmp_path, options, said):
    with pytest.raises(EdgeVLMError, match=said) as caught:
        make_sink(Options(**{"url": "opc.tcp://plc:4840", "verdict_node": "ns=2;s=Text", **options}), about(tmp_path))
    assert "secret" not in str(caught.value)
