"""From the results of `orbitwise conformers` to summary.json, the report page and the last words on the terminal."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from torch import Tensor

from orbitwise.data.reference import Reference
from orbitwise.methods import provenance
from orbitwise.methods.conformer_judge import Against, Verdict, angles
from orbitwise.methods.conformer_stages import Drawn, Effort, Found, Relaxed, System, symmetry
from orbitwise.metrics.torsions import map_pair, torsion_word
from orbitwise.report import (
    CheckRow,
    Citation,
    ConformerRow,
    Ensembles,
    KeyFigure,
    ReportData,
    StageRow,
    TorsionPanel,
    main_picture,
    write_report,
)

KCAL_PER_KT = 0.0019872042586408316  # per kelvin
GOALS = {"js": 0.05, "energy": 0.5, "bond": 0.01}
STAGES = {
    "plan": ("plan", ("planning",)),
    "search": ("search (replica exchange)", ("search",)),
    "learn": ("learn (denoiser, exact orbit targets)", ()),
    "draw": ("draw samples", ("samples",)),
    "relax": ("relax", ("relaxation",)),
    "judge": ("cluster and compare", ("clustering",)),
}


@dataclass(frozen=True)
class Case:
    """Everything that one run of the command produced."""

    config: object
    system: System
    effort: Effort
    found: Found
    drawn: Drawn
    relaxed: Relaxed
    verdict: Verdict
    reference: Reference | None
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    folder: Path

    @property
    def kt(self) -> float:
        return KCAL_PER_KT * self.config.temperature

    @property
    def lowest(self) -> float:
        return float(self.verdict.clusters.energy.min())

    def kcal(self, energy: Tensor | np.ndarray) -> np.ndarray:
        """kT to kcal/mol above the lowest minimum."""
        energy = energy.detach().cpu().double().numpy() if isinstance(energy, Tensor) else energy
        return (energy - self.lowest) * self.kt


def against(result: Against | None) -> dict | None:
    if result is None:
        return None
    js = result.js
    return {
        "js": None
        if js is None
        else {"value": js.value, "error": js.error, "floor": js.floor, "bins": js.bins},
        "mean_energy_difference_kT": result.energy_kT,
        "largest_bond_length_difference_angstrom": result.bond_angstrom,
    }


def warnings_of(case: Case) -> list[str]:
    """What a reader has to know before using the numbers, in plain words."""
    verdict, drawn, relaxed, found = case.verdict, case.drawn, case.relaxed, case.found
    told = list(case.warnings)
    if verdict.mixing.rhat > 1.05 or not math.isfinite(verdict.mixing.rhat):
        told.append(
            f"The search has not mixed (split R-hat {verdict.mixing.rhat:.2f}, should be below 1.05): populations may be "
            "off by more than their errors. Give it more time with --budget."
        )
    usable = float(drawn.usable.float().mean())
    if usable < 0.9:
        told.append(
            f"{100 * (1 - usable):.0f} % of the learner's samples were of the wrong stereochemistry or broken and were left "
            "out before relaxation; they are counted in the figures 'before relaxation'."
        )
    tail = relaxed.trend[-max(1, len(relaxed.trend) // 4) :].mean() - found.energy.double().mean().cpu()
    if abs(float(tail)) > 0.5:
        told.append(
            f"After relaxation the mean energy is {float(tail):+.1f} kT from that of the search: the relaxation was too short "
            "or the learner misses something. Give it more time with --budget."
        )
    ensemble, searched = verdict.ensemble, verdict.searched
    error = (ensemble.error.square() + searched.error.square()).sqrt().clamp_min(1e-9)
    off = ((ensemble.population - searched.population).abs() / error > 4) & (
        torch.maximum(ensemble.population, searched.population) > 0.01
    )
    if off.any():
        which = ", ".join(f"{int(k) + 1}" for k in off.nonzero().flatten()[:8])
        told.append(
            f"Populations of conformer {which} differ between the learner and the search by more than four standard errors; "
            "the search is the one without systematic error once it has mixed."
        )
    every = [a.GetIdx() for a in case.system.mol.GetAtoms()]
    group = symmetry(case.system.mol, found.x[0, 0])
    if (
        not hasattr(group, "factors")
        and len(every) > 3
        and Chem.CanonicalRankAtoms(case.system.mol, breakTies=False)
    ):
        ranks = list(Chem.CanonicalRankAtoms(case.system.mol, breakTies=False))
        if len(set(ranks)) < len(ranks):
            told.append(
                "The molecule has too many automorphisms to enumerate, or none; only rotations were averaged exactly."
            )
    return told


def summary(case: Case) -> dict:
    """The content of summary.json."""
    verdict, config = case.verdict, case.config
    order = verdict.ensemble.population.argsort(descending=True).tolist()
    rows = []
    for k in order:
        reference = verdict.reference_population
        rows.append(
            {
                "conformer": k + 1,
                "population": float(verdict.ensemble.population[k]),
                "population_error": float(verdict.ensemble.error[k]),
                "relative_free_energy_kcal_mol": finite(float(verdict.ensemble.free_energy[k]) * case.kt),
                "relative_free_energy_error_kcal_mol": finite(
                    float(verdict.ensemble.free_energy_error[k]) * case.kt
                ),
                "search_population": float(verdict.searched.population[k]),
                "search_population_error": float(verdict.searched.error[k]),
                "reference_population": None if reference is None else float(reference[k]),
                "minimum_energy_kcal_mol": float(case.kcal(verdict.clusters.energy[k : k + 1])[0]),
                "mirror_image": None
                if verdict.clusters.mirror[k] < 0
                else int(verdict.clusters.mirror[k]) + 1,
            }
        )
    counts = {k: {"energy": c.energy, "gradient": c.gradient} for k, c in case.system.energy.counts.items()}
    return {
        "smiles": config.smiles,
        "isomer": Chem.MolToSmiles(Chem.RemoveHs(case.system.mol)),
        "formula": CalcMolFormula(case.system.mol),
        "temperature_kelvin": config.temperature,
        "energy": config.energy,
        "samples": len(case.relaxed.x),
        "drawn": len(case.drawn.x),
        "usable_share": float(case.drawn.usable.float().mean()),
        "conformers": rows,
        "mean_energy_kcal_mol": float(case.kcal(case.relaxed.energy).mean()),
        "search": case.found.info
        | {"rhat": case.verdict.mixing.rhat, "effective_samples": case.verdict.mixing.effective_samples},
        "reference": None
        if case.reference is None
        else {
            "file": str(config.reference),
            "meta": case.reference.meta,
            "basins_found": verdict.basins,
            "search": against(verdict.search),
            "before_relaxation": against(verdict.before),
            "after_relaxation": against(verdict.after),
        },
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


def report_data(case: Case, told: dict) -> ReportData:
    """The page's content."""
    verdict, config, mol = case.verdict, case.config, case.system.mol
    kinds = {
        "samples": angles(case.relaxed.x, verdict.torsions),
        "before": angles(case.drawn.x, verdict.torsions),
        "searcher": angles(case.found.x.flatten(0, 1), verdict.torsions),
    }
    kinds = {k: v.cpu().double().numpy() for k, v in kinds.items()}
    if case.reference is not None:
        kinds["reference"] = case.reference.torsions
    panels = tuple(
        TorsionPanel(t.label, Ensembles(**{k: v[:, i] for k, v in kinds.items()}), t.atoms)
        for i, t in enumerate(verdict.torsions)
    )
    finite_drawn = case.drawn.energy[torch.isfinite(case.drawn.energy)]
    energies = Ensembles(
        case.kcal(case.relaxed.energy),
        case.kcal(finite_drawn),
        case.kcal(case.found.energy.flatten()),
        None if case.reference is None else case.kcal(case.reference.energy),
    )
    minima = angles(verdict.clusters.x, verdict.torsions).cpu().double().tolist()
    rows = tuple(
        ConformerRow(
            row["population"],
            row["population_error"],
            math.inf if row["relative_free_energy_kcal_mol"] is None else row["relative_free_energy_kcal_mol"],
            math.inf if row["relative_free_energy_error_kcal_mol"] is None else row["relative_free_energy_error_kcal_mol"],
            row["minimum_energy_kcal_mol"],
            verdict.clusters.x[row["conformer"] - 1].cpu().double().numpy(),
            tuple(minima[row["conformer"] - 1]),
            f"{row['conformer']}: " + " ".join(
                torsion_word(a) for a, t in zip(minima[row["conformer"] - 1], verdict.torsions, strict=True) if t.kind != "amide"
            ),
            row["reference_population"],
        )
        for row in told["conformers"]
        if row["population"] > 0
    )  # fmt: skip
    kept = len(rows)
    calls = sum(c.energy for c in case.system.energy.counts.values())
    figures = [
        KeyFigure("conformers", str(kept), "distinct, at this temperature"),
        KeyFigure(
            "most populated", f"{100 * rows[0].population:.1f} %", f"± {100 * rows[0].population_error:.1f} %"
        ),
        KeyFigure("samples", f"{len(case.relaxed.x):,}", f"of {len(case.drawn.x):,} drawn"),
        KeyFigure(
            "energy evaluations", f"{calls / 1e6:.1f} M" if calls > 1e6 else f"{calls:,}", "all stages"
        ),
        KeyFigure(
            "time",
            f"{sum(case.seconds.values()) / 60:.1f} min",
            provenance.device(case.system.device).split(",")[0],
        ),
    ]
    stages = []
    for key, (name, counted) in STAGES.items():
        count = [case.system.energy.counts[c] for c in counted if c in case.system.energy.counts]
        stages.append(
            StageRow(
                name, case.seconds.get(key, 0.0), sum(c.energy for c in count), sum(c.gradient for c in count)
            )
        )
    info = case.found.info
    return ReportData(
        title=f"Conformers of {told['formula']}",
        smiles=told["isomer"],
        temperature_kelvin=config.temperature,
        numbers=np.array([a.GetAtomicNum() for a in mol.GetAtoms()]),
        bonds=tuple((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()),
        subtitle=f"{ENERGIES[config.energy]}, gas phase, {config.temperature:g} K",
        key_figures=tuple(figures),
        summary=tuple(words(case, told, rows)),
        warnings=tuple(told["warnings"]),
        torsions=panels,
        map_pair=map_pair(verdict.torsions),
        energies_kcal=energies,
        conformers=rows,
        conformers_note="Mirror images are listed apart. Errors are one standard error of independent samples.",
        checks=checks(verdict),
        stages=tuple(stages),
        method=(
            f"Search: replica exchange over {case.effort.rungs} temperatures from {config.temperature:g} to "
            f"{info['temperatures'][-1]:.0f} K with {case.effort.chains} chains each, Hamiltonian Monte Carlo and torsion moves; "
            f"{info['steps']} steps after warm-up, {info['round_trips']} round trips, {info['stereo_rejections']} moves refused "
            "because they would have changed the stereochemistry.",
            "Learner: an SO(3)-equivariant diffusion model trained on the search's frames; the target of every training pair "
            "is the exact posterior mean over rotations and the molecule's automorphisms.",
            f"Relaxation: {case.effort.relax_steps} Markov steps at the target temperature from each sample.",
        ),
        files=(
            ("ensemble.sdf", "all samples, energies in kcal/mol above the lowest minimum, conformer number"),
            ("ensemble.extxyz", "the same for ASE and other tools"),
            ("summary.json", "every number on this page"),
        ),
        settings=tuple((k, str(v)) for k, v in case.effort.model_dump().items()),
        versions=tuple(told["versions"].items()),
        seed=config.seed,
        commit=told["commit"] or "",
        command=f"orbitwise conformers {shlex.quote(config.smiles)} --n {config.n} --temperature {config.temperature:g} "
        f"--energy {config.energy} --budget {config.budget:g} --seed {config.seed}",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        citations=CITATIONS,
    )


ENERGIES = {"mmff94": "MMFF94", "mmff94s": "MMFF94s", "xtb": "GFN2-xTB"}
CITATIONS = (
    Citation("Tong et al., Rao-Blackwell Gradient Estimators for Equivariant Denoising Diffusion (2025)", "https://arxiv.org/abs/2502.09890"),
    Citation("Halgren, Merck molecular force field I-V, J. Comput. Chem. 17, 490-641 (1996)"),
    Citation("Syed et al., Non-reversible parallel tempering, J. R. Stat. Soc. B 84, 321 (2022)", "https://arxiv.org/abs/1905.02939"),
)  # fmt: skip


def words(case: Case, told: dict, rows) -> list[str]:
    """The result in two or three sentences."""
    top = rows[0]
    text = [
        f"At {case.config.temperature:g} K the molecule has {len(rows)} distinct conformers; the most populated one holds "
        f"{100 * top.population:.1f} ± {100 * top.population_error:.1f} %."
    ]
    rest = [r for r in rows[1:] if r.population > 0.01]
    if rest:
        text.append(f"{len(rest)} more {'is' if len(rest) == 1 else 'are'} above 1 %.")
    after = case.verdict.after
    if after is not None:
        found, known = case.verdict.basins
        text.append(
            f"Against the reference run {found} of {known} basins above 1 % were found and the mean energy is off by "
            f"{after.energy_kT:+.2f} kT."
        )
    return text


def write(case: Case, told: dict) -> None:
    """``report.html`` and ``picture.png``."""
    data = report_data(case, told)
    write_report(case.folder / "report.html", data)
    main_picture(data, case.folder / "picture.png")


def lines(case: Case, told: dict) -> list[str]:
    """What the terminal says at the end."""
    text = []
    for row in told["conformers"][:10]:
        text.append(
            f"conformer {row['conformer']:3d}  population {100 * row['population']:5.1f} ± "
            f"{100 * row['population_error']:.1f} %   search {100 * row['search_population']:5.1f} ± "
            f"{100 * row['search_population_error']:.1f} %"
        )
    text += [
        f"{row.what}: {row.samples} (before relaxation {row.before or '-'}; goal {row.target})"
        for row in checks(case.verdict)
    ]
    text += [f"warning: {warning}" for warning in told["warnings"]]
    text.append(f"report: {case.folder / 'report.html'}")
    return text
