"""Against a real HTTP server of the standard library that gives one picture a request."""

from __future__ import annotations

import numpy as np
import pytest

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.snapshot import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import http_camera, videos
from tests.support.feeds import check_order, running


def snapshots(camera: http_camera.Camera, status: Status, **more: object):
    settings = {"every_s": 0.05, "timeout_s": 3.0, **more}
    return open_source(Options(url=f"{camera.url}/picture", **settings), status)


def ended(camera: http_camera.Camera, at_start: str = "fail", **more: object) -> BaseException | None:
    status = Status()
    with running(snapshots(camera, status, **more), status, at_start) as feed:
        feed.until(feed.ended.is_set)
    return feed.error


def test_each_request_gives_the_picture_of_its_moment():
    status = Status()
    with http_camera.camera() as camera, running(snapshots(camera, status), status) as feed:
        for number in (3, 90, 200):
            camera.shown = number
            feed.more(3)
            assert videos.number(feed.frames[-1].pixels) == number
            np.testing.assert_allclose(videos.upper_colour(feed.frames[-1].pixels), videos.colour(number), atol=4)
    check_order(feed.frames)


@pytest.mark.parametrize("repeat", [False, True])
def test_an_unchanged_picture_is_not_sent_again(repeat):
    status = Status()
    with http_camera.camera(etag=True) as camera, running(snapshots(camera, status, repeat=repeat), status) as feed:
        feed.until(lambda: feed.counted("pictures_unchanged") > 4, "answers of 304")
        before = len(feed.frames)
        assert before > 3 if repeat else before == 1
        camera.shown = 7
        feed.until(lambda: videos.number(feed.frames[-1].pixels) == 7, "the next picture")
        assert camera.sent.count(200) == 2


def test_a_truncated_picture_between_good_ones_is_counted():
    def bodies(number: int) -> bytes:
        whole = http_camera.jpeg(videos.picture(number))
        return whole[:1000] if number == 5 else whole

    status = Status()
    with http_camera.camera(bodies=bodies, etag=True) as camera:
        source = snapshots(camera, status, repeat=True)
        with running(source, status) as feed:
            feed.more(2)
            camera.shown = 5
            feed.until(lambda: feed.counted("decode_errors") > 0, "the damage")
            camera.shown = 6
            feed.until(lambda: videos.number(feed.frames[-1].pixels) == 6, "the next picture")
    assert {videos.number(frame.pixels) for frame in feed.frames} == {0, 6}


def test_nothing_but_damage_is_a_loss():
    with http_camera.camera(bodies=lambda number: b"<html>no picture</html>") as camera:
        error = ended(camera)
    assert isinstance(error, SourceLost)
    assert "not an image" in str(error)


def test_size_and_time_are_bounded():
    with http_camera.camera() as camera:
        assert "larger than 1024 bytes" in str(ended(camera, max_mb=1 / 1024))
        camera.pause_s = 2.0
        assert "in 0.3 s" in str(ended(camera, timeout_s=0.3))


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
@pytest.mark.parametrize("given", ["options", "address"])
def test_credentials_are_sent_as_they_are_asked_for(scheme, given):
    status = Status()
    with http_camera.camera(scheme=scheme) as camera:
        address = camera.url
        secret = {"user": http_camera.USER, "password": http_camera.PASSWORD}
        if given == "address":
            camera.url, secret = camera.url.replace("//", "//me:s3cret%3A%40%2F@"), {}
        with running(snapshots(camera, status, **secret), status) as feed:
            feed.more(3)
        assert "Authorization" not in camera.requests[0]
        camera.url = address
        wrong = str(ended(camera, "retry", user="me", password="wr0ng"))
        assert wrong == f"{address}/picture: it wants another user or password"
        assert str(ended(camera, "retry")) == f"{address}/picture: it wants a user and a password"


def test_other_answers():
    with http_camera.camera(status=503) as camera:
        assert str(ended(camera)) == f"{camera.url}/picture: it answers 503 Service Unavailable"
        camera.status, camera.headers = 302, {"Location": "http://me:s3cret@elsewhere/picture?pwd=s3cret"}
        error = ended(camera, "retry")
        assert str(error).endswith("it sends to another address: http://elsewhere/picture?...: give that one")
    assert "refused" in str(ended(camera)).lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"url": "rtsp://host/"}, "http://"), ({"every_s": 0}, "above 0"), ({"token": "a\nb"}, "one line")],
)
def test_bad_options(options, said):
    with pytest.raises(EdgeVLMError, match=said):
        Options(**{"url": "http://host/picture", **options})
