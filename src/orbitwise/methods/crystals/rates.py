"""How often guesses match, as numbers with errors and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orbitwise.crystals.matching.ceiling import Ceiling
from orbitwise.crystals.matching.match import MatchResult, Measured
from orbitwise.methods.crystals.guesses import GuessedCrystals


@dataclass(frozen=True)
class CrystalFigures:
    """Match rates and RMSE (in units of (V/N)^⅓) with one and with all guesses, each with its
    standard error; ``evaluations`` network calls for each guess; ``consensus`` draws for each, of
    all of which they are chosen; ``ceiling`` of the test set."""

    items: int
    guesses: int
    evaluations: int
    seed: int
    match1: Measured
    rmse1: Measured
    match_all: Measured
    rmse_all: Measured
    invalid: int
    ceiling: Ceiling | None
    consensus: int = 1

    def lines(self) -> list[str]:
        """In words."""
        text = [_line("one guess", self.match1, self.rmse1)]
        if self.guesses > 1:
            text.append(_line(f"best of {self.guesses}", self.match_all, self.rmse_all))
        text.append(
            f"{self.items} compositions, {self.evaluations} network calls for each guess;"
            f" {self.invalid} guesses are no valid structures"
        )
        if self.guesses > 1 and self.consensus > 1:
            text.append(
                "the guesses are chosen together, the first for most of the draws: it knows all "
                f"{self.guesses * self.evaluations} network calls"
            )
        top = self.ceiling
        if top is not None:
            text.append(
                f"ceiling: {100 * top.drawn:.1f} % for one guess that draws among the structures"
                f" known of a composition; {100 * top.several:.0f} % of {top.compositions}"
                " compositions are known in more than one"
            )
            if top.in_training > 0:
                text.append(
                    f"{100 * top.in_training:.0f} % of the compositions are in the training set;"
                    f" repeating the structure there would match {100 * top.repeated:.0f} % of"
                    " these"
                )
        return text


def distance(rmse: Measured, with_error: bool = False) -> str:
    """An RMSE as text; a dash where nothing matched, no error where a single one did."""
    if not math.isfinite(rmse.value):
        return "–"
    known = with_error and math.isfinite(rmse.error)
    return f"{rmse.value:.4f}" + (f" ± {rmse.error:.4f}" if known else "")


def _line(what: str, rate: Measured, rmse: Measured) -> str:
    return (
        f"{what}: {100 * rate.value:.1f} ± {100 * rate.error:.1f} % match,"
        f" RMSE {distance(rmse, with_error=True)}"
    )


def figures(found: GuessedCrystals, result: MatchResult, top: Ceiling | None) -> CrystalFigures:
    """Of matched guesses; the first one counts as the one guess."""
    return CrystalFigures(
        items=len(result),
        guesses=found.guesses,
        evaluations=found.evaluations,
        seed=found.seed,
        match1=result.rate(1),
        rmse1=result.rmse(1),
        match_all=result.rate(),
        rmse_all=result.rmse(),
        invalid=int((~result.valid).sum()),
        ceiling=top,
        consensus=found.consensus,
    )
