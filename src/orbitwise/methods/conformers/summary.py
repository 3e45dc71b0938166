"""From the results of `orbitwise conformers` to numbers and words: summary.json, warnings, last
lines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from torch import Tensor

from orbitwise.groups.product import Product
from orbitwise.methods.conformers import weights
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.draw import Drawn
from orbitwise.methods.conformers.judge import Against, Verdict
from orbitwise.methods.conformers.relax import Relaxed
from orbitwise.methods.conformers.search import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.methods.conformers.weights import Weighed
from orbitwise.metrics import free_energy
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.symmetry import symmetry
from orbitwise.report import CheckRow
from orbitwise.runs import provenance
from orbitwise.units import KCAL_PER_MOL_K

GOALS = {"js": 0.05, "energy": 0.5, "bond": 0.01}


@dataclass(frozen=True)
class Case:
    """Everything that one run of the command produced."""

    config: ConformersConfig
    system: System
    effort: Effort
    found: Found
    weighed: Weighed
    drawn: Drawn
    relaxed: Relaxed
    verdict: Verdict
    reference: Reference | None
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    folder: Path

    @property
    def kt(self) -> float:
        """kcal/mol."""
        return KCAL_PER_MOL_K * self.config.temperature

    def kcal(self, energy: Tensor | np.ndarray) -> np.ndarray:
        """kT to kcal/mol above the lowest minimum."""
        energy = energy.detach().cpu().double().numpy() if isinstance(energy, Tensor) else energy
        return (energy - float(self.verdict.clusters.energy.min())) * self.kt


def against(result: Against | None) -> dict | None:
    """A comparison as plain values."""
    if result is None:
        return None
    js = result.js
    return {
        "js": (
            None
            if js is None
            else {"value": js.value, "error": js.error, "floor": js.floor, "bins": js.bins}
        ),
        "mean_energy_difference_kT": result.energy_kT,
        "largest_bond_length_difference_angstrom": result.bond_angstrom,
    }


def warnings_of(case: Case) -> list[str]:
    """What a reader has to know before using the numbers, in plain words."""
    verdict, drawn, relaxed, found = case.verdict, case.drawn, case.relaxed, case.found
    told = list(case.warnings)
    more = "Give it more time with --budget."
    if not verdict.mixing.rhat <= 1.05:
        told.append(
            f"The search has not mixed (split R-hat {verdict.mixing.rhat:.2f}, should be below"
            f" 1.05): populations may be off by more than their errors. {more}"
        )

    usable = float(drawn.usable.float().mean())
    if usable < 0.9:
        told.append(
            f"{100 * (1 - usable):.0f} % of the learner's samples were of another stereoisomer or"
            " broken. They were left out before relaxation and are counted in the figures before"
            " relaxation."
        )

    if int(relaxed.lost) > 0.01 * len(relaxed.x):
        told.append(
            f"{int(relaxed.lost)} samples did not relax to a molecule and were left out after"
            f" relaxation. {more}"
        )

    if len(relaxed.x) < case.config.n:
        told.append(f"Only {len(relaxed.x)} of {case.config.n} samples came out usable. {more}")
    quarter = max(1, len(relaxed.trend) // 4)
    gap = float(relaxed.trend[-quarter:].double().mean()) - float(found.energy.double().mean())
    if not abs(gap) <= 0.5:
        told.append(
            f"After relaxation the mean energy is {gap:+.1f} kT from that of the search: the"
            f" relaxation was too short, or the learner misses something. {more}"
        )

    beside = verdict.free_energies.against_search
    if beside is not None and not beside.within_errors:
        told.append(
            f"The free energies of the ensemble and of the search {beside.words()}. The search has"
            " no systematic error once it has mixed: prefer it there."
        )

    ranks = Chem.CanonicalRankAtoms(case.system.mol, breakTies=False)
    if len(set(ranks)) < len(ranks) and not isinstance(
        symmetry(case.system.mol, found.x[0, 0]), Product
    ):
        told.append(
            "The molecule has too many automorphisms to enumerate: only rotations were averaged"
            " exactly."
        )
    return told


def conformer_row(case: Case, k: int) -> dict:
    """One conformer of summary.json."""
    verdict = case.verdict
    ensemble, mirror = verdict.ensemble, int(verdict.clusters.mirror[k])
    reference, weighted = verdict.reference_population, verdict.weighted
    sources = {n: free_energy.told(f, k, case.kt) for n, f in verdict.free_energies.sources.items()}
    return {
        "conformer": k + 1,
        "population": float(ensemble.population[k]),
        "population_error": float(ensemble.error[k]),
        "relative_free_energy_kcal_mol": sources["ensemble"]["kcal_mol"],
        "relative_free_energy_error_kcal_mol": sources["ensemble"]["error_kcal_mol"],
        "relative_free_energies": sources,
        "search_population": float(verdict.searched.population[k]),
        "search_population_error": float(verdict.searched.error[k]),
        "weighted_population": None if weighted is None else float(weighted.population[k]),
        "weighted_population_error": None if weighted is None else float(weighted.error[k]),
        "reference_population": None if reference is None else float(reference[k]),
        "reference_population_error": (
            None if reference is None else float(verdict.reference_error[k])
        ),
        "minimum_energy_kcal_mol": float(case.kcal(verdict.clusters.energy[k : k + 1])[0]),
        "mirror_image": None if mirror < 0 else mirror + 1,
    }


def summary(case: Case) -> dict:
    """The content of summary.json."""
    verdict, config = case.verdict, case.config
    counts = {
        k: {"energy": c.energy, "gradient": c.gradient}
        for k, c in case.system.energy.counts.items()
    }
    reference = None
    if case.reference is not None:
        reference = {
            "file": str(config.reference),
            "meta": case.reference.meta,
            "basins_found": verdict.basins,
            "search": against(verdict.search),
            "before_relaxation": against(verdict.before),
            "after_relaxation": against(verdict.after),
        }

    return {
        "smiles": config.smiles,
        "isomer": Chem.MolToSmiles(Chem.RemoveHs(case.system.mol)),
        "formula": CalcMolFormula(case.system.mol),
        "temperature_kelvin": config.temperature,
        "energy": config.energy,
        "samples": len(case.relaxed.x),
        "drawn": len(case.drawn.x),
        "lost_in_relaxation": int(case.relaxed.lost),
        "usable_share": float(case.drawn.usable.float().mean()),
        "network_evaluations_per_sample": case.drawn.evaluations,
        "conformers": [conformer_row(case, k) for k in range(len(verdict.clusters))],
        "mean_energy_kcal_mol": float(case.kcal(case.relaxed.energy).mean()),
        "search": {
            **case.found.info,
            "rhat": finite(verdict.mixing.rhat),
            "effective_samples": finite(verdict.mixing.effective_samples),
        },
        "weights": weights.told(case.weighed, verdict.worth),
        "free_energies": {
            "relative_to_conformer": 1,
            "memory_of_relaxation": [finite(float(m)) for m in verdict.free_energies.memory],
            "against_search": free_energy.compared(verdict.free_energies.against_search),
            "against_reference": free_energy.compared(verdict.free_energies.against_reference),
        },
        "reference": reference,
        "evaluations": counts,
        "seconds": case.seconds,
        "warnings": warnings_of(case),
        "seed": config.seed,
        "effort": case.effort.model_dump(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "device": provenance.device(case.system.device),
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def checks(verdict: Verdict) -> tuple[CheckRow, ...]:
    """The comparison with the reference, after and before relaxation."""
    after, before = verdict.after, verdict.before
    if after is None:
        return ()
    rows = []
    if after.js is not None:
        rows.append(
            CheckRow(
                "Jensen-Shannon divergence of the torsion map (nats)",
                f"{after.js.value:.3f} ± {after.js.error:.3f} (floor {after.js.floor:.3f})",
                f"{before.js.value:.3f}" if before.js else "",
                f"≤ {GOALS['js']}",
                after.js.value <= GOALS["js"],
            )
        )

    found, known = verdict.basins
    rows += [
        CheckRow("basins above 1 % found", f"{found} of {known}", "", "all", found == known),
        CheckRow(
            "mean energy minus reference (kT)",
            f"{after.energy_kT:+.2f}",
            f"{before.energy_kT:+.3g}",
            f"within {GOALS['energy']}",
            abs(after.energy_kT) <= GOALS["energy"],
        ),
        CheckRow(
            "largest difference of a mean bond length (Å)",
            f"{after.bond_angstrom:.4f}",
            f"{before.bond_angstrom:.4f}",
            f"≤ {GOALS['bond']}",
            after.bond_angstrom <= GOALS["bond"],
        ),
    ]
    return tuple(rows)


def agreements(verdict: Verdict) -> str:
    """Whether free energies agree, in one line."""
    free = verdict.free_energies
    pairs = [("search", free.against_search)]
    pairs += [("reference", free.against_reference)] if free.reference is not None else []
    parts = [
        (
            f"ensemble and {name} {found.words()}"
            if found
            else f"ensemble and {name} share no second conformer with enough samples to compare"
        )
        for name, found in pairs
    ]
    return f"free energies: {'; '.join(parts)}"


def lines(case: Case, told: dict) -> tuple[str, ...]:
    """What the terminal says at the end."""
    text = []
    for row in told["conformers"][:10]:
        text.append(
            f"conformer {row['conformer']:3d}  population {100 * row['population']:5.1f} ±"
            f" {100 * row['population_error']:.1f} %   search {100 * row['search_population']:5.1f}"
            f" ± {100 * row['search_population_error']:.1f} %"
        )
    if len(told["conformers"]) > 10:
        text.append(f"and {len(told['conformers']) - 10} more")
    text.append(agreements(case.verdict))
    text.append(weights.words(case.weighed, case.verdict.worth))
    for row in checks(case.verdict):
        text.append(
            f"{row.what}: {row.samples} (before relaxation {row.before or '-'}; goal {row.target})"
        )
    text += [f"warning: {warning}" for warning in told["warnings"]]
    return (*text, f"report: {case.folder / 'report.html'}")
