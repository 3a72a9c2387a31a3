"""Requests as clients make them, and as they should not."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgevlm.watch.status import Status
from edgevlm.watch.triggers import http as trigger_http
from edgevlm.watch.triggers.http import HttpTrigger, Options, make_trigger
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import frame
from tests.support.polling import until

TOKEN = "a-long-token"


@contextmanager
def listening(**options) -> Iterator[HttpTrigger]:
    trigger = make_trigger(Options(port=0, **options), Status())
    trigger.start()
    try:
        yield trigger
    finally:
        trigger.close()


def request(trigger: HttpTrigger, method: str = "POST", path: str = "/trigger", body=None, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", trigger.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_request_fires_once_with_its_text():
    with listening() as trigger:
        assert trigger.fire(frame()) is None
        assert request(trigger, body=b"Teil 48112\n") == 202
        assert request(trigger, path="/trigger?text=part%207%20%C3%A4", body=b"not this") == 202
        assert request(trigger) == 202
        firings = [trigger.fire(frame()) for _ in range(4)]
        assert [firing and firing.text for firing in firings] == ["Teil 48112", "part 7 ä", "", None]
        assert all(firing.addressed and firing.kind == "http" for firing in firings[:3])


def test_requests_that_no_frame_came_for_are_told_at_the_end(caplog):
    status = Status()
    trigger = make_trigger(Options(port=0), status)
    trigger.start()
    for _ in range(2):
        assert request(trigger, body=b"part 7") == 202
    trigger.close()
    trigger.close()
    assert caplog.messages == ["trigger http: 2 that asked for a verdict get none: no frame came after them"]
    assert status.snapshot().counters == {"trigger_http_fired": 2, "trigger_http_dropped": 2}
    assert trigger.fire(frame()) is None


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/trigger", None, {}, 405),
        ("HEAD", "/trigger", None, {}, 405),
        ("PUT", "/trigger", b"x", {}, 405),
        ("DELETE", "/trigger", None, {}, 405),
        ("GET", "/", None, {}, 404),
        ("POST", "/", b"x", {}, 404),
        ("POST", "/trigger/more", b"x", {}, 404),
        ("POST", "/trigger", b"x" * 4097, {}, 413),
        ("POST", "/trigger", None, {"Content_Length": "99999999999999999999"}, 413),
        ("POST", "/trigger", None, {"Content_Length": "-1"}, 400),
        ("POST", "/trigger", b"\xff\xfe", {}, 400),
        ("POST", "/trigger?text=%ff", b"", {}, 400),
        ("POST", "/trigger", iter([b"x"]), {"Transfer_Encoding": "chunked"}, 411),
        ("POST", "/trigger", b"x", {"Origin": "http://evil.example"}, 403),
        ("BREW", "/trigger", None, {}, 501),
    ],
)
def test_other_requests_are_refused_and_fire_nothing(method, path, body, headers, status):
    with listening() as trigger:
        assert request(trigger, method, path, body, **headers) == status
        assert trigger.fire(frame()) is None


def test_the_longest_body_is_taken_and_its_text_bounded():
    with listening() as trigger:
        assert request(trigger, body=b"x" * 4096) == 202
        firing = trigger.fire(frame())
        assert firing is not None
        assert len(firing.text) == 1024


WRONG = (None, "", "Bearer", "Bearer wrong-token", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe4")


@pytest.mark.parametrize("given", WRONG)
def test_without_the_token_nothing_fires(given):
    with listening(token=TOKEN) as trigger:
        headers = {} if given is None else {"Authorization": given}
        assert request(trigger, body=b"x", **headers) == 401
        assert trigger.fire(frame()) is None
        assert request(trigger, body=b"x", Authorization=f"Bearer {TOKEN}", Origin="http://page") == 202
        assert trigger.fire(frame()) is not None


def test_too_many_are_told_so():
    with listening() as trigger:
        answers = [request(trigger, body=b"%d" % number) for number in range(66)]
        assert answers == [202] * 64 + [503] * 2


def test_slow_and_many_connections_do_not_keep_others_out(monkeypatch):
    monkeypatch.setattr(trigger_http, "LONGEST_EXCHANGE_S", 1.0)
    with listening() as trigger:
        slow = [socket.create_connection(("127.0.0.1", trigger.port), 30) for _ in range(trigger_http.MOST_CONNECTIONS)]
        for one in slow:
            one.sendall(b"POST /trigger HTTP/1.1\r\nContent-Length: 10\r\n\r\nslow")

        def taken() -> bool:
            try:
                return request(trigger, body=b"quick") == 202
            except (OSError, http.client.HTTPException):
                return False

        until(taken, "a place is free again")
        for one in slow:
            one.close()
        firing = trigger.fire(frame())
        assert firing is not None
        assert firing.text == "quick"
        assert trigger.fire(frame()) is None  # half a body fires nothing


def test_a_hanging_client_does_not_hold_the_end_up():
    with listening() as trigger, socket.create_connection(("127.0.0.1", trigger.port), 30):
        begun = time.monotonic()
        trigger.close()
        trigger.close()
        assert time.monotonic() - begun < 20


def test_a_port_that_is_taken_is_one_line():
    with listening() as trigger:
        other = make_trigger(Options(port=trigger.port), Status())
        with pytest.raises(EdgeVLMError, match=f"cannot listen on 127.0.0.1:{trigger.port}: .*choose another port"):
            other.start()
        other.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "bad value for host"),
        ({"host": "line-1"}, "bad value for host"),
        ({"port": 70000}, "bad value for port"),
        ({"token": "secret"}, "bad value for token"),
        ({"token": "secret\n-and-more"}, "bad value for token"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(EdgeVLMError, match=said) as caught:
        Options(**options)
    assert "secret" not in str(caught.value)
    assert TOKEN not in repr(Options(host="0.0.0.0", token=TOKEN))
