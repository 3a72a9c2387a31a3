"""`edgevlm models`: aliases and model families that can be exported."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import click

from edgevlm.terminal.errors import install_line
from edgevlm.terminal.output import emit_json, human_bytes, json_option, note, table

_PRECISIONS = ("int8", "int4")
"""Those that the table has room for; `--json` has all."""


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
    aliases, families, templates = _known() if installed else ([], [], [])
    if not installed:
        note(f"The exporter, which knows the models, is not installed: {install_line('edgevlm_export')}")
    if as_json:
        emit_json(
            {"exporter_installed": installed, "aliases": aliases, "families": families, "chat_templates": templates}
        )
    elif installed:
        click.echo("Aliases")
        click.echo(table([("alias", "id", "model", "licence", "parameters", *_PRECISIONS), *map(_row, aliases)]))
        click.echo("Families (model_type in the checkpoint's config.json)")
        click.echo(table([(family,) for family in families]))
        click.echo("Chat templates (for --chat-template, where a checkpoint brings none)")
        click.echo(table([(template,) for template in templates]))


def _known() -> tuple[list[dict[str, Any]], list[str], list[str]]:
    from edgevlm_export.chat_templates import NAMES
    from edgevlm_export.checkpoints.aliases import ALIASES, model_sizes
    from edgevlm_export.families import FAMILIES

    sizes = model_sizes()
    aliases = [{"alias": alias, **asdict(model), **asdict(sizes[alias])} for alias, model in ALIASES.items()]
    return aliases, list(FAMILIES), list(NAMES)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    """An alias's line."""
    sizes = [model["precisions"][precision] for precision in _PRECISIONS]
    columns = [f"{human_bytes(size['bundle_bytes'])}, {human_bytes(size['memory_bytes'])}" for size in sizes]
    parameters = f"{model['parameters'] / 1e6:,.0f} M"
    return model["alias"], model["repo_id"] or "(shipped)", model["note"], model["licence"], parameters, *columns
