"""The line: bounded, and clients take turns."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevlm.serve.line import Full, Line


def test_clients_take_turns() -> None:
    line: Line[str] = Line(20)
    for item in ("a1", "a2", "a3", "b1", "a4", "c1", "c2"):
        assert line.put(item[0], item) is None
    assert [line.take() for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_who_has_most_makes_room() -> None:
    line: Line[str] = Line(4)
    for item in ("a1", "a2", "a3", "a4"):
        line.put("a", item)
    with pytest.raises(Full):
        line.put("a", "a5")
    assert line.put("b", "b1") == "a4"
    assert line.put("b", "b2") == "a3"
    with pytest.raises(Full):  # as many as the other has
        line.put("b", "b3")
    with pytest.raises(Full):
        line.put("a", "a5")
    assert line.put("c", "c1") in ("a2", "b2")
    assert len(line) == 4


def test_who_leaves_makes_room() -> None:
    line: Line[str] = Line(2)
    line.put("a", "a1")
    line.put("b", "b1")
    assert line.remove("a", "a1")
    assert not line.remove("a", "a1")
    line.put("c", "c1")
    assert [line.take(), line.take()] == ["b1", "c1"]


def test_a_closed_line() -> None:
    line: Line[str] = Line(2)
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.append(line.take()))
    thread.start()
    assert line.close() == []
    thread.join(30)
    assert taken == [None]
    with pytest.raises(Full):
        line.put("a", "a1")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 5))
@settings(deadline=None)
def test_nothing_is_lost_or_doubled(steps: list[tuple[str, bool]], most: int) -> None:
    line: Line[int] = Line(most)
    inside: dict[int, str] = {}
    for number, (client, come) in enumerate(steps):
        if come:
            try:
                left = line.put(client, number)
            except Full:
                assert len(inside) == most
                continue
            if left is not None:
                held = list(inside.values())
                assert held.count(inside.pop(left)) == max(map(held.count, held))
            inside[number] = client
        elif inside:
            taken = line.take()
            assert taken is not None
            client_of = inside.pop(taken)
            assert all(taken < other for other, whose in inside.items() if whose == client_of)
        assert len(line) == len(inside) <= most
    assert sorted(line.close()) == sorted(inside)
