"""An RTSP camera out of a video file: H.264 frames of a file, again and again, at their own speed.

    /usr/bin/python3 examples/rtsp_server.py parts.mp4              # prints the address, serves until it is ended
    /usr/bin/python3 examples/rtsp_server.py --port 8554 parts.mp4

It needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good, -bad and -ugly, and therefore the
system's Python. Without a file it serves a test pattern. Nothing is encoded again.

What a bad day brings is asked for on its standard input, one line each:

    damage SECONDS    packets are lost: of every second picture one in the middle
    switch FILE       go on with another video, of another size perhaps
    stall SECONDS     send nothing
    end               end the streams in an orderly way; the next client begins anew
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 -- versions first

CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
PATTERN = (
    "videotestsrc num-buffers=50 ! video/x-raw,width=320,height=240,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=25"
)
LIVE = (
    f"( appsrc name=frames is-live=true do-timestamp=true format=time caps={CAPS} "
    "! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
)
SOUND = "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )"
HEADERS = 64
"""Bytes at the beginning of a frame that damage leaves alone."""
PACKET = 1400
"""Bytes that travel together, and are lost together."""


def access_units(video: str | None) -> list[bytes]:
    """The coded frames of a video file, as they are; of a test pattern where there is none."""
    made_by = f'filesrc location="{Path(video).resolve()}" ! parsebin' if video else PATTERN
    pipeline = Gst.parse_launch(f"{made_by} ! h264parse config-interval=-1 ! {CAPS} ! appsink name=out sync=false")
    out = pipeline.get_by_name("out")
    pipeline.set_state(Gst.State.PLAYING)
    found = []
    while (sample := out.emit("pull-sample")) is not None:
        buffer = sample.get_buffer()
        found.append(buffer.extract_dup(0, buffer.get_size()))
    pipeline.set_state(Gst.State.NULL)
    if not found:
        sys.exit(f"no H.264 frames in {video}: write the video with libx264")
    return found


class Camera:
    """Sends the frames of a video to whoever is connected; all see the same."""

    def __init__(self, units: list[bytes], fps: float, log: str | None) -> None:
        self.units, self.fps = units, fps
        self.damaged_until = self.stalled_until = 0.0
        self.ends = 0
        self._log = open(log, "w", buffering=1, encoding="ascii") if log else None  # noqa: PTH123, SIM115
        self._chance = random.Random(0)

    def configure(self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        """A first client has come: begin to send."""
        gone = threading.Event()
        media.connect("unprepared", lambda _media: gone.set())
        frames = media.get_element().get_by_name("frames")
        threading.Thread(target=self._send, args=(frames, gone), daemon=True).start()

    def _send(self, frames: Gst.Element, gone: threading.Event) -> None:
        units, at, ends, due = self.units, 0, self.ends, time.monotonic()
        while not gone.is_set() and ends == self.ends:
            if units is not self.units:
                units, at = self.units, 0
            now = time.monotonic()
            unit = None if now < self.stalled_until else units[at]
            if unit is not None and now < self.damaged_until:
                unit = self._damaged(unit) if at % 2 else unit
            if unit is not None:
                if frames.emit("push-buffer", Gst.Buffer.new_wrapped(unit)) != Gst.FlowReturn.OK:
                    return
                if self._log:
                    self._log.write(f"{at} {time.monotonic():.6f}\n")
            at = (at + 1) % len(units)
            due = max(due + 1 / self.fps, now)
            gone.wait(max(0.0, due - time.monotonic()))
        frames.emit("end-of-stream")

    def _damaged(self, unit: bytes) -> bytes:
        begin = HEADERS + self._chance.randrange(max(1, len(unit) - HEADERS))
        return unit[:begin] + unit[begin + PACKET :]

    def obey(self, line: str) -> None:
        """One line of standard input."""
        word, _, rest = line.strip().partition(" ")
        if word == "damage":
            self.damaged_until = time.monotonic() + float(rest)
        elif word == "stall":
            self.stalled_until = time.monotonic() + float(rest)
        elif word == "switch":
            self.units = access_units(rest)
        elif word == "end":
            self.ends += 1
        print(f"done {line.strip()}", flush=True)  # noqa: T201


def protect(
    server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory, user: str, password: str
) -> None:
    """Give the stream only to one who says this user and password."""
    auth, token, permissions = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken(), GstRtspServer.RTSPPermissions()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    """Serve until somebody ends it, or closes its standard input where that is a pipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", help="an H.264 video; a test pattern without one")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--user", help="with --password: ask for them")
    parser.add_argument("--password")
    parser.add_argument("--sound", action="store_true", help="serve a tone, and no pictures")
    parser.add_argument("--log", help="a file: number in the video, and time.monotonic(), of every frame sent")
    given = parser.parse_args()
    Gst.init(None)
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(str(given.port))
    factory.set_launch(SOUND if given.sound else LIVE)
    factory.set_shared(True)
    camera = None if given.sound else Camera(access_units(given.video), given.fps, given.log)
    if camera is not None:
        factory.connect("media-configure", camera.configure)
    if given.user:
        protect(server, factory, given.user, given.password or "")
    server.get_mount_points().add_factory("/camera", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {given.port} is taken: give another with --port")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)  # noqa: T201
    loop = GLib.MainLoop()
    threading.Thread(target=listen, args=(camera, loop), daemon=True).start()
    try:
        loop.run()
    except KeyboardInterrupt:
        return


def listen(camera: Camera | None, loop: GLib.MainLoop) -> None:
    """Obey standard input; the end of a pipe ends the server, that of a terminal or of nothing does not."""
    for line in sys.stdin:
        if camera is not None:
            camera.obey(line)
    if not sys.stdin.isatty() and not Path("/dev/stdin").is_char_device():
        loop.quit()


if __name__ == "__main__":
    main()
