"""Against a real MJPEG server of the standard library."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.http import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import http_camera, videos
from tests.support.feeds import check_order, running


def stream(url: str, status: Status, timeout_s: float = 3.0, **more: str):
    return open_source(Options(url=f"{url}/video", timeout_s=timeout_s, **more), status)


def check_pictures(frames) -> None:
    for frame in frames:
        number = videos.number(frame.pixels)
        np.testing.assert_allclose(videos.upper_colour(frame.pixels), videos.colour(number), atol=6)


def test_frames_come_in_their_colours_and_order():
    status = Status()
    with http_camera.camera() as camera, running(stream(camera.url, status), status) as feed:
        feed.more(40)
    check_pictures(feed.frames)
    check_order(feed.frames)
    numbers = [videos.number(frame.pixels) for frame in feed.frames]
    assert numbers == sorted(numbers)


def test_damaged_pictures_are_counted_and_left_out():
    def bodies(number: int) -> bytes:
        whole = http_camera.jpeg(videos.picture(number % 256))
        return whole[: len(whole) // 3] if number % 3 == 0 else whole

    status = Status()
    with http_camera.camera(bodies=bodies) as camera, running(stream(camera.url, status), status) as feed:
        feed.until(lambda: feed.counted("decode_errors") > 5, "damage")
        feed.more(20)
    check_pictures(feed.frames)
    assert all(videos.number(frame.pixels) % 3 for frame in feed.frames)


def test_the_size_changes_in_the_middle():
    status = Status()
    with http_camera.camera() as camera, running(stream(camera.url, status), status) as feed:
        feed.more(5)
        camera.size = (480, 368)
        feed.until(lambda: feed.frames[-1].size == (480, 368), "the larger size")
        feed.more(5)
    check_pictures(feed.frames)


def test_the_server_goes_and_comes_again():
    status = Status()
    with http_camera.camera() as camera, running(stream(camera.url, status), status) as feed:
        feed.more(5)
        camera.gone.set()
        feed.until(lambda: "source" in feed.conditions(), "the loss")
        camera.gone.clear()
        feed.more(5)
        assert feed.conditions() == {}
    check_order(feed.frames)


def test_a_server_that_hangs_is_opened_again():
    status = Status()
    with http_camera.camera() as camera, running(stream(camera.url, status, timeout_s=0.5), status) as feed:
        feed.more(5)
        camera.pause_s = 3.0
        feed.until(lambda: "no data for 0.5 s" in feed.conditions().get("source", ""), "the loss")
        camera.pause_s = 0
        feed.more(5)


@pytest.mark.parametrize("given", ["options", "address"])
def test_credentials_are_sent_and_never_said(given):
    status = Status()
    with http_camera.camera(scheme="Basic") as camera:
        secret = {"user": http_camera.USER, "password": http_camera.PASSWORD} if given == "options" else {}
        url = camera.url if secret else camera.url.replace("//", "//me:s3cret%3A%40%2F@")
        with running(stream(url, status, **secret), status) as feed:
            feed.more(3)
        wrong = stream(camera.url.replace("//", "//me:wr0ng@"), status)
        with running(wrong, Status()) as refused:
            refused.until(refused.ended.is_set)
        assert str(refused.error) == f"{camera.url}/video: it wants another user or password"


def test_a_token_is_sent():
    status = Status()
    with http_camera.camera() as camera, running(stream(camera.url, status, token="abc123"), status) as feed:
        feed.more(1)
        assert camera.requests[0]["Authorization"] == "Bearer abc123"
    assert "abc123" not in repr(Options(url="http://host/", token="abc123"))


def test_what_is_no_video():
    status = Status()
    with http_camera.camera(bodies=lambda number: b"<html>" * 1000, content_type="text/html") as camera:
        source = open_source(Options(url=f"{camera.url}/picture", timeout_s=3), status)
        with running(source, status) as feed:
            feed.until(feed.ended.is_set)
    assert str(feed.error) == f"{camera.url}/picture: what it gives is no video that is known"
    assert type(feed.error) is EdgeVLMError


def test_a_path_that_is_not_there():
    status = Status()
    with http_camera.camera(status=404) as camera, running(stream(camera.url, status), status, "fail") as feed:
        feed.until(feed.ended.is_set)
    assert isinstance(feed.error, SourceLost)
    assert str(feed.error) == f"{camera.url}/video: Server returned 404 Not Found"
