"""What may be read of an address."""

from __future__ import annotations

import pytest

from edgevlm.watch.sources.reading.address import credentials, shown, with_credentials, without_credentials


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
def test_nothing_secret_is_shown(url, said):
    assert shown(url) == said


def test_credentials_go_in_and_out():
    url = with_credentials("rtsp://old:older@cam:554/a?b=c", "me", "s3cret:@/")
    assert url == "rtsp://me:s3cret%3A%40%2F@cam:554/a?b=c"
    assert credentials(url, "", "") == ("me", "s3cret:@/")
    assert credentials(url, "you", "") == ("you", "")
    assert without_credentials(url) == "rtsp://cam:554/a?b=c"
    assert with_credentials("rtsp://cam/a", "", "") == "rtsp://cam/a"
