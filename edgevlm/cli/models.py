"""`edgevlm models`: aliases and model families that can be exported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec

import click

from edgevlm.terminal.errors import install_line
from edgevlm.terminal.output import emit_json, human_bytes, json_option, note, table

_PRECISIONS = ("int8", "int4")
"""Those that the table has room for; `--json` has `fp32` too."""


@dataclass(frozen=True, slots=True)
class SizeReport:
    """A checkpoint in one precision."""

    bundle_bytes: int
    """The bundle on disk."""
    memory_bytes: int
    """What a process that asks it holds on a CPU, with a context of 2,048 tokens."""


@dataclass(frozen=True, slots=True)
class AliasReport:
    """A short name for a checkpoint."""

    alias: str
    """The name that `edgevlm export` takes."""
    repo_id: str | None
    """The Hugging Face id; null for the model that ships with edgevlm."""
    family: str
    """The model family, a `model_type`."""
    note: str
    """What the model is."""
    licence: str
    """Of the weights, by the name on their card when the alias was added; the card is what counts."""
    parameters: int
    """How many, computed from the shapes of the published weights, as the sizes are."""
    precisions: dict[str, SizeReport]
    """Sizes by precision."""


@dataclass(frozen=True, slots=True)
class ModelsReport:
    """What can be exported. The lists are empty where the exporter is not installed."""

    exporter_installed: bool = False
    """Whether this machine can export."""
    aliases: tuple[AliasReport, ...] = ()
    """Short names, in the order shown."""
    families: tuple[str, ...] = ()
    """Values of `model_type` in a checkpoint's config.json that can be exported."""
    chat_templates: tuple[str, ...] = ()
    """Names for `--chat-template`."""


@click.command("models", short_help="List the models that can be exported.")
@json_option
def command(as_json: bool) -> None:
    """List the model aliases, the model families and the chat templates that `edgevlm export` knows.

    An alias is a short name for a Hugging Face id, or for a model that ships with edgevlm. Any other checkpoint of a
    listed family exports as well: pass its id or its folder.

    Under a precision stand the size of its bundle and the memory that a question takes on a CPU with a context of 2,048
    tokens, both computed from the shapes of the weights.

    \b
    Examples:
      edgevlm models
      edgevlm models --json
    """
    installed = find_spec("edgevlm_export") is not None
    known = _known() if installed else ModelsReport()
    if not installed:
        note(f"The exporter, which knows the models, is not installed: {install_line('edgevlm_export')}")
    if as_json:
        emit_json(known)
    elif installed:
        click.echo("Aliases")
        header = ("alias", "id", "model", "licence", "parameters", *_PRECISIONS)
        click.echo(table([header, *map(_row, known.aliases)]))
        click.echo("Families (model_type in the checkpoint's config.json)")
        click.echo(table([(family,) for family in known.families]))
        click.echo("Chat templates (for --chat-template, where a checkpoint brings none)")
        click.echo(table([(template,) for template in known.chat_templates]))


def _known() -> ModelsReport:
    from edgevlm_export.chat_templates import NAMES
    from edgevlm_export.checkpoints.aliases import ALIASES, model_sizes
    from edgevlm_export.families import FAMILIES

    sizes = model_sizes()
    aliases = []
    for alias, model in ALIASES.items():
        precisions = {name: SizeReport(**asdict(size)) for name, size in sizes[alias].precisions.items()}
        aliases.append(AliasReport(alias, **asdict(model), parameters=sizes[alias].parameters, precisions=precisions))
    return ModelsReport(True, tuple(aliases), tuple(FAMILIES), tuple(NAMES))


def _row(model: AliasReport) -> tuple[str, ...]:
    """An alias's line."""
    sizes = [model.precisions[precision] for precision in _PRECISIONS]
    columns = [f"{human_bytes(size.bundle_bytes)}, {human_bytes(size.memory_bytes)}" for size in sizes]
    parameters = f"{model.parameters / 1e6:,.0f} M"
    return model.alias, model.repo_id or "(shipped)", model.note, model.licence, parameters, *columns
