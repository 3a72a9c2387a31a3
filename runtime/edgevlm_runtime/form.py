"""The form an answer must have: a regular expression, one of a list, JSON, JSON of a schema or of a Python type.

    session.ask("Report.", form=Form.json({"type": "object", "properties": {"holes": {"type": "integer"}}}))
    session.ask("Which part code?", form=Form.regex("[A-Z][0-9]{2}"))
    report = Report(...)                       # a pydantic model, msgspec struct or dataclass
    form = Form.of(Report)
    report = form.parse(session.ask("Report.", form=form).text)

A form is data; `text.constraint` makes tokens follow it. An answer that ends by itself has the form; one that was cut
by `max_new_tokens` says so (`finish_reason` "length").
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgevlm_runtime.errors import FormError, reason

LARGEST = 1 << 18
"""Characters of an expression or schema."""
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must look like. Made by the class methods."""

    kind: str
    """"regex", "list" or "json"."""
    text: str
    """The expression, or JSON: of the texts of the list, of the schema."""
    type: Any = None
    """The Python type it came from, which `parse` gives back."""

    @classmethod
    def regex(cls, pattern: str) -> Form:
        """The whole answer matches `pattern` (Rust's syntax of regular expressions: no look-around, no
        back-references). Raises `FormError` for what is no text."""
        if not isinstance(pattern, str) or not pattern:
            raise FormError(f"a regular expression must be a text that is not empty, not {pattern!r}")
        return cls("regex", _short(pattern))

    @classmethod
    def one_of(cls, texts: Sequence[str]) -> Form:
        """The answer is one of `texts`, generated; `Session.choose` weighs choices instead. Raises `FormError`."""
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise FormError(f"the texts an answer may be must be a list of texts, none of them empty, not {texts!r}")
        return cls("list", _short(json.dumps(list(texts))))

    @classmethod
    def json(cls, schema: Mapping[str, Any] | str | None = None) -> Form:
        """The answer is JSON: of a JSON schema (as data, or as JSON text), or any object. Raises `FormError`."""
        given = ANY_OBJECT if schema is None else schema
        try:
            data = json.loads(_short(given)) if isinstance(given, str) else given
            text = json.dumps(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise FormError(f"not a JSON schema: {reason(error)}") from error
        if not isinstance(data, Mapping):
            raise FormError(f"a JSON schema must be an object, not {reason(ValueError(text[:80]))}")
        return cls("json", _short(text))

    @classmethod
    def of(cls, form: Any) -> Form:
        """A `Form` as it is; a JSON schema as a mapping; a pydantic model, msgspec struct, dataclass, `TypedDict` or
        any other type that msgspec knows. Raises `FormError`."""
        if isinstance(form, Form):
            return form
        if isinstance(form, Mapping):
            return cls.json(form)
        pydantic = getattr(form, "model_json_schema", None)
        try:
            schema = pydantic() if callable(pydantic) else msgspec.json.schema(form)
        except Exception as error:  # of a stranger's type
            raise FormError(
                f"no form of an answer: {reason(error)}: give a Form, a JSON schema, or a type it can be made of"
            ) from error
        return dataclasses.replace(cls.json(schema), type=form)

    def parse(self, text: str) -> Any:
        """The answer as data: of the type it came from, else as JSON has it; other forms give the text.

        Raises `FormError` when it has not the form, as when it was cut.
        """
        if self.kind != "json":
            return text
        try:
            if self.type is None:
                return json.loads(text)
            pydantic = getattr(self.type, "model_validate_json", None)
            return pydantic(text) if callable(pydantic) else msgspec.json.decode(text, type=self.type)
        except (ValueError, RecursionError) as error:  # msgspec's and pydantic's errors are ValueErrors
            raise FormError(f"the answer has not the form that was asked for: {reason(error)}") from error


def _short(text: str) -> str:
    if len(text) > LARGEST:
        raise FormError(f"a form of {len(text)} characters is too long: {LARGEST} at most")
    return text
