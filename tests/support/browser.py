"""A page as headless Chromium shows it, with nothing to be reached over any network."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

REQUIRED = "EDGEVLM_CHROMIUM_REQUIRED"
"""Set where a missing browser is a failure: CI."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    "--allow-file-access-from-files",
)
WIDTH, HEIGHT = 1100, 4000
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><title>sizes</title>
<iframe src="PAGE" width="WIDE" height="HIGH" onload="measure(this.contentWindow)"></iframe>
<pre id="found"></pre><script>
function measure(page) {
  const box = one => { const r = one.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const all = (name, more) => [...page.document.querySelectorAll(name)].map(one => ({box: box(one), ...more(one)}));
  const root = page.document.documentElement;
  document.getElementById("found").textContent = JSON.stringify({
    charts: all("svg", one => ({
      bars: [...one.querySelectorAll("rect:not(.frame)")].map(box),
      points: one.querySelectorAll("circle, polyline").length,
      circles: [...one.querySelectorAll("circle")].map(box),
      texts: [...one.querySelectorAll("text")].map(text => ({text: text.textContent, box: box(text)})),
    })),
    tables: all("table", one => ({rows: one.rows.length, text: one.innerText, hidden: !one.checkVisibility()})),
    pictures: all("img", one => ({loaded: one.complete && one.naturalWidth > 0})),
    fetched: page.performance.getEntriesByType("resource").map(one => one.name),
    overflow: root.scrollWidth - root.clientWidth,
  });
}</script>"""


@dataclass(frozen=True)
class Shown:
    """What the browser made of a page."""

    dom: str
    """Of the page itself, after it was loaded."""
    screenshot: Image.Image
    sizes: dict[str, Any]
    """`charts`, `tables`, `pictures` with their boxes (left, top, right, bottom, in CSS pixels), `fetched` addresses,
    and `overflow`, by how much the page is wider than the window."""


def show(page: Path, tmp_path: Path) -> Shown:
    """Open `page`, as it is; and once more inside a page that measures it. Skips the test where no Chromium is."""
    chromium = browser()
    screenshot, frame = tmp_path / "screenshot.png", tmp_path / "measure.html"
    dom = _run(chromium, page, f"--screenshot={screenshot}")
    source = (
        MEASURE.replace("PAGE", html.escape(page.as_uri())).replace("WIDE", str(WIDTH)).replace("HIGH", str(HEIGHT))
    )
    frame.write_text(source, encoding="utf-8")
    found = re.search(r'<pre id="found">(.+?)</pre>', _run(chromium, frame), re.DOTALL)
    assert found is not None, "the page did not load"
    return Shown(dom, Image.open(screenshot).convert("RGB"), json.loads(html.unescape(found[1])))


def check(shown: Shown, all_zero: bool = False) -> None:
    """What holds for every report: everything is visible, inside its chart, readable, and nothing was fetched.

    `all_zero`: bars have no length, because no answer was right.
    """
    sizes = shown.sizes
    assert all(address.startswith("data:") for address in sizes["fetched"]), sizes["fetched"]
    assert sizes["overflow"] <= 0, "the page is wider than the window"
    for chart in sizes["charts"]:
        assert _width(chart["box"]) > 200
        assert _height(chart["box"]) > 20
        seen = any(_width(bar) > 1 and _height(bar) > 5 for bar in chart["bars"])
        assert chart["points"] or seen or (all_zero and chart["bars"]), "an empty chart"
        assert all(_inside(circle, chart["box"]) for circle in chart["circles"]), "a point is cut off"
        for text in chart["texts"]:
            assert _inside(text["box"], chart["box"]), f"{text['text']!r} is cut off"
    for table in (one for one in sizes["tables"] if not one["hidden"]):
        assert table["rows"] > 1
        assert table["text"].strip()
        assert _width(table["box"]) > 100
        assert _height(table["box"]) > 30
    assert all(picture["loaded"] and _width(picture["box"]) > 10 for picture in sizes["pictures"])


def coloured(shown: Shown, colour: tuple[int, int, int]) -> int:
    """Pixels of the screenshot that have this colour."""
    return sum(count for count, one in shown.screenshot.getcolors(WIDTH * HEIGHT) or () if one == colour)


def browser() -> str:
    """The browser's program; skips or fails the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"no Chromium on PATH, and {REQUIRED} is set")
        pytest.skip(f"no Chromium on PATH (one of {', '.join(NAMES)}): install it to look at the pages")
    return found


def _run(chromium: str, page: Path, *more: str) -> str:
    """The page's DOM, as HTML, when it has loaded."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            chromium,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{HEIGHT}",
            "--dump-dom",
            *more,
        ]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=180, check=False, encoding="utf-8"
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _width(box: list[float]) -> float:
    return box[2] - box[0]


def _height(box: list[float]) -> float:
    return box[3] - box[1]


def _inside(inner: list[float], outer: list[float]) -> bool:
    """With a pixel to spare: glyphs have soft edges."""
    return all(a >= b - 1 for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b + 1 for a, b in zip(inner[2:], outer[2:], strict=True)
    )
