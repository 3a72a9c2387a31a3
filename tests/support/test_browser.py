"""The browser that looks at our pages notices what it must: a page that fetches something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import browser

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>page</title></head><body>
<table style="width: 400px"><tr><td>one</td></tr><tr><td>two</td></tr></table>%s</body></html>"""
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def look(tmp_path: Path, more: str) -> browser.Shown:
    page = tmp_path / "page.html"
    page.write_text(PAGE % more, encoding="utf-8")
    return browser.show(page, tmp_path)


def test_a_page_that_holds_everything_itself(tmp_path: Path) -> None:
    browser.check(look(tmp_path, f'<img src="{DOT}" width="20" height="20">'))


def test_a_page_that_fetches_is_found(tmp_path: Path) -> None:
    shown = look(tmp_path, '<img src="http://example.invalid/logo.png" width="20" height="20">')
    with pytest.raises(AssertionError, match=r"example\.invalid/logo\.png"):
        browser.check(shown)
