"""``orbitwise train``, ``sample``, ``evaluate`` and ``report``: what a run is put through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbitwise.cli.options import DryRun, Out, Run
from orbitwise.cli.shown import action_of, show_lines, show_plan


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
    dry_run: DryRun = False,
) -> None:
    """Train on your own file of conformers; repeating the command resumes."""
    from orbitwise.errors import InputError
    from orbitwise.runs import config as configuration
    from orbitwise.runs.registry import trainer

    resolved = configuration.load(config, overrides or ())
    method = trainer(resolved)
    if dry_run:
        show_plan(resolved, method.plan(resolved))
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
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples.")] = 0,
    molecules: Annotated[
        Path | None,
        typer.Option(
            help="Other molecules than the held-out ones: a file with one SMILES in each line.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Draw samples from a trained run into its folder."""
    from orbitwise.runs.registry import with_options

    show_lines(with_options(action_of(run, "sample"), n=n, molecules=molecules)(run, seed=seed))


def evaluate(run: Run) -> None:
    """Compare a run's samples with its held-out frames: RUN/summary.json and RUN/report.html."""
    show_lines(action_of(run, "evaluate")(run))


def report(run: Run) -> None:
    """Write RUN/report.html again from what a run left."""
    show_lines(action_of(run, "report")(run))
