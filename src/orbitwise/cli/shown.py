"""What commands have in common: a plan or a run, and what is printed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from orbitwise.runs.config import Config, Plan
    from orbitwise.runs.outcome import Outcome


def action_of(run: Path, verb: str) -> Callable[..., Outcome]:
    from orbitwise.runs.config import method_of_run
    from orbitwise.runs.registry import action

    return action(method_of_run(run), verb)


def run_command(command: ModuleType, schema: type[Config], dry_run: bool, **given: object) -> int:
    """Plan or run a command with the options that were ``given`` (not None); its exit code."""
    from orbitwise.runs.config import validate

    config = validate(schema, {key: value for key, value in given.items() if value is not None})
    if dry_run:
        show_plan(config, *planned(command, config, "files"))  # what was typed may be looked at
        return 0
    return show_lines(command.run(config))


def planned(
    method: ModuleType, config: Config, of: Literal["files", "all"] = "all"
) -> tuple[Plan | None, Callable[[], Sequence[str]]]:
    """The plan of a configuration, for which no code of a user's own runs (or none that ``files``
    name): without a plan, why there is none."""
    from orbitwise.runs.said import NotRun, nothing_runs

    try:
        with nothing_runs(of):
            return method.plan(config), tuple
    except NotRun as error:
        said = f"parameters and calls are not counted: {error} (a dry run runs no code)"
        return None, lambda: (said,)


def show_plan(
    config: Config, plan: Plan | None, otherwise: Callable[[], Sequence[str]] = tuple
) -> None:
    """The configuration, and what it will take; ``otherwise`` says it in words."""
    from orbitwise.runs.yaml_text import in_yaml

    print(in_yaml(config.resolved()), end="")
    if plan is None:
        for line in otherwise():
            print(f"# {line}")
        return
    print(f"# parameters: {plan.parameters:,}")
    print(f"# expected energy calls: {plan.energy_calls:,}")
    if plan.model_calls is not None:
        print(f"# expected model evaluations: {plan.model_calls:,}")


def show_lines(result: Outcome) -> int:
    """What a method says about its result: ``result.lines``; the command's exit code."""
    for line in result.lines:
        print(line)
    return result.exit_code
