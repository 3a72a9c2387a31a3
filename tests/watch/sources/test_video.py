"""Video files, whole and broken."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from edgevlm.watch.sources.video import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import videos
from tests.support.feeds import check_order, running

LENGTH = 40


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.write(tmp_path_factory.mktemp("video") / "a: b.mp4", LENGTH)


def pictures(path: Path, status: Status | None = None, **more: bool):
    return open_source(Options(path=path, **more), status or Status()).pictures(threading.Event())


def numbers(found) -> list[int]:
    return [videos.number(one.pixels) for one in found]


def test_every_picture_in_its_colours(video):
    found = list(pictures(video))
    assert numbers(found) == list(range(LENGTH))
    for number, one in enumerate(found):
        np.testing.assert_allclose(videos.upper_colour(one.pixels), videos.colour(number), atol=6)
    assert {one.name for one in found} == {str(video)}


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx265", "ffv1"])
def test_other_codecs(tmp_path, codec):
    more = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    file = videos.write(tmp_path / "a.mkv", 12, codec=codec, **more)
    assert numbers(pictures(file)) == list(range(12))


def test_pictures_that_are_sent_out_of_order_come_in_order(tmp_path):
    file = videos.write(tmp_path / "a.mp4", 30, tune="psnr", bf="3", b_strategy="0")
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.has_b_frames
    assert numbers(pictures(file)) == list(range(30))


def test_it_begins_again(video):
    found = []
    for one in pictures(video, loop=True):
        found.append(videos.number(one.pixels))
        if len(found) == 2 * LENGTH + 5:
            break
    assert found == [*range(LENGTH), *range(LENGTH), *range(5)]


def test_at_its_own_speed(video):
    status = Status()
    began = time.monotonic()
    with running(open_source(Options(path=video, realtime=True, loop=True), status), status) as feed:
        feed.until(lambda: len(feed.frames) > 5 and videos.number(feed.frames[-1].pixels) < 5, "the second round")
    assert time.monotonic() - began > (LENGTH - 1) / videos.FPS
    check_order(feed.frames)
    for frame in feed.frames:  # none before its time
        if frame.captured - feed.frames[0].captured < 1:
            at = (videos.number(frame.pixels) - videos.number(feed.frames[0].pixels)) / videos.FPS
            assert at <= frame.captured - feed.frames[0].captured + 0.05


def test_played_once_it_ends(video):
    status = Status()
    with running(open_source(Options(path=video, realtime=True), status), status) as feed:
        feed.until(feed.ended.is_set)
    assert feed.error is None
    assert feed.counted("source_losses") == 0
    assert videos.number(feed.frames[-1].pixels) == LENGTH - 1


def test_a_slow_taker_of_a_played_one_misses_pictures_and_of_a_read_one_none(video):
    for realtime in (True, False):
        status = Status()
        source = open_source(Options(path=video, realtime=realtime), status)
        with running(source, status, each=lambda frame: time.sleep(0.1)) as feed:
            feed.until(feed.ended.is_set)
        assert source.live is realtime
        if realtime:
            assert len(feed.frames) + feed.counted("frames_dropped") == LENGTH
            assert feed.counted("frames_dropped") > LENGTH / 4
        else:
            assert len(feed.frames) == LENGTH


def test_damaged_in_the_middle(tmp_path):
    """Bytes of the second second are overwritten: what is given of it is whole."""
    file = videos.write(tmp_path / "a.mkv", 75)
    data = bytearray(file.read_bytes())
    with av.open(str(file)) as container:
        places = [(one.pos, one.size) for one in container.demux(video=0) if one.size]
    for at in range(30, 45, 2):
        begin, size = places[at]
        data[begin + size // 2 : begin + size // 2 + 200] = bytes(200)
    file.write_bytes(data)
    status = Status()
    found = numbers(pictures(file, status))
    assert status.snapshot().counters["decode_errors"] >= 3
    assert set(range(30)) | set(range(50, 75)) <= set(found)
    assert len(found) < 75
    assert found == sorted(found)


@pytest.mark.parametrize("realtime", [False, True])
def test_what_is_no_video_is_one_line(tmp_path, realtime):
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    # a playlist may name what is elsewhere
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    videos.write_sound(tmp_path / "sound.mp4")
    for name, said in {
        "none.mp4": "no such video file",
        "text.mp4": "no video that is known",
        "empty.mp4": "no video that is known",
        "sound.mp4": "there is no video in it",
        "list.m3u8": "no video that is known",
    }.items():
        with pytest.raises(EdgeVLMError, match=said) as caught:
            list(pictures(tmp_path / name, realtime=realtime))
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_bad_options(tmp_path):
    with pytest.raises(EdgeVLMError, match="realtime"):
        Options(path=tmp_path, realtime="yes")
