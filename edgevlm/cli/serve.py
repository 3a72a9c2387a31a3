"""`edgevlm serve`: bundles behind the HTTP interface of OpenAI."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgevlm.terminal.output import emit_json, json_option, note, stdout_kept_clean
from edgevlm.terminal.types import FilePath, Name, Number, Whole, image_options, loading_options, prefill_graph_option

MOST_PORT = 65535
LARGEST_TOKENS = 1 << 16
PAUSE_S = 0.2
KEY_VARIABLE = "EDGEVLM_API_KEY"


@dataclass(frozen=True, slots=True)
class ServeReport:
    """When it has ended."""

    address: str
    """Where it listened."""
    models: tuple[str, ...]
    """The bundles, by the names of their folders."""
    seconds: float
    """How long."""


@click.command("serve", short_help="Answer OpenAI's clients over HTTP.")
@click.argument("bundles", nargs=-1, required=True, type=FilePath(), metavar="BUNDLE...")
@click.option(
    "--host", default="127.0.0.1", type=Name(), metavar="HOST", help="Default: 127.0.0.1, this machine alone."
)
@click.option("--port", default=8080, type=Whole(0, MOST_PORT), metavar="PORT", help="0: any free one. Default: 8080.")
@click.option(
    "--token",
    type=Name(),
    envvar=KEY_VARIABLE,
    show_envvar=True,
    metavar="KEY",
    help="API key that every request must have; needed with a --host that others reach.",
)
@click.option(
    "--token-file",
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="A file of API keys, one a line: one for each client.",
)
@click.option(
    "--contexts",
    default=4,
    type=Whole(1, 1024),
    metavar="N",
    help="KV caches kept between requests, for conversations that go on. Default: 4.",
)
@click.option(
    "--queue",
    "waiting",
    default=16,
    type=Whole(1, 100_000),
    metavar="N",
    help="Requests that wait for each bundle; more get 429. Default: 16.",
)
@click.option(
    "--parallel",
    default=1,
    type=Whole(1, 64),
    metavar="N",
    help="Answers of a bundle made at once. Default: 1.",
)
@click.option(
    "--allow-files",
    type=FilePath(exists=True, file_okay=False),
    metavar="DIR",
    help="Let clients name pictures below this folder.",
)
@click.option("--allow-urls", is_flag=True, help="Let clients name pictures on the public internet.")
@click.option(
    "--max-body", default=16.0, type=Number(0.001, 1000), metavar="MB", help="Largest request. Default: 16 megabytes."
)
@click.option("--max-pixels", type=Whole(1), metavar="N", help="Largest picture, in pixels. Default: 32 million.")
@loading_options()
@click.option("--max-context", type=Whole(1), metavar="N", help="Tokens each KV cache holds, to bound memory.")
@prefill_graph_option
@image_options
@json_option
def command(
    bundles: tuple[Path, ...],
    token: str | None,
    token_file: Path | None,
    loading: dict[str, Any],
    max_pixels: int | None,
    max_context: int | None,
    prefill_graph: bool | None,
    apply_exif_orientation: bool | None,
    image_bit_depth: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Answer questions about images over HTTP, as OpenAI's chat completions: each BUNDLE is a model, by the name of its
    folder.

    It goes on until Ctrl-C or SIGTERM. docs/serve.md has examples and what is supported.

    \b
    Examples:
      edgevlm serve inspector-int8
      edgevlm serve inspector-int8 llava-int8 --port 9000 --contexts 8
      edgevlm serve inspector-int8 --host 0.0.0.0 --token-file keys.txt --allow-files /srv/pictures
    """
    from edgevlm.installed import installed
    from edgevlm.terminal.signals import caught

    with installed("serve"):
        from edgevlm.serve.options import ServeOptions, name_of
        from edgevlm.serve.run import serving

    more = {
        "max_image_pixels": max_pixels,
        "max_context": max_context,
        "prefill_graph": prefill_graph,
        "apply_exif_orientation": apply_exif_orientation,
        "image_bit_depth": image_bit_depth,
    }
    loading |= {name: value for name, value in more.items() if value is not None}
    options = ServeOptions(bundles=bundles, tokens=_tokens(token, token_file), **given)
    names, begun = tuple(name_of(bundle) for bundle in bundles), time.monotonic()
    with caught() as told, stdout_kept_clean(), serving(options, loading) as (address, _):
        note(f"{', '.join(names)} at {address}v1")
        while told.signal is None:
            time.sleep(PAUSE_S)
    if as_json:
        emit_json(ServeReport(address, names, round(time.monotonic() - begun, 3)))


def _tokens(token: str | None, file: Path | None) -> tuple[str, ...]:
    """API keys. Raises `EdgeVLMError` for a file without any."""
    from edgevlm_runtime.errors import EdgeVLMError
    from edgevlm_runtime.reading import read_text, why

    own = () if token is None else (token,)
    if file is None:
        return own
    try:
        lines = read_text(file, LARGEST_TOKENS).split("\n")
    except OSError as error:
        raise EdgeVLMError(f"cannot read {file}: {why(error)}: choose another --token-file") from error
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise EdgeVLMError(f"{file} has no key: write one into it, one a line")
    return (*own, *keys)
