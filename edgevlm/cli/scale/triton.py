"""`edgevlm triton`: a Triton model repository with a bundle in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgevlm.terminal.output import emit_json, json_option
from edgevlm.terminal.types import FilePath, Name, Whole, loading_options


@dataclass(frozen=True, slots=True)
class TritonReport:
    """What was written."""

    bundle: str
    """The folder, as it was given."""
    model: str
    """The model's folder in the repository; its last part is the model's name."""
    files: tuple[str, ...]
    """Every file in it."""


@click.command("triton", short_help="Write a Triton model repository.")
@click.argument("bundle", type=FilePath())
@click.argument("folder", metavar="DIR", type=FilePath(file_okay=False))
@click.option("--name", type=Name(), help="The model's name in Triton. Default: the bundle's folder.")
@click.option("--instances", type=Whole(1, 1024), default=1, metavar="N", help="Processes with the model. Default: 1.")
@click.option("--force", is_flag=True, help="Replace the model that is there.")
@loading_options()
@json_option
def command(
    bundle: Path,
    folder: Path,
    name: str | None,
    instances: int,
    force: bool,
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Write BUNDLE into the Triton model repository DIR, as a model of Triton's Python backend.

    The model keeps the decoding loop inside and sends an answer piece by piece (a decoupled model: gRPC streams, or
    /generate_stream over HTTP). Triton's Python needs edgevlm-runtime. Verified with Triton 2.51 on a
    processor, whose Python needs numpy below 2, and unverified with others. docs/scale.md has a client.

    \b
    Examples:
      edgevlm triton inspector-int8 models/
      edgevlm triton inspector-int8 models/ --name inspector --instances 2 --threads 2
    """
    from edgevlm.triton.repository import RepositoryOptions, write_repository

    options = RepositoryOptions(
        bundle=bundle,
        folder=folder,
        name=name or bundle.resolve().name,
        instances=instances,
        loading=loading,
        force=force,
    )
    model = write_repository(options)
    if as_json:
        files = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
        emit_json(TritonReport(str(bundle), str(model), tuple(files)))
    else:
        click.echo(model)
