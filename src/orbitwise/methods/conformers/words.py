"""What `orbitwise conformers` says about its result: the answer, warnings, goals, last lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rdkit import Chem

from orbitwise.groups.product import Product
from orbitwise.methods.conformers.compare import Against
from orbitwise.methods.conformers.diffusion import weights
from orbitwise.methods.conformers.exchange.mixing import angles, too_many_exchanges
from orbitwise.methods.conformers.judge import Verdict
from orbitwise.methods.conformers.summary import Case
from orbitwise.molecules.metrics.torsions import Torsion, torsion_word
from orbitwise.molecules.symmetry import symmetry
from orbitwise.report import CheckRow
from orbitwise.report.numbers import between, with_error

GOALS = {"js": 0.05, "energy": 0.5, "bond": 0.01}
NOT_CONVERGED, GOALS_MISSED = 3, 4  # exit codes
SHORT = 5  # words of a conformer's name that a sentence can hold
MORE = "Give it more time with --budget: it goes on from what there is."


def exit_code(verdict: Verdict) -> int:
    """0, or 3 where nothing has converged, or 4 where a goal against the reference is missed."""
    if not verdict.choice.converged:
        return NOT_CONVERGED
    return 0 if all(row.good for row in checks(verdict)) else GOALS_MISSED


def banner(verdict: Verdict) -> str:
    """What has to be known before anything else is read; empty where the ensemble has
    converged."""
    if verdict.choice.converged:
        return ""
    reason = verdict.choice.reason.replace("Nothing has converged", "Not converged", 1)
    return f"{reason} {MORE}"


def answer(case: Case) -> str:
    """The result in one sentence, with its error."""
    shown, final = case.numbers, case.verdict.final
    at = f"At {case.config.temperature:g} K the molecule has"
    if len(shown) == 1:
        return f"{at} one conformer."
    first, many = shown[0], above(case)
    how_many = "all" if many == len(shown) else "none" if not many else str(many)
    name = conformer_name(minimum_torsions(case.verdict)[first], case.verdict.torsions)
    which = f"conformer 1 ({name})" if 0 < len(name.split()) <= SHORT else "conformer 1"
    share = with_error(float(final.population[first]), float(final.error[first]), 100)
    return (
        f"{at} {len(shown)} distinct conformers, {how_many} of them above 1 %; the most populated,"
        f" {which}, holds {share} %."
    )


def above(case: Case) -> int:
    """Conformers of which more than one sample in a hundred is."""
    return sum(float(case.verdict.final.population[k]) > 0.01 for k in case.numbers)


def minimum_torsions(verdict: Verdict) -> list[list[float]]:
    """Torsions of the minimum of each conformer in radians."""
    return angles(verdict.clusters.x, verdict.torsions).cpu().double().tolist()


def conformer_name(theta: list[float], torsions: Sequence[Torsion]) -> str:
    """A word for each torsion; of amides only the cis ones are said."""
    pairs = list(zip(theta, torsions, strict=True))
    words = [torsion_word(a) for a, torsion in pairs if torsion.kind != "amide"]
    cis = [
        torsion.label.split()[0]
        for a, torsion in pairs
        if torsion.kind == "amide" and abs(a) < math.pi / 2
    ]
    return " ".join(words + [f"cis-{label}" for label in cis])


def warnings_of(case: Case) -> list[str]:
    """What a reader has to know before using the numbers, in plain words."""
    verdict, told = case.verdict, list(case.warnings)
    if not verdict.choice.converged:
        told.append(f"{verdict.choice.reason} {MORE}")
    told += filter(None, [too_many_exchanges(case.system.mol)])
    told += learner_warnings(case)

    ranks = Chem.CanonicalRankAtoms(case.system.mol, breakTies=False)
    if (
        case.weighed is not None
        and len(set(ranks)) < len(ranks)
        and not isinstance(symmetry(case.system.mol, case.found.x[0, 0]), Product)
    ):
        told.append(
            "The molecule has too many automorphisms to enumerate: the diffusion model averaged"
            " only rotations exactly."
        )
    return told


def learner_warnings(case: Case) -> list[str]:
    """What is wrong with the diffusion model's own samples, which are not the answer."""
    told, drawn = [], case.drawn
    if drawn is not None and (usable := float(drawn.usable.float().mean())) < 0.9:
        told.append(
            f"{100 * (1 - usable):.0f} % of the diffusion model's samples were of another"
            " stereoisomer or broken, and were left out."
        )
    if (gap := learner_gap(case)) is not None:
        told.append(
            f"The diffusion model's relaxed samples have a mean energy {gap:+.1f} kT from that"
            " of the search: unusable as they are."
        )
    return told


