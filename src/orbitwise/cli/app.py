"""The command line. Nothing heavy is imported before a command needs it, so that ``--help`` is
immediate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core
from typer.core import TyperGroup

from orbitwise.cli import failures

if TYPE_CHECKING:
    from orbitwise.runs.config import Config, Plan
    from orbitwise.runs.outcome import Outcome

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


def _literal(text: str) -> str:
    """A help text with square brackets as they are: rich takes them for markup where it renders
    the help, and nothing else may see the backslash that keeps it from that."""
    return text.replace("[", r"\[") if getattr(typer.core, "HAS_RICH", True) else text


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

Out = Annotated[Path | None, typer.Option(help="Folder for the results.", show_default=False)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show configuration, parameters and expected energy calls, and stop."
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder that a run wrote.", show_default=False)]


class SymmetryName(StrEnum):
    """Groups of the audit command."""

    so3 = "so3"
    o3 = "o3"
    permutation = "permutation"


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


@app.command()
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
            help=_literal(
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
            help=_literal("Processes that share xtb out; more than 1 need orbitwise[ray].")
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    out: Out = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference ensemble (.npz) to judge against.", show_default=False),
    ] = None,
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
        _show_plan(asked.config, asked.plan(), asked.in_words)
        return 0
    return _show_lines(asked.run())


@app.command()
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
            "--relax", help=_literal("Relax with CHGNet before ranking; needs orbitwise[chgnet].")
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same structures.")] = 0,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Crystal structures of a formula: ranked CIFs, space groups, a report."""
    from orbitwise.methods.crystals import command

    _run(
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
    )


@app.command()
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
        _show_plan(resolved, method.plan(resolved))
        return
    if out is None:
        raise InputError(
            "say where to keep the run: --out FOLDER (repeating the command there resumes it)"
        )
    _show_lines(method.train(resolved, out))


@app.command()
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

    _show_lines(with_options(_action(run, "sample"), n=n, molecules=molecules)(run, seed=seed))


@app.command()
def evaluate(run: Run) -> None:
    """Compare a run's samples with its held-out frames: RUN/summary.json and RUN/report.html."""
    _show_lines(_action(run, "evaluate")(run))


@app.command()
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
    seed: Annotated[int, typer.Option(help="The same seed gives the same audit.")] = 0,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Which share of a model's loss is imperfect symmetry: audit.json, audit.png and
    report.html."""
    from orbitwise.methods.audits import command

    _run(
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
    )


@app.command()
def report(run: Run) -> None:
    """Write RUN/report.html again from what a run left."""
    _show_lines(_action(run, "report")(run))


@methods_app.command("list")
def methods_list() -> None:
    """One line for each method, by family."""
    from orbitwise.cli.card import show_list

    show_list()


@methods_app.command("show")
def methods_show(
    name: Annotated[
        str, typer.Argument(help="As in `orbitwise methods list`.", show_default=False)
    ],
    whole: Annotated[
        bool,
        typer.Option("--all", help="Also what was checked, and what differs from the paper."),
    ] = False,
) -> None:
    """The CARD of a method."""
    from orbitwise.cli.card import show

    show(name, whole=whole)


@methods_app.command("cite")
def methods_cite(
    names: Annotated[
        list[str] | None, typer.Argument(help="Methods; all when none is given.")
    ] = None,
) -> None:
    """BibTeX of the papers behind methods."""
    from orbitwise.runs.registry import cite

    print(cite(names or ()), end="")


def _action(run: Path, verb: str) -> Callable[..., Outcome]:
    from orbitwise.runs.config import method_of_run
    from orbitwise.runs.registry import action

    return action(method_of_run(run), verb)


def _run(command: ModuleType, schema: type[Config], dry_run: bool, **given: object) -> int:
    """Plan or run a command with the options that were ``given`` (not None); its exit code."""
    from orbitwise.runs.config import validate

    config = validate(schema, {key: value for key, value in given.items() if value is not None})
    if dry_run:
        _show_plan(config, command.plan(config))
        return 0
    return _show_lines(command.run(config))


def _show_plan(
    config: Config, plan: Plan | None, otherwise: Callable[[], Sequence[str]] = tuple
) -> None:
    """The configuration, and what it will take; ``otherwise`` says it in words."""
    import yaml

    print(yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True), end="")
    if plan is None:
        for line in otherwise():
            print(f"# {line}")
        return
    print(f"# parameters: {plan.parameters:,}")
    print(f"# expected energy calls: {plan.energy_calls:,}")
    if plan.model_calls is not None:
        print(f"# expected model evaluations: {plan.model_calls:,}")


def _show_lines(result: Outcome) -> int:
    """What a method says about its result: ``result.lines``; the command's exit code."""
    for line in result.lines:
        print(line)
    return result.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a pipe in ASCII or cp1252 has no ± and no Å
            stream.reconfigure(errors="replace")
    try:
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
