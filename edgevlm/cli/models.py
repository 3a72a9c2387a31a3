"""`edgevlm models`: aliases and model families that can be exported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec

import click

from edgevlm.terminal.errors import install_line
from edgevlm.terminal.output import emit_json, json_option, note, table


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
        click.echo(table([(model.alias, model.repo_id or "(shipped)", model.note) for model in known.aliases]))
        click.echo("Families (model_type in the checkpoint's config.json)")
        click.echo(table([(family,) for family in known.families]))
        click.echo("Chat templates (for --chat-template, where a checkpoint brings none)")
        click.echo(table([(template,) for template in known.chat_templates]))


def _known() -> ModelsReport:
    from edgevlm_export.chat_templates import NAMES
    from edgevlm_export.checkpoints.aliases import ALIASES
    from edgevlm_export.families import FAMILIES

    aliases = tuple(AliasReport(alias, **asdict(model)) for alias, model in ALIASES.items())
    return ModelsReport(True, aliases, tuple(FAMILIES), tuple(NAMES))
