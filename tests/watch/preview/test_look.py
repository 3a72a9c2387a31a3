"""One look at a source: a picture, none, or why none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgevlm.watch.plan.plan import Part
from edgevlm.watch.preview.look import Seen, look
from edgevlm.watch.sources import SOURCES
from tests.support import plans


def part(kind: str, **options: object) -> Part:
    return Part(kind=kind, options=SOURCES.get(kind).Options(**options))


def test_a_picture(tmp_path):
    files = (plans.picture(tmp_path / "a.png", (40, 30)), plans.picture(tmp_path / "b.png", (10, 10)))
    assert look(part("pictures", files=files)) == Seen((40, 30))


def test_a_folder_that_is_empty(tmp_path):
    assert look(part("folder", path=tmp_path), wait_s=0.1) == Seen(None, "no picture within 0.1 s")


def test_a_library_that_fails_in_its_own_way(monkeypatch):
    class Broken:
        def pictures(self, stop):
            raise ZeroDivisionError("of rtsp://me:secret@cam/1")

    kind = SimpleNamespace(open_source=lambda options, status: Broken())
    monkeypatch.setitem(SOURCES.built_in, "broken", kind)
    seen = look(Part(kind="broken", options=None), wait_s=60)
    assert seen == Seen(None, "it failed: of rtsp://***@cam/1")


def test_a_camera_that_is_not_there():
    pytest.importorskip("av")
    seen = look(part("rtsp", url="rtsp://me:secret@127.0.0.1:1/a"))
    assert seen.size is None
    assert "127.0.0.1:1" in seen.trouble
    assert "secret" not in seen.trouble
