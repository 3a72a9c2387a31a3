"""No machine that tests has a camera: what is said where there is none, and what FFmpeg is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevlm.watch.sources import v4l2
from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.v4l2 import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support.feeds import running


def failure(device: Path) -> BaseException | None:
    status = Status()
    with running(open_source(Options(device=device), status), status, "fail") as feed:
        feed.until(feed.ended.is_set)
    return feed.error


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(v4l2, "DEVICES", tmp_path)
    error = failure(tmp_path / "video7")
    assert isinstance(error, SourceLost)
    assert str(error) == f"{tmp_path}/video7: no such camera: this machine has no camera, or may not see it"
    (tmp_path / "video0").touch()
    assert str(failure(tmp_path / "video7")).endswith(f"there are {tmp_path}/video0")


def test_a_device_that_is_no_camera():
    error = failure(Path("/dev/null"))
    assert isinstance(error, EdgeVLMError)
    assert str(error).startswith("/dev/null: ")


def test_what_ffmpeg_is_asked_for():
    opening = open_source(
        Options(device=Path("/dev/video0"), size="1280x720", fps=15, pixels="mjpeg"), Status()
    ).opening
    assert opening.format == "v4l2"
    assert dict(opening.options) == {"video_size": "1280x720", "framerate": "15", "input_format": "mjpeg"}
    assert dict(open_source(Options(device=Path("/dev/video0")), Status()).opening.options) == {}


@pytest.mark.parametrize(
    "options", [{"size": "big"}, {"size": "0x0"}, {"fps": 0}, {"pixels": "a b"}, {"timeout_s": -1}]
)
def test_bad_options(options):
    with pytest.raises(EdgeVLMError, match=next(iter(options))):
        Options(device=Path("/dev/video0"), **options)
