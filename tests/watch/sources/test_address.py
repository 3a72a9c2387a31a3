"""Users and passwords in addresses."""

from __future__ import annotations

from edgevlm.watch.sources.reading.address import credentials, with_credentials, without_credentials


def test_credentials_go_in_and_out():
    url = with_credentials("rtsp://old:older@cam:554/a?b=c", "me", "s3cret:@/")
    assert url == "rtsp://me:s3cret%3A%40%2F@cam:554/a?b=c"
    assert credentials(url, "", "") == ("me", "s3cret:@/")
    assert credentials(url, "you", "") == ("you", "")
    assert without_credentials(url) == "rtsp://cam:554/a?b=c"
    assert with_credentials("rtsp://cam/a", "", "") == "rtsp://cam/a"
