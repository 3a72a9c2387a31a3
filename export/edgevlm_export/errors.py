"""Other libraries' errors, as part of a one-line message of ours."""

from __future__ import annotations

LONGEST = 200


def reason(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters; its type's name when it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
