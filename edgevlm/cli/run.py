"""`edgevlm run`: ask a bundle about images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean
from edgevlm.terminal.types import FilePath, Name, Number, Whole, image_options, loading_options, prefill_graph_option

if TYPE_CHECKING:
    from edgevlm.cli.records import AnswerReport
    from edgevlm_runtime import Answer, Choice, Form, Session


CUT = "length"
"""Why an answer ended that is not whole (`Answer.finish_reason`)."""


@click.command("run", short_help="Ask a bundle about images.")
@click.argument("bundle", type=FilePath())
@click.option(
    "-i",
    "--image",
    "images",
    type=FilePath(),
    multiple=True,
    metavar="FILE",
    help="An image; several are numbered in order.",
)
@click.option("-p", "--prompt", "prompts", multiple=True, required=True, metavar="TEXT", help="A question; may repeat.")
@click.option("--system", metavar="TEXT", help="System prompt, in place of the bundle's own.")
@click.option("--chat", is_flag=True, help="Each prompt continues the conversation, instead of starting afresh.")
@click.option("--max-new-tokens", type=Whole(1), metavar="N", help="End the answer after N tokens.")
@click.option(
    "--temperature", type=Number(0), metavar="T", help="0 takes the likeliest token; above 0, tokens are sampled."
)
@click.option("--top-k", type=Whole(), metavar="K", help="Sample among the K likeliest tokens.")
@click.option(
    "--top-p", type=Number(0, 1), metavar="P", help="Sample among the likeliest tokens with this probability together."
)
@click.option(
    "--repetition-penalty", type=Number(0.01, 100), metavar="R", help="Above 1 makes tokens seen before less likely."
)
@click.option("--seed", type=Whole(most=2**63 - 1), metavar="N", help="Make sampling reproducible.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", help="End the answer before this text, or special token; may repeat."
)
@click.option(
    "--text-tokens",
    type=click.Choice(["special", "literal"]),
    help="What control tokens written out in a prompt (<|im_end|>) are: those special tokens, as in transformers (the "
    "default), or letters, for prompts that hold text from elsewhere.",
)
@click.option("--stream/--no-stream", default=True, help="Print the answer as it is made (default), or when complete.")
@click.option("--choices", metavar="A,B,C", help="Weigh these answers instead of generating one.")
@click.option("--abstain-below", type=Number(0, 1), metavar="P", help="No verdict when no choice is as probable as P.")
@click.option("--choice-temperature", type=Number(0), metavar="T", help="For --choices. Default: the fitted one, or 1.")
@click.option("--regex", type=Name(), metavar="PATTERN", help="The answer matches this regular expression as a whole.")
@click.option(
    "--json-schema",
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="The answer is JSON of this schema.",
)
@click.option(
    "--one-of", type=Name(), metavar="A,B,C", help="The answer is one of these, generated; --choices weighs them."
)
@click.option("--timings", is_flag=True, help="Say on stderr how long each stage took.")
@loading_options()
@click.option("--max-context", type=Whole(1), metavar="N", help="Tokens the KV cache holds, to bound memory.")
@prefill_graph_option
@click.option(
    "--image-cache",
    "image_cache_dir",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Keep image embeddings in this folder, for later runs.",
)
@click.option(
    "--context-cache",
    "context_cache_dir",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Keep what was computed of prompts and their images in this folder, for later runs.",
)
@click.option(
    "--lookup/--no-lookup",
    "prompt_lookup",
    default=None,
    help="Guess tokens from what was said before, several at once, where that is faster; answers stay the same.",
)
@image_options
@json_option
def command(
    bundle: Path,
    images: tuple[Path, ...],
    prompts: tuple[str, ...],
    system: str | None,
    chat: bool,
    stream: bool,
    choices: str | None,
    abstain_below: float | None,
    choice_temperature: float | None,
    regex: str | None,
    json_schema: Path | None,
    one_of: str | None,
    timings: bool,
    loading: dict[str, Any],
    max_context: int | None,
    prefill_graph: bool | None,
    image_cache_dir: Path | None,
    context_cache_dir: Path | None,
    prompt_lookup: bool | None,
    text_tokens: str | None,
    apply_exif_orientation: bool | None,
    image_bit_depth: int | None,
    as_json: bool,
    **generation: Any,
) -> None:
    """Ask BUNDLE about images, and print the answers.

    Prompts are asked one after another about the same images: from the second on, only the question itself is
    computed. Options that are not given keep the model's own defaults.

    With --choices nothing is generated: the model weighs the answers given, and the likeliest is the verdict.
    With --regex, --json-schema or --one-of an answer has that form, unless it is cut.

    \b
    Examples:
      edgevlm run llava-fp16 --image part.png --prompt "Is there a scratch?"
      edgevlm run llava-fp16 -i part.png -p "Is there a scratch?" --choices yes,no --abstain-below 0.9
      edgevlm run llava-fp16 -i before.png -i after.png -p "What changed?" --max-new-tokens 60
      edgevlm run llava-fp16 -i part.png -p "Describe it." -p "Is it safe to use?" --chat --timings
      edgevlm run llava-fp16 -i part.png -p "Report." --json-schema report.schema.json --lookup
      edgevlm run llava-fp16 -i part.png -p "What is it?" --context-cache ~/.cache/parts
      edgevlm run llava-fp16 -i part.png -p "Describe it." --temperature 0.7 --seed 1 --json
    """
    from edgevlm.cli.records import EngineReport, RunReport, answered
    from edgevlm_runtime import load

    loading |= _given(
        max_context=max_context,
        prefill_graph=prefill_graph,
        image_cache_dir=image_cache_dir,
        context_cache_dir=context_cache_dir,
        prompt_lookup=prompt_lookup,
        text_tokens=text_tokens,
        apply_exif_orientation=apply_exif_orientation,
        image_bit_depth=image_bit_depth,
    )
    form = _form(regex=regex, json_schema=json_schema, one_of=one_of)
    options = _given(**{**generation, "stop": generation["stop"] or None, "form": form})
    weighing = _weighing(choices, options, abstain_below=abstain_below, temperature=choice_temperature)
    answers: list[AnswerReport] = []
    with stdout_kept_clean():
        vlm = load(bundle, **loading)
        if vlm.engine.automatic:
            note(f"{vlm.engine.identity} ({vlm.engine.reason})")
        session = (vlm.chat if chat else vlm.session)(*images, system=system)
    with session:
        for prompt in prompts:
            if len(prompts) > 1 and not as_json:
                note(f"> {prompt}")
            answer: Answer | Choice
            if weighing is not None:
                answer = _choose(session, prompt, weighing, show=not as_json)
            else:
                answer = _ask(session, prompt, options, show=not as_json, stream=stream and not as_json)
                _say_cut(answer, options.get("max_new_tokens"), vlm.manifest.generation.max_new_tokens)
            answers.append(answered(prompt, answer))
            if timings:
                note(_timings(answer))
    if as_json:
        emit_json(RunReport(tuple(answers), EngineReport(vlm.engine.identity, vlm.engine.reason)))


def _given(**options: Any) -> dict[str, Any]:
    """The options the user gave; the others keep the runtime's or the model's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _ask(session: Session, prompt: str, options: dict[str, Any], *, show: bool, stream: bool) -> Answer:
    if not stream:
        answer = session.ask(prompt, **options)
        if show:
            click.echo(answer.text)
        return answer
    pieces = session.stream(prompt, **options)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()
    return pieces.answer


