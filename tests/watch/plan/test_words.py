"""What a source is by its form, and an http address by what it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgevlm.watch.plan.words import TRIGGER, part, source, source_kind
from edgevlm.watch.sinks import SINKS
from edgevlm.watch.triggers import TRIGGERS
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import plans

TYPES = {
    "/snapshot": "image/jpeg",
    "/mjpeg": "multipart/x-mixed-replace; boundary=a",
    "/video": "video/mp4",
}


class Camera(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = TYPES.get(self.path)
        self.send_response(200 if found else 404)
        if found:
            self.send_header("Content-Type", found)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "kind"), [("/snapshot", "snapshot"), ("/mjpeg", "http"), ("/video", "http")])
def test_an_address_is_asked_what_it_sends(camera, path, kind):
    assert source([camera + path]) == {"kind": kind, "url": camera + path}


def test_an_address_that_does_not_say(camera):
    with pytest.raises(EdgeVLMError, match=r"/none. does not say what it sends: .*404.*: say it with --source http"):
        source_kind(f"{camera}/none")
    assert source([f"{camera}/none"], "snapshot")["kind"] == "snapshot"


def test_nobody_there_and_no_password_told(camera):
    camera = camera.replace("http://", "http://me:secret@").rpartition(":")[0] + ":1"
    with pytest.raises(EdgeVLMError, match="does not say what it sends") as error:
        source_kind(camera)
    assert "secret" not in str(error.value)


def test_by_form(tmp_path):
    picture, video, folder = plans.picture(tmp_path / "a.PNG"), tmp_path / "a.mkv", tmp_path / "in"
    video.touch()
    folder.mkdir()
    forms = {
        "rtsp://camera/1": ("rtsp", "url"),
        "RTSPS://camera/1": ("rtsp", "url"),
        "/dev/video7": ("v4l2", "device"),
        str(video): ("video", "path"),
    }
    for word, (kind, key) in forms.items():
        assert source([word]) == {"kind": kind, key: word}
    assert source([str(folder)]) == {"kind": "folder", "path": str(folder), "existing": True}
    assert source([str(picture)]) == {"kind": "pictures", "files": [str(picture)]}


def test_patterns_and_several_pictures(tmp_path):
    files = [str(plans.picture(tmp_path / name)) for name in ("b.png", "a.png", "c[1].png")]
    assert source([f"{tmp_path}/*.png"])["files"] == sorted(files)
    assert source(files)["files"] == files
    assert source([files[2]])["files"] == [files[2]]


@pytest.mark.parametrize(
    ("registry", "word", "table"),
    [
        (TRIGGERS, "interval:2", {"kind": "interval", "seconds": 2.0}),
        (TRIGGERS, "every:10", {"kind": "every", "frames": 10}),
        (TRIGGERS, "change:0.1", {"kind": "change", "above": 0.1}),
        (TRIGGERS, "change", {"kind": "change"}),
        (TRIGGERS, "file:a:b.txt", {"kind": "file", "path": "a:b.txt"}),
        (TRIGGERS, "http:8080", {"kind": "http", "port": 8080}),
        (SINKS, "terminal", {"kind": "terminal"}),
        (SINKS, "mqtt://broker", {"kind": "mqtt", "host": "broker"}),
        (SINKS, "mqtt:broker:1884", {"kind": "mqtt", "host": "broker", "port": 1884}),
        (
            SINKS,
            "mqtts://me:p%40ss@[::1]/works/line",
            {"kind": "mqtt", "host": "::1", "tls": True, "user": "me", "password": "p@ss", "prefix": "works/line"},
        ),
        (SINKS, "modbus:plc:1502", {"kind": "modbus", "host": "plc", "port": 1502}),
        (SINKS, "webhook:https://host/a:b", {"kind": "webhook", "url": "https://host/a:b"}),
        (
            SINKS,
            "opcua:opc.tcp://plc:4840#ns=2;s=Verdict",
            {"kind": "opcua", "url": "opc.tcp://plc:4840", "verdict_node": "ns=2;s=Verdict"},
        ),
        (SINKS, "pictures:kept", {"kind": "pictures", "folder": "kept"}),
    ],
)
def test_kind_and_value(registry, word, table):
    assert part(registry, word, "--sink") == table


def test_triggers_that_others_pull():
    assert part(TRIGGERS, "mqtt://broker/line/+/part", TRIGGER) == {
        "kind": "mqtt",
        "host": "broker",
        "topic": "line/+/part",
    }
    assert part(TRIGGERS, "modbus://plc:1502/7", TRIGGER) == {"kind": "modbus", "host": "plc", "port": 1502, "coil": 7}
    assert part(TRIGGERS, "modbus:plc/7", TRIGGER) == {"kind": "modbus", "host": "plc", "coil": 7}


@pytest.mark.parametrize(
    ("word", "option"), [("modbus:plc", TRIGGER), ("modbus:plc/x", TRIGGER), ("modbus:plc/7", "--sink")]
)
def test_a_coil_belongs_to_a_trigger(word, option):
    with pytest.raises(EdgeVLMError, match=f"{option}: '{word}': write modbus:"):
        part(TRIGGERS, word, option)
