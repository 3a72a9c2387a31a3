"""The live page in headless Chromium: it shows what the board has, changes with it, and keeps marks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from edgevlm.watch.page.app import page_server
from tests.support.boards import HandBoard, record
from tests.support.live_page import LivePage

GREEN, BLUE = (20, 160, 60), (30, 60, 200)


@pytest.fixture
def board() -> HandBoard:
    board = HandBoard()
    board.status.count("frames", 7)
    board.status.count("verdicts.accept", 1)
    board.add(record(1), GREEN)
    return board


@pytest.fixture
def address(board: HandBoard) -> Iterator[str]:
    server = page_server(board, "127.0.0.1", 0, None)
    yield server.start()
    server.stop()


def test_shows_updates_and_marks(board: HandBoard, address: str) -> None:
    with LivePage(address) as page:
        page.wait("document.querySelector('#verdict').innerText === 'accept'")
        page.wait("document.querySelector('#frame').naturalWidth === 640")
        assert page.text("#name") == "line <1>"
        assert "97.0 %" in page.text("#answers")
        assert "frames" in page.text("#tiles")
        assert page.evaluate("document.querySelectorAll('#regions rect').length") == 1
        assert page.evaluate("document.querySelector('#latency').getAttribute('points').split(' ').length") >= 2
        assert _colour(page) == pytest.approx(GREEN, abs=12)
        seen = page.screenshot()
        assert len(seen.getcolors(1 << 20) or ()) > 20  # an empty page has a handful

        board.add(record(2, "reject"), BLUE)
        board.status.raise_condition("sink mqtt", "no broker", bad=True)
        board.add(record(3, "unsure"), BLUE)
        page.wait("document.querySelector('#verdict').innerText === 'unsure'")
        page.wait("document.querySelectorAll('#strip button').length === 3")
        page.wait("document.querySelector('#conditions').innerText.includes('no broker')")
        assert page.evaluate("document.querySelector('#lamp').className") == "lamp off"

        page.evaluate("document.querySelectorAll('#strip button')[1].click()")
        assert "2" in page.text("#which")
        page.evaluate("document.querySelector('#note').value = 'a hair'")
        page.evaluate("[...document.querySelectorAll('#words button')].find(b => b.innerText === 'accept').click()")
        page.wait("document.querySelector('#kept').innerText.startsWith('kept')")
        assert board.marks == [(2, "accept", "a hair")]
        assert page.evaluate("document.querySelectorAll('#strip button.marked').length") == 1

        page.evaluate("document.querySelectorAll('#strip button')[2].click()")
        page.evaluate("document.querySelector('#right').click()")
        page.wait("document.querySelector('#kept').innerText === 'kept: 1 is right'")
        assert board.marks[1:] == [(1, "accept", "")]
        assert page.evaluate("document.querySelectorAll('#strip button.marked').length") == 2
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_comes_back_when_the_server_was_away(board: HandBoard) -> None:
    first = page_server(board, "127.0.0.1", 0, None)
    address = first.start()
    with LivePage(address) as page:
        page.wait("document.querySelector('#lamp').className === 'lamp on'")
        first.stop()
        page.wait("document.querySelector('#lamp').className === 'lamp off'")
        again = page_server(board, "127.0.0.1", int(address.rstrip("/").rpartition(":")[2]), None)
        again.start()
        board.add(record(2, "reject"), BLUE)
        page.wait("document.querySelector('#verdict').innerText === 'reject'")
        again.stop()


def test_nothing_is_asked_of_any_other_host(address: str) -> None:
    with LivePage(address) as page:
        page.wait("document.querySelector('#frame').naturalWidth > 0")
        asked = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
        assert asked
        assert all(one.startswith(address) for one in asked)


def test_a_narrow_screen_holds_it(address: str) -> None:
    with LivePage(address, width=500) as page:
        page.wait("document.querySelector('#frame').naturalWidth > 0")
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_with_a_token_the_page_opens_by_its_address(board: HandBoard) -> None:
    server = page_server(board, "127.0.0.1", 0, "secret token")
    address = server.start()
    with LivePage(f"{address}?token=secret%20token") as page:
        page.wait("document.querySelector('#verdict').innerText === 'accept'")
        assert page.evaluate("location.search") == ""
        page.evaluate("document.querySelector('#words button').click()")
        page.wait("document.querySelector('#kept').innerText.startsWith('kept')")
    server.stop()
    assert len(board.marks) == 1


def test_a_watch_that_was_started_again_is_shown_from_its_beginning(board: HandBoard) -> None:
    """Without a file of records their numbers begin anew."""
    first = page_server(board, "127.0.0.1", 0, None)
    address = first.start()
    board.add(record(2), GREEN)
    with LivePage(address) as page:
        page.wait("document.querySelectorAll('#strip button').length === 2")
        first.stop()
        again = HandBoard()
        again.about = replace(again.about, started_at=board.about.started_at + 60)
        again.add(record(1, "reject"), BLUE)
        second = page_server(again, "127.0.0.1", int(address.rstrip("/").rpartition(":")[2]), None)
        second.start()
        try:
            page.wait("document.querySelector('#verdict').innerText === 'reject'")
            page.wait("document.querySelectorAll('#strip button').length === 1")
        finally:
            second.stop()


def _colour(page: LivePage) -> tuple[int, int, int]:
    """Of the frame as it is drawn, near a corner, where no region is."""
    x, y = page.evaluate(
        "(r => [r.left + r.width / 10, r.top + r.height / 10])"
        "(document.querySelector('#frame').getBoundingClientRect())"
    )
    found = page.screenshot().getpixel((int(x), int(y)))
    assert isinstance(found, tuple)
    return found[:3]