def _say_cut(answer: Answer, wanted: int | None, default: int) -> None:
    """That an answer is not whole, unless it is as long as was `wanted`."""
    if answer.finish_reason != CUT:
        return
    count = len(answer.token_ids)
    if count < (wanted or default):
        note(f"The answer was cut at {count} tokens: prompt and answer fill the context.")
    elif wanted is None:
        note(f"The answer was cut at {count} tokens, the bundle's default: ask for more with --max-new-tokens.")


def _form(*, regex: str | None, json_schema: Path | None, one_of: str | None) -> Form | None:
    """What answers are to look like; None as the model likes."""
    from edgevlm_runtime import EdgeVLMError, Form
    from edgevlm_runtime.form import LARGEST
    from edgevlm_runtime.reading import read_text, why

    given = [one for one in (regex, json_schema, one_of) if one is not None]
    if len(given) > 1:
        raise click.UsageError("give one of --regex, --json-schema and --one-of.")
    if json_schema is not None:
        try:
            return Form.json(read_text(json_schema, LARGEST))
        except OSError as error:
            raise EdgeVLMError(f"cannot read {json_schema}: {why(error)}: choose another --json-schema") from error
    if regex is not None:
        return Form.regex(regex)
    return None if one_of is None else Form.one_of(one_of.split(","))


def _weighing(choices: str | None, generation: dict[str, Any], **options: float | None) -> dict[str, Any] | None:
    """Arguments of `Session.choose`; None when an answer is to be generated."""
    given = _given(**options)
    if choices is None:
        if given:
            raise click.UsageError("--abstain-below and --choice-temperature need --choices.")
        return None
    if generation:
        name = next(iter(generation)).replace("_", "-")
        which = "--regex, --json-schema and --one-of" if name == "form" else f"--{name}"
        raise click.UsageError(f"--choices generates nothing: leave out {which}.")
    return {"choices": choices.split(","), **given}


def _choose(session: Session, prompt: str, weighing: dict[str, Any], *, show: bool) -> Choice:
    choice = session.choose(prompt, **weighing)
    if show:
        click.echo(choice.text if choice.text is not None else "(no verdict)")
        note(", ".join(f"{text} {100 * share:.1f} %" for text, share in choice.probabilities.items()))
    return choice


def _timings(answer: Answer | Choice) -> str:
    stages = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in asdict(answer.timings).items())
    reused = f"{answer.prefix_tokens_reused} of {answer.prompt_tokens} prompt tokens reused"
    return f"[ms] {stages}; {reused}; image cache {answer.image_cache}"
