"""Folders that fill while they are watched."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from edgevlm.watch.sources.base import SourceLost
from edgevlm.watch.sources.folder import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import http_camera, videos
from tests.support.feeds import check_order, running


def folder(path: Path, status: Status, **more: object):
    return open_source(Options(path=path, **{"settle_s": 0.2, **more}), status)


def save(path: Path, number: int) -> Path:
    path.write_bytes(http_camera.jpeg(videos.picture(number)))
    return path


def numbers(frames) -> list[int]:
    return [videos.number(frame.pixels) for frame in frames]


@pytest.mark.parametrize("poll", [False, True])
def test_files_come_as_they_appear(tmp_path, poll):
    save(tmp_path / "old.jpg", 1)
    status = Status()
    with running(folder(tmp_path, status, poll=poll), status) as feed:
        time.sleep(0.5)
        for number in (2, 3, 4):
            save(tmp_path / f"{number}.jpg", number)
            feed.until(lambda number=number: len(feed.frames) == number - 1, "the picture")
    assert numbers(feed.frames) == [2, 3, 4]
    assert feed.frames[0].name == str(tmp_path / "2.jpg")
    check_order(feed.frames)


def test_those_that_are_there_come_first_where_asked_and_in_order(tmp_path):
    for number in (5, 3, 4):
        save(tmp_path / f"{number}.jpg", number)
    status = Status()
    with running(folder(tmp_path, status, existing=True), status) as feed:
        feed.more(3)
        save(tmp_path / "1.jpg", 1)
        feed.more(1)
    assert numbers(feed.frames) == [3, 4, 5, 1]


def test_a_file_is_taken_when_it_is_complete(tmp_path):
    """It grows in steps that are shorter than the time after which a file counts as complete."""
    whole, status = http_camera.jpeg(videos.picture(9)), Status()
    with running(folder(tmp_path, status, settle_s=1.0), status) as feed:
        time.sleep(0.3)
        step = len(whole) // 20
        with (tmp_path / "slow.jpg").open("wb") as file:
            for at in range(0, len(whole), step):
                file.write(whole[at : at + step])
                file.flush()
                time.sleep(0.1)
                assert feed.frames == []
        feed.more(1)
    assert numbers(feed.frames) == [9]
    assert feed.counted("decode_errors") == 0


def test_one_that_stays_empty_or_has_another_name_first(tmp_path):
    status = Status()
    with running(folder(tmp_path, status), status) as feed:
        time.sleep(0.3)
        (tmp_path / "empty.jpg").touch()
        save(tmp_path / "6.jpg.part", 6)
        save(tmp_path / ".hidden.jpg", 8)
        save(tmp_path / "7.jpg", 7)
        feed.until(lambda: len(feed.frames) == 1)
        (tmp_path / "6.jpg.part").rename(tmp_path / "6.jpg")
        feed.until(lambda: len(feed.frames) == 2)
        save(tmp_path / "empty.jpg", 10)
        feed.until(lambda: len(feed.frames) == 3)
    assert numbers(feed.frames) == [7, 6, 10]
    assert feed.counted("decode_errors") == 0


def test_what_is_no_picture_is_counted_and_a_mended_one_taken(tmp_path):
    status = Status()
    with running(folder(tmp_path, status), status) as feed:
        time.sleep(0.3)
        (tmp_path / "notes.txt").write_text("not a picture")
        (tmp_path / "cut.jpg").write_bytes(http_camera.jpeg(videos.picture(2))[:2000])
        (tmp_path / "sub").mkdir()
        save(tmp_path / "sub" / "deep.jpg", 5)
        feed.until(lambda: feed.counted("decode_errors") == 2, "two damaged files")
        save(tmp_path / "good.jpg", 3)
        feed.more(1)
        save(tmp_path / "cut.jpg", 2)
        feed.more(1)
    assert numbers(feed.frames) == [3, 2]


def test_a_pattern_and_a_file_written_again(tmp_path):
    status = Status()
    with running(folder(tmp_path, status, pattern="part-*.jpg"), status) as feed:
        time.sleep(0.3)
        save(tmp_path / "other.jpg", 1)
        save(tmp_path / "part-1.jpg", 2)
        feed.more(1)
        save(tmp_path / "part-1.jpg", 3)
        feed.more(1)
        save(tmp_path / ".new", 4).replace(tmp_path / "part-1.jpg")
        feed.more(1)
    assert numbers(feed.frames) == [2, 3, 4]


def test_a_drive_that_goes_and_comes_again(tmp_path):
    watched, away = tmp_path / "watched", tmp_path / "away"
    watched.mkdir()
    status = Status()
    with running(folder(watched, status), status) as feed:
        time.sleep(0.3)
        save(watched / "1.jpg", 1)
        feed.more(1)
        watched.rename(away)
        feed.until(lambda: "source" in feed.conditions(), "the loss")
        save(away / "2.jpg", 2)
        away.rename(watched)
        feed.more(1)
        assert feed.conditions() == {}
        shutil.rmtree(watched)
        feed.until(lambda: "source" in feed.conditions(), "the loss")
    assert numbers(feed.frames) == [1, 2]


def test_a_folder_that_is_not_there(tmp_path):
    status = Status()
    with running(folder(tmp_path / "none", status), status, "fail") as feed:
        feed.until(feed.ended.is_set)
    assert isinstance(feed.error, SourceLost)
    assert str(feed.error) == f"no such folder: {tmp_path / 'none'}"


def test_bad_options(tmp_path):
    for options, said in (({"pattern": "a/b"}, "pattern"), ({"settle_s": 0}, "settle_s"), ({"poll": 1}, "poll")):
        with pytest.raises(EdgeVLMError, match=said):
            Options(path=tmp_path, **options)
