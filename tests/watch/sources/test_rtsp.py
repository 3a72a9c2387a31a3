"""Against a real RTSP server, on good days and bad ones."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.rtsp import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import rtsp, videos
from tests.support.feeds import check_order, running

LENGTH = 75


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.write(tmp_path_factory.mktemp("video") / "a.mp4", LENGTH)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.write(tmp_path_factory.mktemp("video") / "b.mp4", LENGTH, (480, 368))


def camera(url: str, status: Status, timeout_s: float = 3.0, **more: str):
    return open_source(Options(url=url, timeout_s=timeout_s, **more), status)


def check_pictures(frames) -> None:
    """Each is the picture that its code names."""
    for frame in frames:
        number = videos.number(frame.pixels)
        assert number < LENGTH
        np.testing.assert_allclose(videos.upper_colour(frame.pixels), videos.colour(number), atol=6)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_come_in_their_colours_and_order(video, transport):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status, transport=transport), status) as feed:
        feed.more(40)
    check_pictures(feed.frames)
    check_order(feed.frames)
    assert len({videos.number(frame.pixels) for frame in feed.frames}) > 20
    assert feed.frames[0].size == (320, 240)
    assert feed.counted("decode_errors") == 0


def test_the_server_is_killed_and_started_again(video):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status), status) as feed:
        feed.more(10)
        server.kill()
        feed.until(lambda: "source" in feed.conditions(), "the loss")
        assert not status.healthy
        feed.until(lambda: feed.counted("source_losses") > 2, "further tries")
        before = len(feed.frames)
        with rtsp.serving("--port", str(server.port), video):
            feed.more(10)
            assert feed.conditions() == {}
    assert len(feed.frames) >= before + 10
    check_order(feed.frames)
    check_pictures(feed.frames)


def test_an_orderly_end_is_a_loss_too(video):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status), status) as feed:
        feed.more(5)
        server.ask("end")
        feed.until(lambda: feed.counted("source_losses") > 0, "the loss")
        feed.more(5)
    check_pictures(feed.frames)


def test_of_a_damaged_stretch_only_whole_pictures_are_given(video):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status), status) as feed:
        feed.more(10)
        server.ask("damage 3")
        feed.until(lambda: feed.counted("decode_errors") > 15, "damage")
        feed.more(60)
    assert feed.counted("source_losses") == 0
    check_order(feed.frames)
    check_pictures(feed.frames)


def test_the_size_changes_in_the_middle(video, larger):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status), status) as feed:
        feed.more(10)
        server.ask(f"switch {larger}")
        feed.until(lambda: feed.frames[-1].size == (480, 368), "the larger size")
        feed.more(10)
        server.ask(f"switch {video}")
        feed.until(lambda: feed.frames[-1].size == (320, 240), "the smaller size")
        feed.more(10)
    assert feed.counted("source_losses") == 0
    check_order(feed.frames)
    check_pictures(feed.frames)


def test_a_camera_that_hangs_is_opened_again(video):
    status = Status()
    with rtsp.serving(video) as server, running(camera(server.url, status, timeout_s=0.5), status) as feed:
        feed.more(5)
        server.ask("stall 1000")
        feed.until(lambda: "source" in feed.conditions(), "the loss")
        assert "no data for 0.5 s" in feed.conditions()["source"]
        server.ask("stall 0")
        feed.more(5)
        assert feed.conditions() == {}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_unreachable_at_the_start_fails_or_waits(video):
    port = free_port()
    url = f"rtsp://me:s3cret@127.0.0.1:{port}/camera"
    status = Status()
    with running(camera(url, status), status, "fail") as feed:
        feed.until(feed.ended.is_set)
    assert isinstance(feed.error, SourceLost)
    assert str(feed.error) == f"rtsp://127.0.0.1:{port}/camera: Connection refused"
    status = Status()
    with running(camera(url.replace("me:s3cret@", ""), status), status) as feed:
        feed.until(lambda: feed.counted("source_losses") > 1)
        with rtsp.serving("--port", str(port), video):
            feed.more(3)


def refused(url: str, **more: str) -> str:
    """The one line with which a camera is refused at the start, even where it would be tried again."""
    status = Status()
    with running(camera(url, status, **more), status) as feed:
        feed.until(feed.ended.is_set)
    assert type(feed.error) is EdgeVLMError
    assert "\n" not in str(feed.error)
    return str(feed.error)


def test_sound_alone_is_no_video():
    with rtsp.serving("--sound") as server:
        assert refused(server.url) == f"{server.url}: there is no video in it"


def test_credentials_are_sent_and_never_said(video):
    with rtsp.serving("--user", "me", "--password", "s3cret:@/", video) as server:
        for given in ({"user": "me", "password": "s3cret:@/"}, {}):
            url = server.url if given else server.url.replace("//", "//me:s3cret%3A%40%2F@")
            status = Status()
            with running(camera(url, status, **given), status) as feed:
                feed.more(3)
        wrong = refused(server.url.replace("//", "//me:wr0ng@"))
        assert wrong == f"{server.url}: it wants another user or password"
        assert refused(server.url) == wrong
    made = Options(url="rtsp://me:s3cret@host/", password="hush")
    assert "s3cret" not in repr(made)
    assert "hush" not in repr(made)
    assert "s3cret" not in repr(open_source(made, Status()))


def test_a_slow_taker_gets_the_newest_and_what_it_missed_is_counted(video):
    """One that needs five frames' time for each is never behind: what it gets has only just been received."""
    status, ages = Status(), []

    def each(frame):
        ages.append(time.monotonic() - frame.captured)
        time.sleep(0.2)

    with rtsp.serving(video) as server, running(camera(server.url, status), status, each=each) as feed:
        feed.more(15)
    check_order(feed.frames)
    assert feed.counted("frames_dropped") > 15
    steps = [
        (videos.number(after.pixels) - videos.number(before.pixels)) % LENGTH
        for before, after in zip(feed.frames[1:], feed.frames[2:], strict=False)
    ]
    assert np.median(steps) >= 4
    assert np.median(ages) < 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://host/"}, "it must be an address that begins with rtsp:// or rtsps://"),
        ({"url": "rtsp://"}, "url"),
        ({"url": "rtsp://me:s3cret@host:99999/"}, "url"),
        ({"url": "rtsp://host/", "transport": "pigeon"}, '"tcp" or "udp"'),
        ({"url": "rtsp://host/", "timeout_s": 0}, "above 0"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(EdgeVLMError, match=said) as caught:
        Options(**options)
    assert "s3cret" not in str(caught.value)


def test_a_host_that_hangs_up_or_says_nothing(video):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/camera"
        status = Status()
        with running(camera(url, status, timeout_s=0.5), status, "fail") as feed:
            feed.until(feed.ended.is_set)
    assert isinstance(feed.error, SourceLost)
    assert str(feed.error) == f"{url}: no data for 0.5 s"
