"""Against a web server of the standard library that fails in every way."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial

import pytest

from edgevlm.watch.sinks import courier
from edgevlm.watch.sinks.webhook import Options, WebhookSink, make_sink
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.certificates import certificate
from tests.support.hooked import Hook
from tests.support.made_records import about, condition, counter, delivery, pending
from tests.support.polling import until


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(courier, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def sink_to(port: int, watch, **options) -> Iterator[WebhookSink]:
    sink = make_sink(Options(url=f"http://127.0.0.1:{port}/hook?line=1", **options), watch)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


def numbers(bodies: list[bytes]) -> list[int]:
    return [json.loads(body)["number"] for body in bodies]


def test_a_record_arrives_signed_with_its_id(tmp_path):
    watch = about(tmp_path)
    with Hook() as hook:
        options = {"token": "to-ken", "signing_token": "key", "headers": {"X-Line": "7"}}
        with sink_to(hook.port, watch, **options) as sink:
            sink.pending(pending())
            sink.deliver(delivery(1, text="part 1"))
        ((headers, body, _, _),) = hook.received
    found = json.loads(body)
    assert (found["number"], found["trigger_text"], found["verdict"]) == (1, "part 1", "accept")
    assert headers["Idempotency-Key"] == found["id"] == "id-1-accept"
    assert headers["Authorization"] == "Bearer to-ken"
    assert headers["X-Line"] == "7"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Signature-256"] == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()
    assert counter(watch, "sink_webhook_delivered") == 1


def test_failures_of_every_kind_lose_nothing_and_keep_the_order(tmp_path):
    watch = about(tmp_path)
    with Hook(deque([500, 200, "close", 502, 200, "hang", 404, 401, 301, 200])) as hook:
        with sink_to(hook.port, watch, timeout_s=0.3) as sink:
            for number in range(1, 9):
                sink.deliver(delivery(number))
            until(lambda: counter(watch, "sink_webhook_delivered") == 8, "all eight")
            sink.beat(True)
            assert watch.status.snapshot().gauges["sink_webhook_waiting"] == 0
        assert numbers(hook.delivered()) == list(range(1, 9))
        repeats = [(headers["Idempotency-Key"], body) for headers, body, _, _ in hook.received]
        assert len(repeats) == 15
        assert len(set(repeats)) == 8  # a repeat is the same, under the same key
    assert counter(watch, "sink_webhook_repeated") == 7
    assert watch.status.snapshot().conditions == ()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_to(tmp_path, status, form):
    watch = about(tmp_path)
    after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    with Hook(deque([status]), {"Retry-After": after}) as hook, sink_to(hook.port, watch) as sink:
        sink.deliver(delivery(1))
        until(lambda: f"answer {status}" in condition(watch, "sink webhook connection"), "the condition")
        until(hook.delivered, "the repeat")
        (first, second) = [at for _, _, _, at in hook.received]
        assert second - first > 0.9


def test_a_record_that_is_refused_holds_nothing_up(tmp_path):
    watch = about(tmp_path)
    with Hook(deque([200, 422])) as hook, sink_to(hook.port, watch) as sink:
        for number in range(1, 3):
            sink.deliver(delivery(number))
        until(lambda: counter(watch, "sink_webhook_refused") == 1, "refused")
        assert "answered 422" in condition(watch, "sink webhook refused")
        sink.deliver(delivery(3))
        until(lambda: counter(watch, "sink_webhook_delivered") == 2, "the others")
        until(lambda: not condition(watch, "sink webhook refused"), "well again")
        assert numbers(hook.delivered()) == [1, 3]


def test_a_server_that_is_not_there_gets_all_after_a_restart(tmp_path):
    with Hook() as gone:
        port = gone.port
    watch = about(tmp_path)
    with sink_to(port, watch) as sink:
        for number in range(1, 6):
            sink.deliver(delivery(number))
        until(lambda: condition(watch, "sink webhook connection"), "the condition")
    assert counter(watch, "sink_webhook_delivered") == 0
    watch = about(tmp_path)
    with Hook(port=port) as hook, sink_to(port, watch):
        until(lambda: counter(watch, "sink_webhook_delivered") == 5, "what waited")
        assert numbers(hook.delivered()) == [1, 2, 3, 4, 5]


def test_two_places_that_differ_in_their_query_alone_have_a_spool_each(tmp_path):
    watch = about(tmp_path)
    with Hook() as hook:
        sinks = [make_sink(Options(url=f"http://127.0.0.1:{hook.port}/hook?line={i}"), watch) for i in (1, 2)]
        for sink in sinks:
            sink.start()
            sink.deliver(delivery(1))
        until(lambda: counter(watch, "sink_webhook_delivered") == 2, "one record at each")
        for sink in sinks:
            sink.close()
    folders = [file.name for file in watch.folder.iterdir() if file.name.startswith("spool-webhook-")]
    assert len(folders) == 2


def test_a_server_that_hangs_does_not_hold_the_end_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        watch = about(tmp_path)
        sink = make_sink(Options(url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=600, drain_s=0.5), watch)
        sink.start()
        sink.deliver(delivery(1))
        begun = time.monotonic()
        sink.close()
        sink.close()
        assert time.monotonic() - begun < 20


def test_tls_with_a_certificate_of_our_own(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost")
    (ca, key), (wrong, _) = certificate(tmp_path, "server"), certificate(tmp_path, "other")
    with Hook(certificate=(ca, key)) as hook:
        for trusted in (ca, wrong, None):
            watch = about(tmp_path / "watch" / str(trusted and trusted.name))
            url = f"https://localhost:{hook.port}/hook"
            sink = make_sink(Options(url=url, ca=trusted, drain_s=0 if trusted is not ca else 30), watch)
            sink.start()
            sink.deliver(delivery(1))
            if trusted is not ca:
                text = until(partial(condition, watch, "sink webhook connection"), "the condition")
                assert "certificate verify failed" in text
            sink.close()
            assert counter(watch, "sink_webhook_delivered") == int(trusted is ca)


def test_no_secret_is_ever_shown(tmp_path, caplog):
    watch = about(tmp_path)
    options = Options(url="http://me:secret@127.0.0.1:9/secret?key=secret", token="secret", headers={"X-Key": "secret"})
    assert "secret" not in repr(options).replace(options.url, "")
    sink = make_sink(options, watch)
    sink.start()
    sink.deliver(delivery(1))
    text = until(lambda: condition(watch, "sink webhook connection"), "the condition")
    sink.close()
    assert "http://127.0.0.1:9/... does not take records" in text
    assert "secret" not in text + caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://host/"}, "bad value for url"),
        ({"url": "http://"}, "bad value for url"),
        ({"url": "http://host:99999/"}, "bad value for url"),
        ({"url": "http://me:secret@host:x/"}, "bad value for url"),
        ({"headers": {"A b": "c"}}, "bad value for headers"),
        ({"headers": {"Idempotency-Key": "c"}}, "bad value for headers"),
        ({"headers": {"X-Key": "secret\r\nX: y"}}, "bad value for headers.X-Key"),
        ({"token": "secret\n"}, "bad value for token"),
        ({"timeout_s": 0}, "bad value for timeout_s"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(EdgeVLMError, match=said) as caught:
        Options(**{"url": "http://host/", **options})
    assert "secret" not in str(caught.value)