def learner_gap(case: Case) -> float | None:
    """Mean energy in kT of the diffusion model's relaxed samples minus that of the search, where it
    makes them unusable."""
    if case.relaxed is None:
        return None
    ended = case.relaxed.energy.double()
    gap = float(ended.mean()) - float(case.found.energy.double().mean())
    error = float(ended.std()) / math.sqrt(len(ended))
    return None if abs(gap) <= GOALS["energy"] + 2 * error else gap


def checks(verdict: Verdict) -> tuple[CheckRow, ...]:
    """The comparison of the final ensemble with the reference, and of those beside it."""
    known = verdict.reference
    if known is None:
        return ()
    final = known.final
    others = {} if verdict.choice.source == "search" else {"Search": known.search}
    if known.learned is not None:
        others["Learned"] = known.learned

    def row(what: str, of: Callable[[Against], str], goal: str, good: bool) -> CheckRow:
        return CheckRow(what, of(final), goal, good, {k: of(v) for k, v in others.items()})

    rows = []
    if final.js is not None:
        rows.append(
            row(
                "Jensen-Shannon divergence of the torsion map (nats)",
                _divergence,
                f"≤ {GOALS['js']}",
                final.js.value <= GOALS["js"],
            )
        )

    found, there = known.basins
    rows += [
        CheckRow("basins above 1 % found", f"{found} of {there}", "all", found == there),
        row(
            "mean energy minus reference (kT)",
            lambda a: f"{a.energy_kT:+.2f}",
            f"within {GOALS['energy']}",
            abs(final.energy_kT) <= GOALS["energy"],
        ),
        row(
            "largest difference of a mean bond length (Å)",
            lambda a: f"{a.bond_angstrom:.4f}",
            f"≤ {GOALS['bond']}",
            final.bond_angstrom <= GOALS["bond"],
        ),
    ]
    return tuple(rows)


def _divergence(found: Against) -> str:
    js = found.js
    return "" if js is None else f"{js.value:.3f} ± {js.error:.3f} (floor {js.floor:.3f})"


def goals(verdict: Verdict) -> str | None:
    """How many goals against the reference are reached, in one sentence; None without one."""
    rows = checks(verdict)
    if not rows:
        return None
    missed = [row.what for row in rows if not row.good]
    said = f"Against the reference {len(rows) - len(missed)} of {len(rows)} goals are reached"
    return f"{said}; MISSED: {', '.join(missed)}." if missed else f"{said}."


def agreements(verdict: Verdict) -> str | None:
    """Whether free energies agree, in one line; None where there is nothing to compare."""
    learned = verdict.learned.free_energies
    pairs = []
    if learned is not None:
        pairs.append(("diffusion model and search", learned.against_search))
    if verdict.reference is not None:
        pairs.append(("ensemble and reference", verdict.against_reference))
    parts = [
        f"{name} {found.words()}"
        if found
        else f"{name} share no second conformer with enough samples to compare"
        for name, found in pairs
    ]
    return f"free energies: {'; '.join(parts)}" if parts else None


def lines(case: Case, told: dict) -> tuple[str, ...]:
    """What the terminal says at the end."""
    verdict, first = case.verdict, banner(case.verdict)
    text = [first, answer(case)] if first else [answer(case)]
    rows = [row for row in told["conformers"] if row["population"] > 0]
    for row in rows[:10]:
        free = row["relative_free_energies"]["ensemble"]
        share = with_error(row["population"], row["population_error"], 100)
        text.append(
            f"conformer {row['conformer']:3d}   population {share:>13} %"
            f"   ΔE {row['minimum_energy_kcal_mol']:5.2f}   ΔG {told_free(free):>12} kcal/mol"
        )
    if len(rows) > 10:
        text.append(f"and {len(rows) - 10} more")
    if verdict.choice.converged:
        text.append(verdict.choice.reason)
    if (line := agreements(verdict)) is not None:
        text.append(line)
    if case.weighed is not None:
        text.append(weights.words(case.weighed, verdict.learned.worth))
    for row in checks(verdict):
        text.append(
            f"{row.what}: {row.samples} (goal {row.target}: {'reached' if row.good else 'MISSED'})"
        )
    text += [f"warning: {warning}" for warning in further(case, told)]
    effort = case.effort
    text.append(
        f"effort: {effort.search_steps} steps of {effort.chains} columns of {effort.rungs}"
        f" replicas; --effort {case.folder / 'summary.json'} repeats it elsewhere"
    )
    return (*text, f"report: {case.folder / 'report.html'}")


def further(case: Case, told: dict) -> tuple[str, ...]:
    """The warnings beside the banner, which says that nothing has converged."""
    reason = case.verdict.choice.reason
    return tuple(w for w in told["warnings"] if not (banner(case.verdict) and reason in w))


def told_free(free: dict) -> str:
    """A free-energy difference of the summary, with its error, interval or limit."""
    if free["error_kcal_mol"] is not None:
        return with_error(free["kcal_mol"], free["error_kcal_mol"])
    low, high = free["interval_kcal_mol"]
    return between(-math.inf if low is None else low, math.inf if high is None else high)
