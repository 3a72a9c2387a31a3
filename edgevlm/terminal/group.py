"""The click group that loads commands by name and turns every error into one line and an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from edgevlm.terminal.errors import BAD_INPUT, INTERRUPTED, READER_GONE, ResultLost, error_line
from edgevlm.terminal.streams import give_up

log = logging.getLogger(__name__)


class CommandGroup(click.Group):
    """Finds command NAME as `command` in the module `{commands_in}.NAME`, imported on first use; where `folders` names
    a folder for it, in `{commands_in}.FOLDER.NAME`."""

    def __init__(
        self,
        *args: Any,
        commands_in: str,
        names: Sequence[str],
        folders: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._folders = folders or {}
        self._package = commands_in
        self._names = tuple(names)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order given."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is none of that name."""
        if cmd_name not in self._names:
            return None
        place = ".".join(filter(None, (self._package, self._folders.get(cmd_name), cmd_name)))
        command: click.Command = import_module(place).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A pipe that breaks is not standard output, as click would have it, which leaves with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise click.ClickException("a process that this command had started has ended: try again") from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and leave with an exit code; errors become one line on stderr, unless `standalone_mode` is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except ResultLost as lost:
            give_up()
            if lost.reader_gone:
                sys.exit(READER_GONE)
            click.echo(error_line(lost), err=True)
            sys.exit(BAD_INPUT)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(BAD_INPUT)
        except Exception as error:  # the last line of defence: no traceback unasked
            log.debug("traceback of the error below", exc_info=error)
            click.echo(error_line(error), err=True)
            sys.exit(BAD_INPUT)
        sys.exit(code if isinstance(code, int) else 0)
