"""What a user asks: questions, system prompts, choices and stop strings, of a loaded bundle. A JSON object."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import edgevlm_runtime
from edgevlm_runtime.errors import EdgeVLMError
from fuzz.mutate import mutate_json as mutate
from tests.runtime.conftest import make_bundle

__all__ = ["Surface", "mutate"]

PICTURE = Path(__file__).parents[1] / "corpus/image/rgb.png"


class Surface:
    """See `fuzz.targets`. Only texts are taken from the input: types are the type checker's."""

    def __init__(self, folder: Path) -> None:
        self._vlm = edgevlm_runtime.load(make_bundle(folder / "bundle"), threads=1)

    def run(self, data: bytes) -> None:
        try:
            asked = json.loads(data)
        except (ValueError, RecursionError):
            asked = {"question": data.decode("utf-8", "surrogateescape")}
        if not isinstance(asked, dict):
            return
        question, system = _text(asked.get("question")), asked.get("system")
        options = {"max_new_tokens": 2, **(asked["options"] if isinstance(asked.get("options"), dict) else {})}
        if isinstance(options["max_new_tokens"], int):
            options["max_new_tokens"] = min(options["max_new_tokens"], 3)
        with self._vlm.chat(PICTURE, system=None if system is None else _text(system)) as chat:
            with contextlib.suppress(EdgeVLMError):
                chat.choose(question, [_text(one) for one in _list(asked.get("choices"))])
            for turn in [question, *map(_text, _list(asked.get("turns")))][:3]:
                chat.ask(turn, **{str(name): value for name, value in options.items()})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
