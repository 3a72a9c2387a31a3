"""Command lines: a JSON list of words. @BUNDLE, @IMAGE, @FOLDER and @FILE stand for paths that are there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

from edgevlm.cli import cli
from edgevlm.terminal.output import setup_logging
from fuzz.judge import WrongOutcome
from fuzz.mutate import mutate_bytes, mutate_words
from tests.runtime.conftest import make_bundle

ENDINGS = (0, 1, 2)
_WORDS = """
run verify inspect models tune eval doctor compile export bench @BUNDLE @IMAGE @FOLDER @FILE @MISSING
--help --json --debug -i -p --prompt --image --choices yes,no , --max-new-tokens --temperature --top-k --top-p --seed
--stop --chat --stream --no-stream --system --threads --max-context --provider cpu cuda auto --engine ort tensorrt
--image-cache --context-cache --lookup --abstain-below --choice-temperature --repetition-penalty --timings
--exif-orientation --no-exif-orientation --image-depth --dataset inspection --match loose --n --out --report --resume
--tolerance
-- - 0 1 -1 2 nan inf -inf 1e999 99999999999999999999 0x10 1_000 0.5
"""
WORDS = ("", " ", *_WORDS.split())
ELSEWHERE = ("bench", "export", "compile")
"""Commands that take minutes where their arguments are right; of these, arguments alone are tried."""


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Words more, fewer, exchanged and misspelt."""
    words = _words(data)
    return mutate_bytes(data, rng, others) if words is None else json.dumps(mutate_words(words, rng, WORDS)).encode()


class Surface:
    """See `fuzz.targets`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = {
            "@BUNDLE": str(make_bundle(folder / "bundle")),
            "@IMAGE": str(Path(__file__).parents[1] / "corpus/image/rgb.png"),
            "@FOLDER": str(folder / "empty"),
            "@FILE": str(folder / "new.json"),
            "@MISSING": str(folder / "missing"),
        }
        (folder / "empty").mkdir()
        (folder / "here").mkdir()
        os.environ["HF_HUB_OFFLINE"] = "1"

    def run(self, data: bytes) -> None:
        words = _words(data)
        if words is None:
            return
        if any(word in ELSEWHERE for word in words):
            words = [word for word in words if word not in ("@BUNDLE", "inspector")]
        words = [self._paths.get(word, _typed(word)) for word in words][:40]
        setup_logging(False)  # what an earlier --debug left
        out, err = io.StringIO(), io.StringIO()
        code: object = 0
        with contextlib.chdir(self._folder / "here"), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main(words, prog_name="edgevlm")
            except SystemExit as ending:
                code = ending.code
        _check(code, out.getvalue(), err.getvalue(), words)


def _typed(word: str) -> str:
    """What can reach a process: no zero byte, bytes that are not UTF-8 as Python has them; and no path to elsewhere."""
    return word.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape").replace("/", "_").replace("\0", "")


def _check(code: object, out: str, err: str, words: Sequence[str]) -> None:
    if code not in ENDINGS:
        raise WrongOutcome(f"exit code {code!r}", err[-300:])
    fault = re.search(r"unexpected (\w+): .*fault of edgevlm", err)
    if fault is not None:
        raise WrongOutcome(f"unexpected {fault[1]}", err[-600:])
    if "Traceback" in err and "--debug" not in words:
        raise WrongOutcome("traceback", err[-600:])
    if code == 2 and out.strip() == "" and "Error: " not in err and "Usage:" not in err:
        raise WrongOutcome("ends with 2 and says nothing", err[-300:])
    if "--json" in words and code == 0 and out.startswith("{"):
        json.loads(out, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise WrongOutcome(f"{constant} in JSON output")


def _words(data: bytes) -> list[str] | None:
    try:
        words = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None
