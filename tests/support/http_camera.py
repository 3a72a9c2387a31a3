"""A camera over HTTP, of the standard library: MJPEG without end at /video, one picture at /picture."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from tests.support import videos


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@dataclass
class Camera:
    """What it shows, and how it behaves; tests change both while it runs."""

    url: str = ""
    size: tuple[int, int] = (320, 240)
    fps: float = 25.0
    shown: int = 0
    """Number of the picture shown last."""
    bodies: Callable[[int], bytes] | None = None
    """What is sent as the picture of a number, where it is not that picture as JPEG."""
    content_type: str = "image/jpeg"
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    scheme: str = ""
    """"Basic" or "Digest": asks for user "me" and password "s3cret:@/"."""
    etag: bool = False
    pause_s: float = 0.0
    """In the middle of an answer."""
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def body(self, number: int) -> bytes:
        return self.bodies(number) if self.bodies else jpeg(videos.picture(number % 256, self.size))


USER, PASSWORD = "me", "s3cret:@/"


def _digest_of(header: str, method: str) -> bool:
    said = dict(part.strip().split("=", 1) for part in header.removeprefix("Digest ").split(","))
    said = {key: value.strip('"') for key, value in said.items()}
    first = hashlib.md5(f"{USER}:camera:{PASSWORD}".encode()).hexdigest()
    second = hashlib.md5(f"{method}:{said['uri']}".encode()).hexdigest()
    chain = ":".join((first, said["nonce"], said["nc"], said["cnonce"], said["qop"], second))
    return said["username"] == USER and said["response"] == hashlib.md5(chain.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    camera: Camera

    def do_GET(self) -> None:
        camera = self.camera
        camera.requests.append(dict(self.headers.items()))
        if camera.scheme and not self._let_in(self.headers.get("Authorization", "")):
            self.send_response(401)
            more = ', qop="auth", nonce="abc", algorithm=MD5' if camera.scheme == "Digest" else ""
            self.send_header("WWW-Authenticate", f'{camera.scheme} realm="camera"{more}')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/video"):
            with suppress(OSError):
                self._video()
        else:
            with suppress(OSError):
                self._picture()

    def _let_in(self, said: str) -> bool:
        if self.camera.scheme == "Basic":
            return said == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return said.startswith("Digest ") and _digest_of(said, "GET")

    def _video(self) -> None:
        camera = self.camera
        self.send_response(camera.status)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while not camera.gone.is_set():
            camera.shown += 1
            body = camera.body(camera.shown)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            self.wfile.write(head + body + b"\r\n")
            camera.gone.wait(1 / camera.fps + camera.pause_s)

    def _picture(self) -> None:
        camera = self.camera
        body = camera.body(camera.shown)
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        if camera.etag and self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            camera.sent.append(304)
            return
        self.send_response(camera.status)
        self.send_header("Content-Type", camera.content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in ({"ETag": tag} if camera.etag else {} | camera.headers).items():
            self.send_header(name, value)
        self.end_headers()
        camera.sent.append(camera.status)
        self.wfile.write(body[: len(body) // 2])
        if camera.pause_s:
            time.sleep(camera.pause_s)
        self.wfile.write(body[len(body) // 2 :])

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the library's name
        pass


@contextmanager
def camera(port: int = 0, **behaviour: object) -> Iterator[Camera]:
    """One that runs, on a free port; nothing of it is left afterwards."""
    made = Camera(**behaviour)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"camera": made}))
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.gone.set()
        server.shutdown()
        server.server_close()
        thread.join()
