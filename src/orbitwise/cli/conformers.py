"""``orbitwise conformers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbitwise.cli.options import DryRun, Out, Seed, literal
from orbitwise.cli.shown import show_lines, show_plan


def conformers(
    molecule: Annotated[
        str,
        typer.Argument(
            metavar="SMILES | FILE",
            help=(
                "One molecule, as in 'CC(=O)N[C@@H](C)C(=O)NC', or a file: .smi, .txt or .csv of"
                " SMILES, .sdf, .mol, .xyz, .extxyz or .pdb. Several molecules give a folder each"
                " and one table."
            ),
            show_default=False,
        ),
    ],
    n: Annotated[int, typer.Option(help="Samples to draw.")] = 1000,
    temperature: Annotated[float, typer.Option(help="Kelvin.")] = 300.0,
    energy: Annotated[
        str,
        typer.Option(
            help=literal(
                "Energy function: mmff94, mmff94s, xtb (needs orbitwise[xtb]), aimnet2 (needs"
                " orbitwise[dft]), or package.module:function."
            )
        ),
    ] = "mmff94",
    solvent: Annotated[
        str | None,
        typer.Option(help="Implicit solvent of xtb, as in water.", show_default="gas phase"),
    ] = None,
    search_energy: Annotated[
        str | None,
        typer.Option(
            help="A cheaper energy to search with; its samples are carried to --energy.",
            show_default="mmff94 for aimnet2 and xtb",
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="A first look: --budget 1 --precision 0.03 unless given."),
    ] = False,
    budget: Annotated[float | None, typer.Option(help="Minutes.", show_default="about 6")] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            help="Stop when the standard errors of populations are below this.",
            show_default="0.01",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Processes of the search.", show_default="all cores; 1 for a list"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Molecules of a list that are computed at once.", show_default="all cores"
        ),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(help="Beside the search: torsions, diffusion, none.", show_default="torsions"),
    ] = None,
    effort: Annotated[
        Path | None,
        typer.Option(
            help="The summary.json of a run whose steps to repeat, in place of a budget.",
            show_default=False,
        ),
    ] = None,
    charge: Annotated[
        int | None,
        typer.Option(
            help="Total charge of the molecules of .xyz, .extxyz and .pdb files.",
            show_default="as the file says, or 0",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help=literal("Processes that share xtb out; more than 1 need orbitwise[ray].")
        ),
    ] = 1,
    seed: Seed = 0,
    out: Out = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference ensemble (.npz) to judge against.", show_default=False),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", hidden=True)] = False,  # no file names code here
    dry_run: DryRun = False,
) -> int:
    """Boltzmann ensembles with populations, of one molecule or of many. Repeating the command
    resumes it. Exit code 0: all is well; 3: something has not converged or failed; 4: a goal of
    the reference is missed."""
    from orbitwise.methods.conformers.many.request import Request

    asked = Request.of(
        molecule,
        charge=charge,
        jobs=jobs,
        fast=fast,
        n=n,
        temperature=temperature,
        energy=energy,
        solvent=solvent,
        search_energy=search_energy,
        effort=effort,
        budget=budget,
        precision=precision,
        processes=processes,
        learner=learner,
        workers=workers,
        seed=seed,
        out=out,
        reference=reference,
    )
    if dry_run:
        show_plan(asked.config, asked.plan(), asked.in_words)
        return 0
    return show_lines(asked.run())
