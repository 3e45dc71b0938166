"""``orbitwise train``, ``sample``, ``evaluate`` and ``report``: what a run is put through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbitwise.cli.options import DryRun, Out, Run, Seed, Trust
from orbitwise.cli.shown import action_of, planned, show_lines, show_plan


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="YAML file or preset, as in orbit_diffusion/default.", show_default=False
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes, as in train.steps=2000."),
    ] = None,
    out: Out = None,
    trust: Trust = False,
    dry_run: DryRun = False,
) -> None:
    """Train on your own file of conformers; repeating the command resumes."""
    from orbitwise.errors import InputError
    from orbitwise.runs import config as configuration
    from orbitwise.runs.registry import trainer
    from orbitwise.runs.said import names_may_run

    resolved = configuration.load(config, overrides or (), trust=trust)
    method = trainer(resolved)
    names_may_run(resolved)
    if dry_run:
        show_plan(resolved, *planned(method, resolved))
        return
    if out is None:
        raise InputError(
            "say where to keep the run: --out FOLDER (repeating the command there resumes it)"
        )
    show_lines(method.train(resolved, out))


def sample(
    run: Run,
    n: Annotated[
        int | None,
        typer.Option(
            help="Samples to draw; guesses for each composition where the run predicts crystals.",
            show_default="as the method sets it",
        ),
    ] = None,
    seed: Seed = 0,
    molecules: Annotated[
        Path | None,
        typer.Option(
            help="Other molecules than the held-out ones: a file with one SMILES in each line.",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Draw samples from a trained run into its folder."""
    from orbitwise.runs.registry import with_options

    act = with_options(action_of(run, "sample"), n=n, molecules=molecules)
    show_lines(act(run, seed=seed, trust=trust))


def evaluate(run: Run, trust: Trust = False) -> None:
    """Compare a run's samples with its held-out frames: RUN/summary.json and RUN/report.html."""
    show_lines(action_of(run, "evaluate")(run, trust=trust))


def report(run: Run, trust: Trust = False) -> None:
    """Write RUN/report.html again from what a run left."""
    show_lines(action_of(run, "report")(run, trust=trust))
