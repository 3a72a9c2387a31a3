"""Charts as inline SVG. Colours come from the page's style: series are the classes s0, s1, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

WIDTH = 720
_LETTER = 8.5
"""Room for a letter of a label, which stands at the left of its bars; most are narrower."""
_LONGEST = 40
"""Letters of a label; the rest of it is in the bars' titles."""
_VALUES = 90
_BAR = 14


def bars(
    rows: Mapping[str, Sequence[float | None]], series: Sequence[str], top: float | None = None, unit: str = ""
) -> Markup:
    """Horizontal bars: for each row one bar per series. `top` is the value at full width; None takes the largest."""
    values = [value for row in rows.values() for value in row if value is not None]
    full = top or max(values, default=0.0) or 1.0
    left = 12 + _LETTER * min(max(map(len, rows), default=0), _LONGEST)
    room = WIDTH - left - _VALUES
    parts, y = [], 4
    for label, row in rows.items():
        height = _BAR * len(row)
        parts.append(_text(left - 8, y + height / 2 + 4, _shortened(label), "end"))
        for index, value in enumerate(row):
            place = y + index * _BAR
            length = room * min((value or 0.0) / full, 1.0)
            parts.append(
                f'<rect class="s{index}" x="{left:.1f}" y="{place}" width="{length:.1f}" height="{_BAR - 3}" rx="2">'
                f"<title>{escape(label)}, {escape(series[index])}: {_figure(value)}{escape(unit)}</title></rect>"
            )
            shown = f"{_figure(value)}{unit}"
            parts.append(_text(left + length + 6, place + _BAR - 4, shown, "start", "small"))
        y += height + 8
    return _svg(WIDTH, y + 4, parts, f"Bars: {', '.join(series)}")


def reliability(points: Sequence[tuple[float, float, int]]) -> Markup:
    """Said probability against how often it was right; a point's size grows with its count. The diagonal is perfect."""
    side, margin, top = 300, 44, 16
    most = max((count for _, _, count in points), default=1)

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + x * side, top + (1 - y) * side

    parts = [f'<rect class="frame" x="{margin}" y="{top}" width="{side}" height="{side}"/>']
    parts.append(f'<line class="ideal" x1="{margin}" y1="{top + side}" x2="{margin + side}" y2="{top}"/>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        parts.append(_text(x, top + side + 16, f"{tick:g}", "middle", "small"))
        parts.append(_text(margin - 6, y + 4, f"{tick:g}", "end", "small"))
    for said, right, count in points:
        x, y = place(said, right)
        radius = 3 + 9 * (count / most) ** 0.5
        title = f"said {said:.3f}, right {right:.3f}, {count} questions"
        parts.append(f'<circle class="s0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{title}</title></circle>')
    parts.append(_text(margin + side / 2, top + side + 36, "said probability", "middle"))
    parts.append(_text(12, top + side / 2, "share right", "middle", "turned"))
    return _svg(margin + side + 16, top + side + 44, parts, "Reliability of probabilities")


def line(values: Sequence[tuple[float, float]], x_name: str, y_name: str) -> Markup:
    """A line through (x, y); y starts at zero, so that a drop is seen at its true size."""
    width, height, margin = WIDTH - 80, 180, 56
    far = max((x for x, _ in values), default=1.0) or 1.0
    top = max((y for _, y in values), default=1.0) or 1.0
    points = " ".join(f"{margin + width * x / far:.1f},{10 + height * (1 - y / top):.1f}" for x, y in values)
    parts = [f'<rect class="frame" x="{margin}" y="10" width="{width}" height="{height}"/>']
    parts.append(f'<polyline class="s0 line" points="{points}"/>')
    parts.append(_text(margin - 6, 18, _figure(top), "end", "small"))
    parts.append(_text(margin - 6, 10 + height, "0", "end", "small"))
    parts.append(_text(margin + width, height + 26, f"{_figure(far)} {x_name}", "end", "small"))
    parts.append(_text(margin, height + 26, y_name, "start", "small"))
    return _svg(WIDTH, height + 34, parts, f"{y_name} over {x_name}")


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> Markup:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return Markup(f'<svg {size} role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>')


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if kind == "turned" else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
