"""``orbitwise crystals``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbitwise.cli.options import DryRun, Out, Seed, Trust, literal
from orbitwise.cli.shown import run_command


def crystals(
    formula: Annotated[str, typer.Argument(help="One cell, as in SrTiO3.", show_default=False)],
    run: Annotated[
        Path | None,
        typer.Option(
            help="A trained run of crystal structures, or a packaged model.",
            show_default="the model that comes with the package: ABX3 perovskites",
        ),
    ] = None,
    n: Annotated[int, typer.Option(help="Structures to draw.")] = 20,
    prompt: Annotated[
        str | None, typer.Option(help="A text, for a model trained with texts.", show_default=False)
    ] = None,
    relax: Annotated[
        bool,
        typer.Option(
            "--relax", help=literal("Relax with CHGNet before ranking; needs orbitwise[chgnet].")
        ),
    ] = False,
    seed: Seed = 0,
    out: Out = None,
    trust: Trust = False,
    dry_run: DryRun = False,
) -> None:
    """Crystal structures of a formula: ranked CIFs, space groups, a report."""
    from orbitwise.methods.crystals import command

    run_command(
        command,
        command.CrystalsConfig,
        dry_run,
        formula=formula,
        run=run,
        n=n,
        prompt=prompt,
        relax=relax,
        seed=seed,
        out=out,
        trust=trust,
    )
