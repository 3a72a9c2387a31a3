"""Stop strings over streamed text: the outcome does not depend on how the text comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevlm_runtime.errors import PromptError
from edgevlm_runtime.text.stop_strings import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopStrings(stops)
    text = "".join(matcher.push(piece) for piece in pieces)
    return text + matcher.finish(), matcher.found


def reference(stops: list[str], text: str) -> tuple[str, str | None]:
    """The first stop string to be complete, the longest of those that are complete together."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            found = max(met, key=len)
            return text[: end - len(found)], found
    return text, None


LETTERS = st.text("ab#\n", max_size=20)


@given(stops=st.lists(st.text("ab#\n", min_size=1, max_size=4), max_size=4), pieces=st.lists(LETTERS, max_size=8))
def test_any_pieces(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == reference(stops, "".join(pieces))


@given(stops=st.lists(st.text("ab#\n", min_size=1, max_size=4), min_size=1, max_size=4), pieces=st.lists(LETTERS))
def test_nothing_is_given_out_too_early_or_too_late(stops: list[str], pieces: list[str]) -> None:
    """What is held back is a beginning of a stop string; what is given out never has to be taken back."""
    matcher = StopStrings(stops)
    given_out = arrived = ""
    for piece in pieces:
        arrived += piece
        given_out += matcher.push(piece)
        if matcher.found is not None:
            break
        held = arrived[len(given_out) :]
        assert given_out + held == arrived
        assert not held or any(stop.startswith(held) for stop in stops)
    assert reference(stops, "".join(pieces))[0].startswith(given_out)


def test_holding_back() -> None:
    matcher = StopStrings(["\nUser:"])
    assert matcher.push("good") == "good"
    assert matcher.push(" part\nUs") == " part"
    assert matcher.push("ed") == "\nUsed"
    assert matcher.push(" \n") == " "
    assert matcher.push("User: more") == ""
    assert matcher.found == "\nUser:"
    assert matcher.push("and more") == ""
    assert matcher.finish() == ""


def test_what_is_held_comes_at_the_end() -> None:
    matcher = StopStrings(["###"])
    assert matcher.push("a ##") == "a "
    assert matcher.finish() == "##"
    assert matcher.found is None


@pytest.mark.parametrize("stops", [[""], ["a", ""], "abc"])
def test_stop_strings_that_would_never_or_always_match(stops: list[str]) -> None:
    with pytest.raises(PromptError, match="none of them empty"):
        StopStrings(stops)
