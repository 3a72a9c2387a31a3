"""A question that is answered with JSON: rules about one of its fields say the verdict.

    [[question]]
    name = "count"
    kind = "schema"
    text = 'How many holes are there? Answer as JSON: {"holes": NUMBER}'
    schema = { type = "object", required = ["holes"], properties = { holes = { type = "integer", minimum = 0 } } }
    field = "holes"
    rules = [{ equals = 4, verdict = "ok" }, { below = 4, verdict = "reject" }]

An answer that is no JSON, or not of the schema, is "unsure", and the record says why.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevlm.watch.rules.base import UNSURE, Judged, Rule
from edgevlm.watch.rules.generated import check_generated, check_word, say, without_unsure
from edgevlm.watch.rules.json_schema import check_schema, equal, is_number, problem
from edgevlm_runtime import Session
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import is_real, need
from edgevlm_runtime.reading import read_json

LONGEST = 64 * 1024
"""Characters of an answer that are read, and bytes of a schema's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """What a field may be, by exactly one of the conditions. Raises `EdgeVLMError` for none or several."""

    verdict: str
    equals: Any = None
    above: float | None = None
    below: float | None = None
    one_of: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("equals", "above", "below", "one_of") if getattr(self, name) is not None]
        need(len(given) == 1, "rules", given or "no condition", "one of equals, above, below, one_of with a verdict")
        check_word("verdict", self.verdict)
        for name in ("above", "below"):
            limit = getattr(self, name)
            need(limit is None or is_real(limit), name, limit, "a number")

    def holds(self, value: Any) -> bool:
        """Whether `value` is as this rule says; what is no number is neither above nor below."""
        if self.above is not None:
            return is_number(value) and bool(value > self.above)
        if self.below is not None:
            return is_number(value) and bool(value < self.below)
        return any(equal(value, one) for one in (self.one_of if self.one_of is not None else (self.equals,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The question's part of a plan. Raises `EdgeVLMError` for bad values."""

    schema: dict[str, Any] | None = None
    """What the answer must be, as a JSON schema (`rules.json_schema` knows the keywords)."""
    schema_file: Path | None = None
    """The same in a file of JSON, in place of `schema`."""
    field: str = ""
    """Which part of the answer `rules` are about: names and, in lists, numbers from 0, as "defects.0.kind"; empty: all
    of it."""
    rules: tuple[FieldRule, ...] = ()
    """Tried in this order; the first that holds gives its verdict. Without any, the answer decides nothing."""
    otherwise: str = UNSURE
    """The verdict where none holds."""
    max_new_tokens: int = 256
    """The answer ends here at the latest."""
    at_least: float | None = None
    """Least mean probability of the answer's tokens (their geometric mean); below it the verdict is "unsure"."""
    verdict: bool = True
    """Whether the answer decides; otherwise it is recorded, and nothing follows from it."""

    def __post_init__(self) -> None:
        one = (self.schema is None) != (self.schema_file is None)
        need(one, "schema", self.schema, "given, or schema_file in its place")
        if self.schema is not None:
            check_schema(self.schema)
        check_word("otherwise", self.otherwise)
        check_generated(self.max_new_tokens, self.at_least)


def make_rule(options: Options) -> Rule:
    """The rule of such a question. Raises `EdgeVLMError` for a schema file that cannot be used."""
    return _Schema(options, options.schema if options.schema_file is None else _read(options.schema_file))


@dataclass(frozen=True, slots=True)
class _Schema:
    options: Options
    schema: Any

    @property
    def words(self) -> tuple[str, ...]:
        if not (self.options.verdict and self.options.rules):
            return ()
        return without_unsure([*(rule.verdict for rule in self.options.rules), self.options.otherwise])

    def check(self, session: Session, question: str) -> None:
        say(session, question, 1, None)

    def judge(self, session: Session, question: str) -> Judged:
        said = say(session, question, self.options.max_new_tokens, self.options.at_least)
        value, wrong = parsed(said.answer.text)
        wrong = wrong or problem(value, self.schema) or ""
        verdict = self._verdict(value) if said.sure and not wrong else UNSURE
        return Judged(
            verdict=verdict if self.words else "",
            answer=said.answer.text,
            probability=said.probability,
            value=None if wrong else value,
            tokens=said.answer.token_ids,
            error=wrong,
        )

    def _verdict(self, value: Any) -> str:
        """Of an answer as the schema says. A field that it does not have is as no rule says."""
        try:
            part = field_of(value, self.options.field)
        except LookupError:
            return self.options.otherwise
        return next((rule.verdict for rule in self.options.rules if rule.holds(part)), self.options.otherwise)


def parsed(text: str) -> tuple[Any, str]:
    """The JSON in an answer, and what is wrong where there is none: a value alone, or the first object or list in it,
    for models like to put words, or ```json, around it."""
    text = text[:LONGEST].strip()
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_number), ""
    except (ValueError, RecursionError):
        pass
    decoder = json.JSONDecoder(parse_constant=_no_number, parse_float=_number)
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    try:
        return decoder.raw_decode(text, min(starts, default=0))[0], ""
    except (ValueError, RecursionError) as error:
        return None, f"the answer is no JSON: {error}"


def field_of(value: Any, path: str) -> Any:
    """The part of `value` that `path` names. Raises `LookupError` where there is none."""
    for name in filter(None, path.split(".")):
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value[name]
        else:
            raise LookupError(path)
    return value


def _number(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number that can be kept")


def _read(file: Path) -> dict[str, Any]:
    try:
        schema: dict[str, Any] = read_json(file, dict, "JSON schema", limit=LONGEST)
    except FileNotFoundError as error:
        raise EdgeVLMError(f"schema_file not found: {file}") from error
    check_schema(schema, str(file))
    return schema
