"""Pictures that clients name: nothing outside of the folder that is allowed, nothing on private networks."""

from __future__ import annotations

import asyncio
import base64
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from edgevlm.serve.pictures.bring import Pictures
from edgevlm.serve.pictures.fetching import Fetcher, is_public
from edgevlm.serve.refusals import Refusal
from edgevlm_runtime import VLM
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.chatting import client, encoded, server, user

DATA = b"\x89PNG, or so"


def get(pictures: Pictures | Fetcher, url: str) -> bytes:
    return asyncio.run(pictures.get(url))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`in` is allowed; what is beside it is not."""
    inside = tmp_path / "in"
    (inside / "deeper").mkdir(parents=True)
    (inside / "a b.png").write_bytes(DATA)
    (inside / "deeper" / "c.png").write_bytes(DATA)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "up").symlink_to(tmp_path)
    (inside / "own.png").symlink_to(inside / "a b.png")
    (inside / "loop").symlink_to(inside / "loop")
    return inside


def test_files_below_the_folder(folder: Path) -> None:
    pictures = Pictures(folder, None, 100)
    for place in ("a b.png", "deeper/c.png", "deeper/../own.png", f"{folder}/a b.png"):
        assert get(pictures, place) == DATA
    for place in (f"file://{folder}/a%20b.png", f"file://localhost{folder}/deeper/c.png", f"FILE:{folder}/own.png"):
        assert get(pictures, place) == DATA


@pytest.mark.parametrize(
    "place",
    [
        "../secret.png",
        "link.png",
        "up/secret.png",
        "file://IN/../secret.png",
        "file://IN/%2e%2e/secret.png",
        "file://elsewhere/etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd",
        "nothing.png",
        "deeper",
        "loop",
        "a\0.png",
        "\ud800.png",
        "x" * 5000,
        "",
        "ftp://host/a.png",
        "file://[",
    ],
)
def test_nothing_else(folder: Path, place: str) -> None:
    with pytest.raises(Refusal, match="no such picture below the folder") as caught:
        get(Pictures(folder, None, 100), place.replace("IN", str(folder)))
    assert caught.value.status == 400


def test_large_files_are_refused(folder: Path) -> None:
    with pytest.raises(Refusal):
        get(Pictures(folder, None, len(DATA) - 1), "a b.png")


def test_a_folder_that_is_none(folder: Path) -> None:
    with pytest.raises(EdgeVLMError, match="no such folder"):
        Pictures(folder / "a b.png", None, 100)


def test_a_file_is_the_picture(tiny: Path, vlm: VLM, tmp_path: Path) -> None:
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    (tmp_path / "part.png").write_bytes(encoded(picture))
    with server(tiny, allow_files=tmp_path) as (address, _), client(address) as asking:
        messages = [user("a scratch?", f"file://{tmp_path}/part.png")]
        answer = asking.chat.completions.create(model="tiny", messages=messages, max_tokens=9)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == vlm.ask(picture, "a scratch?", max_new_tokens=9).text


@pytest.mark.parametrize("data", ["", "a", "####", "YQ", "YQ==YQ==", "Y Q==", "YQ==\n", "é"])
def test_damaged_base64(data: str) -> None:
    given = f"data:image/png;base64,{data}"
    if data == "":
        assert get(Pictures(None, None, 100), given) == b""  # which no loader takes for a picture
        return
    with pytest.raises(Refusal, match="base64 is damaged"):
        get(Pictures(None, None, 100), given)


def test_base64() -> None:
    assert get(Pictures(None, None, 100), f"DATA:image/png;BASE64,{base64.b64encode(DATA).decode()}") == DATA


NOT_PUBLIC = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(Refusal, match=r"not on the public internet|host is not known"):
        get(Fetcher(100), f"http://{shown}/a.png")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a.png",
        "http://2130706433/a.png",
        "http://0x7f.1/a.png",
        "http://127.1/a.png",
        "http://user:word@1.1.1.1/",
        "http://[::1/a.png",
        "http://",
        "http:///a.png",
        "http://a b/",
        "http://1.1.1.1:99999/",
        "http://1.1.1.1:x/",
        "http://nowhere.invalid/a.png",
        f"http://{'a' * 300}/",
        "http://..../",
        "http://\u2488/",
    ],
)
def test_addresses_that_lead_nowhere(url: str) -> None:
    with pytest.raises(Refusal, match="cannot be fetched") as caught:
        get(Fetcher(100, seconds=20), url)
    assert caught.value.status == 400


class Handler(http.server.BaseHTTPRequestHandler):
    """A picture, a redirect, one that never ends, one that comes slowly."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        self.send_response({"/moved": 302, "/missing": 404}.get(self.path, 200))
        if self.path == "/moved":
            self.send_header("Location", "/picture")
        self.end_headers()
        try:
            self.wfile.write(DATA)
            while self.path == "/endless":
                self.wfile.write(DATA * 100)
            for _ in range(600 if self.path == "/slow" else 0):
                self.wfile.write(b"a")
                time.sleep(0.1)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def site() -> Iterator[str]:
    """A server of the standard library."""
    Handler.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.daemon_threads = True
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://localhost:{found.server_port}"
        found.shutdown()


def test_a_picture_is_fetched_by_its_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is asked for once, and connected to by the address that was looked at; the site hears the name."""
    checked: list[str] = []
    names: list[str] = []
    real = asyncio.BaseEventLoop.getaddrinfo

    async def resolve(self: asyncio.BaseEventLoop, host: str, port: int, **more: Any) -> Any:
        names.append(host)
        return await real(self, "127.0.0.1" if host == "parts.example" else host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    with site() as address:
        named = address.replace("localhost", "parts.example")
        fetcher = Fetcher(100, allowed=lambda one: checked.append(str(one)) is None)
        assert get(fetcher, f"{named}/picture?a=b#c") == DATA
    assert checked == ["127.0.0.1"]
    assert names[0] == "parts.example"
    assert "parts.example" not in names[1:]
    assert Handler.asked == [("/picture?a=b", named.removeprefix("http://"))]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("moved", "sends to another address"),
        ("missing", "answers 404"),
        ("endless", "larger than 5000 bytes"),
        ("slow", "no whole picture in 1 s"),
    ],
)
def test_bounds(path: str, says: str) -> None:
    with site() as address, pytest.raises(Refusal, match=says):
        get(Fetcher(5000, seconds=1, allowed=lambda _: True), f"{address.replace('localhost', '127.0.0.1')}/{path}")


def test_a_host_with_one_address_that_is_not_allowed_is_refused() -> None:
    with site() as address, pytest.raises(Refusal, match="not on the public internet"):
        get(Fetcher(100, allowed=lambda one: str(one) != "127.0.0.1"), f"{address}/picture")
    assert Handler.asked == []


def test_nobody_listens() -> None:
    with site() as address:
        pass
    with pytest.raises(Refusal, match="ConnectError"):
        get(Fetcher(100, allowed=lambda _: True), address.replace("localhost", "127.0.0.1"))
