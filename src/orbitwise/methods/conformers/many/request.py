"""What `orbitwise conformers` is asked for, of one molecule or of many."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.molecules.files.inputs import Inputs, read_inputs
from orbitwise.molecules.identity import identity_of
from orbitwise.runs.config import Plan, validate
from orbitwise.runs.outcome import Outcome

# What --fast sets where nothing else is said: a minute, populations to three in a hundred.
FAST = {"budget": 1.0, "precision": 0.03}


@dataclass(frozen=True)
class Request:
    """``argument``: a SMILES or a file, whose molecules are ``inputs``; ``options`` of the
    configuration, without ``smiles``; ``jobs`` as in ``run_many``."""

    argument: str
    inputs: Inputs
    options: Mapping[str, Any] = field(default_factory=dict)
    jobs: int | None = None

    @classmethod
    def of(
        cls,
        argument: str,
        *,
        charge: int | None = None,
        jobs: int | None = None,
        fast: bool = False,
        **options: Any,
    ) -> Request:
        """Read the molecules. Options that are None are those of the configuration. Raises
        ``InputError`` for what is no molecule, and for options that do not go together."""
        inputs = read_inputs(argument, charge=charge)
        if charge is not None and inputs.file is None:
            raise InputError("--charge is for files without bonds; a SMILES says its charges")
        given = {key: value for key, value in options.items() if value is not None}
        if isinstance(given.get("effort"), Path):
            single = inputs.single
            given["effort"] = effort_of(given["effort"], None if single is None else single.smiles)
        found = cls(argument, inputs, {**(FAST if fast else {}), **given}, jobs)
        if inputs.single is not None and jobs is not None:
            raise InputError(
                "--jobs is for a list of molecules; --processes share the search of one"
            )
        return found

    @property
    def config(self) -> ConformersConfig:
        """That of the one molecule, or of any in the list, where ``smiles`` says which list."""
        single = self.inputs.single
        if single is None:
            return validate(ConformersConfig, {**self.options, "smiles": f"({self.argument})"})
        if single.smiles is None:
            raise InputError(f"{self.inputs.file}, record {single.number}: {single.error}")
        return validate(ConformersConfig, {**self.options, "smiles": single.smiles})

    @property
    def out(self) -> Path:
        """Folder of a list."""
        return Path(self.options.get("out") or Path("ensembles") / self.inputs.file.stem)

    def plan(self) -> Plan | None:
        """Of one molecule; None for a list, whose plan is its budget times its length."""
        from orbitwise.methods.conformers import command

        return command.plan(self.config) if self.inputs.single is not None else None

    def in_words(self) -> tuple[str, ...]:
        """The plan of a list."""
        usable = sum(entry.smiles is not None for entry in self.inputs.entries)
        wrong = [
            f"no. {entry.number} {entry.name}: {entry.error}"
            for entry in self.inputs.entries
            if entry.error
        ]
        text = f"molecules: {usable} (and {len(wrong)} that cannot be used)" if wrong else ""
        minutes = self.config.budget * usable
        return (
            text or f"molecules: {usable}",
            *wrong,
            f"expected minutes, of one job: at most about {minutes:,.0f}",
        )

    def run(self) -> Outcome:
        """The ensemble, or those of the list; notes of the input before the last line."""
        if self.inputs.single is not None:
            from orbitwise.methods.conformers import command

            outcome = command.run(self.config)
        else:
            from orbitwise.methods.conformers.many.run import run_many

            options = {key: value for key, value in self.options.items() if key != "out"}
            outcome = run_many(
                self.inputs.entries, options, self.out, self.jobs, command=self.typed()
            )
        if not self.inputs.frames:
            return outcome
        note = (
            f"{self.inputs.file} holds {self.inputs.frames} further frames of the same molecules;"
            " their geometries were not used"
        )
        return replace(outcome, lines=(*outcome.lines[:-1], note, *outcome.lines[-1:]))

    def typed(self) -> str:
        """What to type to do it again."""
        words = ["orbitwise", "conformers", shlex.quote(self.argument)]
        for key, value in self.options.items():
            if key != "effort":
                words += [f"--{key.replace('_', '-')}", shlex.quote(str(value))]
        return " ".join([*words, *(["--jobs", str(self.jobs)] if self.jobs else [])])


def effort_of(summary: Path, smiles: str | None = None) -> dict:
    """What a run came to, from its ``summary.json``; ``InputError`` where that says nothing, or is
    of another molecule than ``smiles``."""
    try:
        told = json.loads(summary.read_text(encoding="utf-8"))
        theirs, effort = told.get("smiles"), told["effort"]
    except (
        *(OSError, ValueError, KeyError),
        *(TypeError, AttributeError, RecursionError),
    ) as error:
        raise InputError(
            f"--effort {summary}: no effort can be read from it ({error}); name the summary.json of"
            " a finished run"
        ) from error
    if smiles and theirs and identity_of(str(theirs)) != identity_of(smiles):
        raise InputError(
            f"--effort {summary}: that run is of {theirs}, whose steps say nothing of another"
            f" molecule; name a run of {smiles}, or leave --effort out"
        )
    return effort
