"""Who is asked: a bundle, loaded once, and then any number of groups of questions about one picture each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edgevlm.bulk.readers.places import fetch, is_address
from edgevlm.bulk.rows import Ask, Group, Result, failed
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.form import Form

if TYPE_CHECKING:
    from edgevlm_runtime import VLM, Session

Asked = TypeVar("Asked")
Given = TypeVar("Given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How every question is asked; goes to other processes as JSON."""

    bundle: str
    """The folder, on every machine that works."""
    choices: tuple[str, ...] = ()
    """Weigh these instead of generating an answer."""
    schema: str | None = None
    """JSON schema of every answer."""
    system: str | None = None
    """System prompt in place of the bundle's."""
    max_new_tokens: int | None = None
    loading: dict[str, Any] = field(default_factory=dict)
    """Arguments of `edgevlm_runtime.load`."""

    def __post_init__(self) -> None:
        from edgevlm_runtime.asking.choices import check_choices

        if self.choices and self.schema is not None:
            raise EdgeVLMError("--choices generates nothing: leave out --schema")
        if self.choices and self.max_new_tokens is not None:
            raise EdgeVLMError("--choices generates nothing: leave out --max-new-tokens")
        if self.choices:
            check_choices(self.choices)
        if self.schema is not None:
            Form.json(self.schema)


class Asker:
    """A loaded bundle that answers groups. Raises what `edgevlm_runtime.load` raises."""

    def __init__(self, task: Task) -> None:
        from edgevlm_runtime import load

        self._task = task
        self._form = None if task.schema is None else Form.json(task.schema)
        self._vlm = load(task.bundle, **task.loading)

    def answers(self, group: Group) -> list[Result]:
        """One for each question, in order. What cannot be asked gives its error, and the others go on."""
        if group.data is not None:
            image: str | bytes = group.data
        elif group.place is None:
            return [failed(ask, "no picture") for ask in group.asks]
        elif is_address(group.place):
            try:
                image = fetch(group.place, self._vlm.pipeline.image_loading.max_bytes)
            except EdgeVLMError as error:
                return [failed(ask, str(error)) for ask in group.asks]
        else:
            image = group.place
        return list(about(self._vlm, (image,), group.asks, self._ask, failed, system=self._task.system))

    def _ask(self, session: Session, ask: Ask) -> Result:
        given = partial(Result, ask.slot, ask.id, ask.image, ask.question)
        if self._task.choices:
            choice = session.choose(ask.question, self._task.choices)
            shares = choice.probabilities
            return given(choice.best, shares[choice.best], shares, milliseconds=choice.timings.total)
        options: dict[str, Any] = (
            {} if self._task.max_new_tokens is None else {"max_new_tokens": self._task.max_new_tokens}
        )
        answer = session.ask(ask.question, temperature=0.0, logprobs=False, form=self._form, **options)
        given = partial(given, answer.text, tokens=len(answer.token_ids), milliseconds=answer.timings.total)
        if self._form is None:
            return given()
        try:
            return given(value=self._form.parse(answer.text))
        except EdgeVLMError as error:
            cut = ": it was cut, allow more with --max-new-tokens" if answer.finish_reason == "length" else ""
            return given(error=f"{error}{cut}")


def about(
    vlm: VLM,
    images: Sequence[Any],
    asked: Sequence[Asked],
    ask: Callable[[Session, Asked], Given],
    failed: Callable[[Asked, str], Given],
    *,
    system: str | None = None,
) -> Iterator[Given]:
    """Questions about the same images in one session: what `ask` gives for each, and `failed` where it cannot."""
    try:
        session = vlm.session(*images, system=system)
    except EdgeVLMError as error:
        yield from (failed(one, str(error)) for one in asked)
        return
    with session:
        for one in asked:
            try:
                given = ask(session, one)
            except EdgeVLMError as error:
                given = failed(one, str(error))
            yield given
