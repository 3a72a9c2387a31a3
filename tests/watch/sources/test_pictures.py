"""Lists and patterns of picture files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevlm.watch.sources.pictures import Options, open_source
from edgevlm.watch.status import Status
from edgevlm_runtime.errors import EdgeVLMError
from tests.support import http_camera, videos


def pictures(*files: Path, status: Status | None = None, loop: bool = False):
    return open_source(Options(files=files, loop=loop), status or Status()).pictures(threading.Event())


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "more").mkdir()
    for name, number in (("b.png", 2), ("a.png", 1), ("c.jpg", 3), ("more/d.png", 4)):
        Image.fromarray(videos.picture(number)).save(tmp_path / name)
    return tmp_path


def test_in_the_order_in_which_they_are_named(parts):
    found = list(pictures(parts / "c.jpg", parts / "*.png", parts / "**" / "*.png"))
    assert [Path(one.name).name for one in found] == ["c.jpg", "a.png", "b.png", "a.png", "b.png", "d.png"]
    np.testing.assert_array_equal(found[1].pixels, videos.picture(1))


def test_a_truncated_jpeg_between_good_ones_is_counted(parts):
    (parts / "bb.png").write_bytes(http_camera.jpeg(videos.picture(9))[:1500])
    status = Status()
    found = list(pictures(parts / "*.png", status=status))
    assert [videos.number(one.pixels) for one in found] == [1, 2]
    assert status.snapshot().counters == {"decode_errors": 1}


def test_again_and_again(parts):
    endless = pictures(parts / "*.png", loop=True)
    assert [videos.number(next(endless).pixels) for _ in range(5)] == [1, 2, 1, 2, 1]


def test_what_is_not_there_and_what_is_no_picture(parts):
    (parts / "x.txt").write_text("no picture")
    for named, said in (
        (parts / "none.png", f"^no such picture file: {parts}/none.png$"),
        (parts / "*.gif", r"^no file is called .*\*\.gif$"),
        (parts / "x.txt", "none of 1 files can be decoded"),
    ):
        with pytest.raises(EdgeVLMError, match=said):
            list(pictures(named))
    with pytest.raises(EdgeVLMError, match="at least one"):
        Options(files=())
