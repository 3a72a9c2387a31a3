"""What sinks and triggers of one protocol share."""

from __future__ import annotations

import sys

import msgspec
import pytest

from edgevlm.installed import installed
from edgevlm.watch.links.mqtt import level
from edgevlm.watch.links.urls import check_url, shown, without_path
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.status import Status
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.made_records import about

SINK_OPTIONS = {
    "mqtt": ({}, "paho", "camera"),
    "webhook": ({"url": "http://host/"}, "httpx2", "camera"),
    "opcua": ({"url": "opc.tcp://host:4840", "code_node": "i=7"}, "asyncua", "opcua"),
}
TRIGGER_OPTIONS = {
    "mqtt": ({"topic": "a"}, "paho", "camera"),
    "modbus": ({"host": "plc", "coil": 1}, "pymodbus", "camera"),
}


@pytest.fixture
def without(monkeypatch):
    """Makes a package look as if it were not installed."""

    def hide(package: str) -> None:
        for name in list(sys.modules):
            if name == package or name.startswith(f"{package}."):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide


@pytest.mark.parametrize("kind", SINK_OPTIONS)
def test_a_sink_without_its_package_says_what_to_install(tmp_path, without, kind):
    options, package, extra = SINK_OPTIONS[kind]
    without(package)
    module = SINKS.get(kind)
    watch = about(tmp_path)
    sink = module.make_sink(module.Options(**options), watch)
    try:
        sink.start()
        said = "".join(one.text for one in watch.status.snapshot().conditions)
    except EdgeVLMError as error:
        said = str(error)
    sink.close()
    assert f"{package} is not installed" in said
    assert f"[{extra}]" in said


@pytest.mark.parametrize("kind", TRIGGER_OPTIONS)
def test_a_trigger_without_its_package_says_what_to_install(without, kind):
    options, package, extra = TRIGGER_OPTIONS[kind]
    without(package)
    module = TRIGGERS.get(kind)
    trigger = module.make_trigger(module.Options(**options), Status())
    with pytest.raises(EdgeVLMError, match=f"{package} is not installed: .*{extra}"):
        trigger.start()
    trigger.close()


def test_other_errors_of_an_import_stay():
    with pytest.raises(ValueError, match="broken"), installed("camera"):
        raise ValueError("broken")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rtsp://me:s3cret@cam:554/stream1", "rtsp://cam:554/stream1"),
        ("rtsp://cam/stream1", "rtsp://cam/stream1"),
        ("http://cam/snap.cgi?usr=me&pwd=s3cret", "http://cam/snap.cgi?..."),
        ("rtsp://cam/user=me&password=s3cret&channel=1/live", "rtsp://cam/.../live"),
        ("rtsp://me:s3c@ret@cam/a", "rtsp://cam/a"),
        ("rtsp://me:s3cret@[fe80::1]:554/a", "rtsp://[fe80::1]:554/a"),
        ("http://me:s3cret@[broken/", "..."),
        ("http://cam/a#s3cret", "http://cam/a"),
    ],
)
def test_nothing_secret_of_a_url_is_shown(url, said):
    assert shown(url) == said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:s3cret@hooks:1/services/s3cret?key=s3cret", "https://hooks:1/..."),
        ("http://host/", "http://host"),
        ("http://host", "http://host"),
        ("http://me:s3cret@[broken/", "..."),
    ],
)
def test_of_where_verdicts_are_posted_to_the_machine_is_shown(url, said):
    assert without_path(url) == said


NO_URLS = ("", "host", "file:///etc/passwd", "http:///a", "http://h:0/", "http://h/a b", "http://h\n/")


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url(url):
    with pytest.raises(EdgeVLMError, match=r"bad value for url: .*: it must be a URL such as http://host:port/path"):
        check_url("url", url)


LEVELS = {"line 1": "line-1", "a/b+c#d": "a-b-c-d", "$SYS": "SYS", "#": "watch", "Straße": "Straße"}


@pytest.mark.parametrize(("name", "expected"), LEVELS.items())
def test_a_name_is_one_level_of_a_topic(name, expected):
    assert level(name) == expected


TABLES = {
    ("sink", "mqtt"): {"host": "broker", "tls": True, "ca": "/ca.pem", "good": ["accept"], "spool_mb": 8, "port": 1},
    ("sink", "webhook"): {"url": "https://host/a", "headers": {"X-A": "b"}, "ca": "/ca.pem", "timeout_s": 3},
    ("sink", "modbus"): {"host": "plc", "codes": {"accept": 1}, "pending_coil": 3},
    ("sink", "opcua"): {"url": "opc.tcp://h:1", "code_node": "i=1", "policy": "", "codes": {"accept": 1}},
    ("trigger", "mqtt"): {"topic": "a/#", "text_key": "part", "user": "me", "password": "secret"},
    ("trigger", "http"): {"port": 9000, "host": "0.0.0.0", "token": "long-enough"},
    ("trigger", "modbus"): {"host": "plc", "coil": 4, "text_register": 8, "text_form": "ascii"},
}


@pytest.mark.parametrize(("part", "kind"), TABLES)
def test_options_are_made_of_a_table(part, kind):
    """As a plan is read: numbers, texts, lists and tables of TOML."""
    module = (SINKS if part == "sink" else TRIGGERS).get(kind)
    table = TABLES[part, kind]
    made = msgspec.convert(table, module.Options, dec_hook=lambda wanted, value: wanted(value))
    for name, value in table.items():
        found = getattr(made, name)
        assert (str(found) if name == "ca" else list(found) if isinstance(value, list) else found) == value
