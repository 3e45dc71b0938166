"""What `orbitwise conformers` says about its result: the answer, warnings, goals, last lines."""

from __future__ import annotations

from rdkit import Chem

from orbitwise.groups.product import Product
from orbitwise.methods.conformers import weights
from orbitwise.methods.conformers.judge import Verdict
from orbitwise.methods.conformers.summary import Case
from orbitwise.molecules.symmetry import symmetry
from orbitwise.report import CheckRow

GOALS = {"js": 0.05, "energy": 0.5, "bond": 0.01}
NOT_CONVERGED, GOALS_MISSED = 3, 4  # exit codes
MORE = "Give it more time with --budget: it goes on from what there is."


def exit_code(verdict: Verdict) -> int:
    """0, or 3 where nothing has converged, or 4 where a goal against the reference is missed."""
    if not verdict.choice.converged:
        return NOT_CONVERGED
    return 0 if all(row.good for row in checks(verdict)) else GOALS_MISSED


def answer(case: Case) -> str:
    """The result in one sentence, with its error."""
    shown, final = case.numbers, case.verdict.final
    at = f"At {case.config.temperature:g} K the molecule has"
    if len(shown) == 1:
        return f"{at} one conformer."
    first = shown[0]
    share = f"{100 * final.population[first]:.1f} ± {100 * final.error[first]:.1f} %"
    rest = sum(float(final.population[k]) > 0.01 for k in shown[1:])
    return (
        f"{at} {len(shown)} distinct conformers; the most populated one holds {share}, and"
        f" {rest} more {'is' if rest == 1 else 'are'} above 1 %."
    )


def warnings_of(case: Case) -> list[str]:
    """What a reader has to know before using the numbers, in plain words."""
    verdict, told = case.verdict, list(case.warnings)
    if not verdict.choice.converged:
        told.append(f"{verdict.choice.reason} {MORE}")
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
    told, drawn, relaxed = [], case.drawn, case.relaxed
    if drawn is not None and (usable := float(drawn.usable.float().mean())) < 0.9:
        told.append(
            f"{100 * (1 - usable):.0f} % of the diffusion model's samples were of another"
            " stereoisomer or broken, and were left out."
        )
    if relaxed is not None:
        quarter = max(1, len(relaxed.trend) // 4)
        ended = float(relaxed.trend[-quarter:].double().mean())
        gap = ended - float(case.found.energy.double().mean())
        if not abs(gap) <= 0.5:
            told.append(
                f"The diffusion model's relaxed samples have a mean energy {gap:+.1f} kT from that"
                " of the search: unusable as they are."
            )
    return told


def checks(verdict: Verdict) -> tuple[CheckRow, ...]:
    """The comparison of the final ensemble with the reference, beside that of the search."""
    known = verdict.reference
    if known is None:
        return ()
    final, search = known.final, known.search
    rows = []
    if final.js is not None:
        rows.append(
            CheckRow(
                "Jensen-Shannon divergence of the torsion map (nats)",
                f"{final.js.value:.3f} ± {final.js.error:.3f} (floor {final.js.floor:.3f})",
                f"{search.js.value:.3f}" if search.js else "",
                f"≤ {GOALS['js']}",
                final.js.value <= GOALS["js"],
            )
        )

    found, there = known.basins
    rows += [
        CheckRow("basins above 1 % found", f"{found} of {there}", "", "all", found == there),
        CheckRow(
            "mean energy minus reference (kT)",
            f"{final.energy_kT:+.2f}",
            f"{search.energy_kT:+.2f}",
            f"within {GOALS['energy']}",
            abs(final.energy_kT) <= GOALS["energy"],
        ),
        CheckRow(
            "largest difference of a mean bond length (Å)",
            f"{final.bond_angstrom:.4f}",
            f"{search.bond_angstrom:.4f}",
            f"≤ {GOALS['bond']}",
            final.bond_angstrom <= GOALS["bond"],
        ),
    ]
    return tuple(rows)


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
    text = [answer(case)]
    rows = [row for row in told["conformers"] if row["population"] > 0]
    for row in rows[:10]:
        free = row["relative_free_energies"]["ensemble"]
        error = f" ± {free['error_kcal_mol']:.2f}" if free["error_kcal_mol"] else ""
        text.append(
            f"conformer {row['conformer']:3d}  population {100 * row['population']:5.1f} ±"
            f" {100 * row['population_error']:.1f} %   ΔG {free['kcal_mol'] or 0.0:5.2f}{error}"
            f"   ΔE {row['minimum_energy_kcal_mol']:5.2f} kcal/mol"
        )
    if len(rows) > 10:
        text.append(f"and {len(rows) - 10} more")
    if case.verdict.choice.converged:
        text.append(case.verdict.choice.reason)
    if (line := agreements(case.verdict)) is not None:
        text.append(line)
    if case.weighed is not None:
        text.append(weights.words(case.weighed, case.verdict.learned.worth))
    for row in checks(case.verdict):
        verdict = "met" if row.good else "MISSED"
        text.append(f"{row.what}: {row.samples} (goal {row.target}: {verdict})")
    text += [f"warning: {warning}" for warning in told["warnings"]]
    return (*text, f"report: {case.folder / 'report.html'}")
