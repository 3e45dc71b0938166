"""From the results of `orbitwise conformers` to the numbers of summary.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from torch import Tensor

from orbitwise.methods.conformers.compare import Against
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.diffusion import weights
from orbitwise.methods.conformers.diffusion.draw import Drawn
from orbitwise.methods.conformers.diffusion.relax import Relaxed
from orbitwise.methods.conformers.diffusion.weights import Weighed
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.judge import Verdict
from orbitwise.methods.conformers.levels import Levels
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics import free_energy
from orbitwise.molecules.files.reference import Reference
from orbitwise.runs import provenance
from orbitwise.units import KCAL_PER_MOL_K


@dataclass(frozen=True)
class Case:
    """Everything that one run of the command produced; ``weighed``, ``drawn``, ``relaxed`` where a
    diffusion model was asked for and came that far, ``carried`` where a cheaper energy searched."""

    config: ConformersConfig
    system: System
    effort: Effort
    found: Found
    weighed: Weighed | None
    drawn: Drawn | None
    relaxed: Relaxed | None
    carried: Levels | None
    verdict: Verdict
    reference: Reference | None
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    folder: Path

    @property
    def kt(self) -> float:
        """kcal/mol."""
        return KCAL_PER_MOL_K * self.config.temperature

    def kcal(self, energy: Tensor | np.ndarray | float) -> np.ndarray:
        """kT to kcal/mol above the lowest minimum."""
        energy = energy.detach().cpu().double().numpy() if isinstance(energy, Tensor) else energy
        return (energy - float(self.verdict.clusters.energy.min())) * self.kt

    @property
    def numbers(self) -> list[int]:
        """Indices of the conformers that the final ensemble holds, the most populated first."""
        return [k for k, p in enumerate(self.verdict.final.population.tolist()) if p > 0]


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


def conformer_row(case: Case, k: int) -> dict:
    """One conformer of summary.json."""
    verdict = case.verdict
    learned, known, mirror = verdict.learned, verdict.reference, int(verdict.clusters.mirror[k])
    sources = {n: free_energy.told(f, k, case.kt) for n, f in verdict.free_energies.items()}

    def of(found, name: str) -> dict:
        prefix = f"{name}_" if name else ""
        return {
            f"{prefix}population": None if found is None else float(found.population[k]),
            f"{prefix}population_error": None if found is None else float(found.error[k]),
        }

    return {
        "conformer": k + 1,
        **of(verdict.final, ""),
        "relative_free_energy_kcal_mol": sources["ensemble"]["kcal_mol"],
        "relative_free_energy_error_kcal_mol": sources["ensemble"]["error_kcal_mol"],
        "relative_free_energies": sources,
        **of(verdict.searched, "search"),
        **of(learned.populations, "learned"),
        **of(learned.weighted, "weighted"),
        **of(known, "reference"),
        "minimum_energy_kcal_mol": float(case.kcal(verdict.clusters.energy[k : k + 1])[0]),
        "degeneracy": int(verdict.degeneracy[k]),
        "mirror_image": None if mirror < 0 else mirror + 1,
    }


def summary(case: Case, warnings: list[str]) -> dict:
    """The content of summary.json."""
    verdict, config = case.verdict, case.config
    counts = {
        k: {"energy": c.energy, "gradient": c.gradient}
        for k, c in case.system.energy.counts.items()
    }
    mean, error = verdict.mean_energy
    return {
        "smiles": config.smiles,
        "isomer": Chem.MolToSmiles(Chem.RemoveHs(case.system.mol)),
        "formula": CalcMolFormula(case.system.mol),
        "temperature_kelvin": config.temperature,
        "energy": config.energy,
        "solvent": config.solvent,
        "delivered": {
            "source": verdict.choice.source,
            "converged": verdict.choice.converged,
            "reason": verdict.choice.reason,
        },
        "samples": len(verdict.samples),
        "conformers": [conformer_row(case, k) for k in range(len(verdict.clusters))],
        "mean_energy_kcal_mol": float(case.kcal(mean)),
        "mean_energy_error_kcal_mol": finite(error * case.kt),
        "search": {
            **case.found.info,
            "rhat": finite(verdict.mixing.rhat),
            "effective_samples": finite(verdict.mixing.effective_samples),
            "learned_moves": case.found.mixture is not None,
        },
        "learned": learned(case),
        "levels": levels(case),
        "against_reference": free_energy.compared(verdict.against_reference),
        "reference": None if case.reference is None else compared(case),
        "evaluations": counts,
        "seconds": case.seconds,
        "warnings": warnings,
        "seed": config.seed,
        "effort": case.effort.model_dump(exclude_none=True),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "device": provenance.device(case.system.device),
    }


def learned(case: Case) -> dict | None:
    """What the diffusion model came to."""
    found, drawn, relaxed = case.verdict.learned, case.drawn, case.relaxed
    if case.weighed is None:
        return None
    told: dict = {"weights": weights.told(case.weighed, found.worth)}
    if drawn is not None:
        told |= {
            "drawn": len(drawn.x),
            "usable_share": float(drawn.usable.float().mean()),
            "network_evaluations_per_sample": drawn.evaluations,
        }
    if relaxed is not None:
        free = found.free_energies
        told |= {
            "samples": len(relaxed.x),
            "lost_in_relaxation": int(relaxed.lost),
            "mean_energy_kcal_mol": float(case.kcal(relaxed.energy).mean()),
            "memory_of_relaxation": [finite(float(m)) for m in free.memory],
            "against_search": free_energy.compared(free.against_search),
        }
    return told


def levels(case: Case) -> dict | None:
    """What was carried from the search's energy to a better one."""
    found, cheaper = case.carried, case.config.cheaper
    if found is None or cheaper is None:
        return None
    return {
        "from": cheaper.energy,
        "to": case.config.energy,
        "particles": len(found.x),
        "levels": len(found.levels),
        "effective_samples": found.ess,
        "independent_starts": found.families,
        "free_energy_kcal_mol": found.free_energy * case.kt,
        "free_energy_error_kcal_mol": finite(found.free_energy_error * case.kt),
        "complete": found.complete,
    }


def compared(case: Case) -> dict:
    """The stages against the reference."""
    known = case.verdict.reference
    return {
        "file": str(case.config.reference),
        "meta": case.reference.meta,
        "basins_found": known.basins,
        "final": against(known.final),
        "search": against(known.search),
        "before_relaxation": against(known.before),
        "after_relaxation": against(known.learned),
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
