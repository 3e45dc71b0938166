"""The command line. Nothing heavy is imported before a command needs it, so that ``--help`` is
immediate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from orbitwise.cli import failures, methods, runs
from orbitwise.cli.audit import audit
from orbitwise.cli.conformers import conformers
from orbitwise.cli.crystals import crystals
from orbitwise.signals import interrupting

_CLICK_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class _Commands(TyperGroup):
    """Turns every failure of a command into one line and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (_CLICK_ERROR, typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(failures.report(error, ctx.params.get("debug", False))) from error


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Sample distributions that have symmetries, from data or from an energy alone.",
)
methods_app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="What is implemented, what was checked, what to cite.",
)
app.add_typer(methods_app, name="methods")


def _version(value: bool) -> None:
    if value:
        from orbitwise import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""


for command in (
    conformers,
    crystals,
    runs.train,
    runs.sample,
    runs.evaluate,
    audit,
    runs.report,
):
    app.command()(command)
for name in ("list", "show", "cite"):
    methods_app.command(name)(getattr(methods, f"methods_{name}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe in ASCII or cp1252 has no ± and no Å
            stream.reconfigure(errors="replace")
    try:
        with interrupting():
            code = app(
                args=None if arguments is None else list(arguments),
                prog_name="orbitwise",
                standalone_mode=False,
            )
    except _CLICK_ERROR as error:
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        if message:  # else the help was shown
            print(f"error: {message} (see orbitwise --help)", file=sys.stderr)
        return failures.INPUT
    except (typer.Abort, KeyboardInterrupt):
        return failures.report(KeyboardInterrupt())
    except typer.Exit as stop:
        return stop.exit_code
    return code if isinstance(code, int) else 0
