"""Lines of keys: against a plan whose lines were counted by hand, and for every key of plans that are made up."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm.watch.plan.lines import MOST_LINES, line_of

TEXT = '''\
# a comment = 3
name = "a"
note = """
name = "not this one"
[source]
"""

[source]
kind = "rtsp"
"quoted key" = 1
deep.er = 2

[[region]]
name = "one"
box = [
    0,
    [1, 2],
]

[[region]]
polygons = [
    [[0, 0], [1, 1]],
]
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), None),
        (("name",), 2),
        (("note",), 3),
        (("source",), 8),
        (("source", "kind"), 9),
        (("source", "quoted key"), 10),
        (("source", "deep", "er"), 11),
        (("region", 0), 13),
        (("region", 0, "name"), 14),
        (("region", 0, "box", 1, 1), 15),
        (("region", 1), 20),
        (("region", 1, "polygons"), 21),
        (("source", "not there"), 8),
        (("region", 7, "name"), 13),
        (("not there",), None),
    ],
)
def test_counted_by_hand(place, line):
    assert line_of(TEXT, place) == line


VALUES = st.one_of(
    st.integers(-9, 9), st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3), st.text("a\n#[]", max_size=8)
)


@given(st.lists(st.tuples(st.booleans(), VALUES), min_size=1, max_size=12))
def test_every_key_begins_in_its_line(entries):
    """Keys k0, k1, ... in tables or not, values over one line or several."""
    lines, places, table = [], {}, ()
    for number, (new_table, value) in enumerate(entries):
        if new_table:
            table = (f"t{number}",)
            lines.append(f"[{table[0]}]")
        key = (*table, f"k{number}")
        places[key] = len(lines) + 1
        lines += f"k{number} = {_toml(value)}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    assert {place: line_of(text, place) for place in places} == places


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[\n" + "".join(f"  {item},\n" for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def test_long_files_are_not_searched():
    assert line_of("a = 1\n" + "\n" * MOST_LINES, ("a",)) is None
