"""``orbitwise audit``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orbitwise.cli.options import DryRun, Out, Seed, Trust
from orbitwise.cli.shown import run_command


class SymmetryName(StrEnum):
    """Groups of the audit command."""

    so3 = "so3"
    o3 = "o3"
    permutation = "permutation"


def audit(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN | MODULE:FUNCTION | FILE",
            help=(
                "A trained run; package.module:function of a force field (with --data); or with"
                " --ase a file."
            ),
            show_default=False,
        ),
    ] = None,
    ase: Annotated[
        str | None,
        typer.Option(
            help="A calculator: xtb, chgnet, emt, lj, or package.module:function.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Structures (.extxyz), with references or without.", show_default=False),
    ] = None,
    group: Annotated[SymmetryName, typer.Option(help="The symmetry.")] = SymmetryName.so3,
    nodes: Annotated[
        str | None,
        typer.Option(
            help=(
                "Poses of each item: tetrahedral:2, octahedral:2, icosahedral:2, all, or a number"
                " of random ones."
            ),
            show_default="tetrahedral:2 for rotations",
        ),
    ] = None,
    items: Annotated[int, typer.Option("--items", "-n", help="At most so many structures.")] = 64,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Levels of a run, as noise levels t: 0.5,0.9.", show_default="those of the run"
        ),
    ] = None,
    loss: Annotated[str, typer.Option(help="squared, l1, huber or norm.")] = "squared",
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Also the gradients of both parts of a run's loss.")
    ] = False,
    budget: Annotated[
        float, typer.Option(help="Seconds after which no further batch is begun.")
    ] = 300.0,
    seed: Seed = 0,
    out: Out = None,
    trust: Trust = False,
    dry_run: DryRun = False,
) -> None:
    """Which share of a model's loss is imperfect symmetry: audit.json, audit.png and
    report.html."""
    from orbitwise.methods.audits import command

    run_command(
        command,
        command.AuditConfig,
        dry_run,
        **command.subject_keys(what, ase, data),
        group=group.value,
        nodes=nodes,
        items=items,
        levels=None if levels is None else levels.split(","),
        loss=loss,
        gradients=gradients,
        budget=budget,
        seed=seed,
        out=out,
        trust=trust,
    )
