"""The report page of `orbitwise conformers`."""

from __future__ import annotations

import math
import shlex
from datetime import UTC, datetime

import numpy as np
import torch

from orbitwise.methods.conformers.judge import angles
from orbitwise.methods.conformers.summary import Case, agreements, checks
from orbitwise.methods.conformers.weights import STEPS
from orbitwise.methods.conformers.weights import words as weight_words
from orbitwise.molecules.metrics.torsions import map_pair, torsion_word
from orbitwise.report import (
    Citation,
    ConformerRow,
    Ensembles,
    FreeEnergy,
    KeyFigure,
    ReportData,
    StageRow,
    TorsionPanel,
    main_picture,
    write_report,
)
from orbitwise.runs import provenance

ENERGIES = {"mmff94": "MMFF94", "mmff94s": "MMFF94s", "xtb": "GFN2-xTB"}
STAGES = {  # stage: its name for people, and the heading its evaluations are counted under
    "plan": ("plan", "planning"),
    "search": ("search (replica exchange)", "search"),
    "learn": ("learn (denoiser, exact orbit targets)", None),
    "weigh": ("weigh (paths of the learner)", "weighing"),
    "draw": ("draw samples", "samples"),
    "relax": ("relax", "relaxation"),
    "judge": ("cluster and compare", "clustering"),
}
CITATIONS = (
    Citation(
        "Tong et al., Rao-Blackwell Gradient Estimators for Equivariant Denoising Diffusion (2025)",
        "https://arxiv.org/abs/2502.09890",
    ),
    Citation(
        "Syed et al., Non-reversible parallel tempering, J. R. Stat. Soc. B 84, 321 (2022)",
        "https://arxiv.org/abs/1905.02939",
    ),
)
FORCE_FIELD = Citation(
    "Halgren, Merck molecular force field I-V, J. Comput. Chem. 17, 490-641 (1996)"
)
XTB = Citation("Bannwarth, Ehlert, Grimme, GFN2-xTB, J. Chem. Theory Comput. 15, 1652 (2019)")


def write(case: Case, told: dict) -> None:
    """``report.html`` and ``picture.png`` in the run's folder."""
    data = report_data(case, told)
    write_report(case.folder / "report.html", data)
    main_picture(data, case.folder / "picture.png")


def report_data(case: Case, told: dict) -> ReportData:
    """The page's content; ``told`` is the summary."""
    verdict, config, mol = case.verdict, case.config, case.system.mol
    rows = conformer_rows(case, told)
    finite = case.drawn.energy[torch.isfinite(case.drawn.energy)]
    reference = case.reference
    energies = Ensembles(
        samples=case.kcal(case.relaxed.energy),
        before=case.kcal(finite),
        searcher=case.kcal(case.found.energy.flatten()),
        reference=None if reference is None else case.kcal(reference.energy),
    )
    return ReportData(
        title=f"Conformers of {told['formula']}",
        smiles=told["isomer"],
        temperature_kelvin=config.temperature,
        numbers=np.array([a.GetAtomicNum() for a in mol.GetAtoms()]),
        bonds=tuple((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()),
        subtitle=f"{ENERGIES[config.energy]}, gas phase, {config.temperature:g} K",
        key_figures=key_figures(case, rows),
        summary=words(case, rows),
        warnings=tuple(told["warnings"]),
        torsions=torsion_panels(case),
        map_pair=map_pair(verdict.torsions),
        energies_kcal=energies,
        conformers=rows,
        conformers_note=(
            "Mirror images are listed apart. Errors are one standard error; those of populations"
            " are of independent samples, those of free energies hold what the ensemble inherits"
            " from the search. Conformers with fewer than ten independent samples have a 95 %"
            " interval or limit instead."
        ),
        checks=checks(verdict),
        stages=stage_rows(case),
        method=method(case),
        files=(
            (
                "ensemble.sdf",
                "all samples, energies in kcal/mol above the lowest minimum, conformer number",
            ),
            ("ensemble.extxyz", "the same for ASE and other tools"),
            ("summary.json", "every number on this page"),
        ),
        settings=tuple((k.replace("_", " "), str(v)) for k, v in case.effort.model_dump().items()),
        versions=tuple(told["versions"].items()),
        seed=config.seed,
        commit=told["commit"] or "",
        command=(
            f"orbitwise conformers {shlex.quote(config.smiles)} --n {config.n} --temperature"
            f" {config.temperature:g} --energy {config.energy} --budget {config.budget:g} --seed"
            f" {config.seed}"
        ),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        citations=(*CITATIONS, XTB if config.energy == "xtb" else FORCE_FIELD),
    )


def conformer_rows(case: Case, told: dict) -> tuple[ConformerRow, ...]:
    """The conformers that the ensemble holds, most populated first, named by their torsions."""
    verdict = case.verdict
    minima = angles(verdict.clusters.x, verdict.torsions).cpu().double().tolist()

    def bounded(value: float | None, side: float = math.inf) -> float:
        return side if value is None else value

    def difference(values: dict) -> FreeEnergy:
        low, high = values["interval_kcal_mol"]
        interval = (bounded(low, -math.inf), bounded(high))
        return FreeEnergy(bounded(values["kcal_mol"]), values["error_kcal_mol"], interval)

    sources = [
        {name: difference(v) for name, v in row["relative_free_energies"].items()}
        for row in told["conformers"]
    ]

    def name(theta: list[float]) -> str:
        pairs = list(zip(theta, verdict.torsions, strict=True))
        words = [torsion_word(a) for a, torsion in pairs if torsion.kind != "amide"]
        cis = [
            torsion.label.split()[0]
            for a, torsion in pairs
            if torsion.kind == "amide" and abs(a) < math.pi / 2
        ]
        return " ".join(words + [f"cis-{label}" for label in cis])

    return tuple(
        ConformerRow(
            population=row["population"],
            population_error=row["population_error"],
            free_energy_kcal=sources[k]["ensemble"].kcal,
            free_energy_error_kcal=bounded(sources[k]["ensemble"].error),
            free_energy_interval_kcal=sources[k]["ensemble"].interval,
            reference_free_energy=sources[k].get("reference"),
            search_free_energy=sources[k].get("search"),
            energy_kcal=row["minimum_energy_kcal_mol"],
            positions_angstrom=verdict.clusters.x[k].cpu().double().numpy(),
            torsions=tuple(
                (
                    None if torsion.kind == "amide" and len(verdict.torsions) > 2 else a
                )  # the name says cis
                for a, torsion in zip(minima[k], verdict.torsions, strict=True)
            ),
            name=name(minima[k]),
            reference_population=row["reference_population"],
            reference_population_error=row["reference_population_error"],
            search_population=row["search_population"],
            search_population_error=row["search_population_error"],
        )
        for k, row in enumerate(told["conformers"])
        if row["population"] > 0
    )


def torsion_panels(case: Case) -> tuple[TorsionPanel, ...]:
    """Every torsion in every ensemble that there is."""
    torsions = case.verdict.torsions
    kinds = {
        "samples": case.relaxed.x,
        "before": case.drawn.x,
        "searcher": case.found.x.flatten(0, 1),
    }
    found = {k: angles(x, torsions).cpu().double().numpy() for k, x in kinds.items()}
    if case.reference is not None:
        found["reference"] = case.reference.torsions
    return tuple(
        TorsionPanel(t.label, Ensembles(**{k: v[:, i] for k, v in found.items()}), t.atoms)
        for i, t in enumerate(torsions)
    )


def key_figures(case: Case, rows: tuple[ConformerRow, ...]) -> tuple[KeyFigure, ...]:
    """The numbers in large type."""
    calls = sum(c.energy for c in case.system.energy.counts.values())
    device = provenance.device(case.system.device)
    return (
        KeyFigure("conformers", str(len(rows)), "distinct, at this temperature"),
        KeyFigure(
            "most populated",
            f"{100 * rows[0].population:.1f} %",
            f"± {100 * rows[0].population_error:.1f} %",
        ),
        KeyFigure("samples", f"{len(case.relaxed.x):,}", f"of {len(case.drawn.x):,} drawn"),
        KeyFigure(
            "energy evaluations",
            f"{calls / 1e6:.1f} M" if calls > 1e6 else f"{calls:,}",
            "all stages",
        ),
        KeyFigure("time", f"{sum(case.seconds.values()) / 60:.1f} min", device),
    )


def stage_rows(case: Case) -> tuple[StageRow, ...]:
    """Where the time and the evaluations went."""
    rows = []
    for key, (name, counted) in STAGES.items():
        count = case.system.energy.counts.get(counted)
        calls = (count.energy, count.gradient) if count else (0, 0)
        rows.append(StageRow(name, case.seconds.get(key, 0.0), *calls))
    return tuple(rows)


def method(case: Case) -> tuple[str, ...]:
    """What was done, in words with numbers."""
    info, effort = case.found.info, case.effort
    return (
        (
            f"Search: replica exchange over {effort.rungs} temperatures from"
            f" {case.config.temperature:g} to {info['temperatures'][-1]:.0f} K with {effort.chains}"
            f" chains each, Hamiltonian Monte Carlo and torsion moves; {info['steps']} steps after"
            f" warm-up, {info['round_trips']} round trips, {info['stereo_rejections']} moves"
            " refused because they would have changed the stereochemistry."
        ),
        (
            "Learner: an SO(3)-equivariant diffusion model trained on the frames of the search; the"
            " target of every training pair is the exact posterior mean over rotations and the"
            " molecule's automorphisms."
        ),
        (
            f"Weights: {case.weighed.paths:,} paths of the learner in {STEPS} steps, each with its"
            f" importance weight, and {len(case.weighed.backward):,} paths back from frames of the"
            " search. Variances of the steps are fitted to frames of the search; the weights are"
            " exact for any variances."
        ),
        (
            f"Relaxation: {effort.relax_steps} Markov steps at the target temperature from each"
            " sample."
        ),
    )


def words(case: Case, rows: tuple[ConformerRow, ...]) -> tuple[str, ...]:
    """The result in two or three sentences."""
    top = rows[0]
    share = f"{100 * top.population:.1f} ± {100 * top.population_error:.1f} %"
    at = f"At {case.config.temperature:g} K the molecule has"
    if len(rows) == 1:
        text = [f"{at} one conformer."]
    else:
        rest = sum(r.population > 0.01 for r in rows[1:])
        text = [
            f"{at} {len(rows)} distinct conformers; the most populated one holds {share}, and"
            f" {rest} more {'is' if rest == 1 else 'are'} above 1 %."
        ]
    if case.verdict.after is not None:
        found, known = case.verdict.basins
        text.append(
            f"Against the reference run {found} of {known} basins above 1 % were found, and the"
            f" mean energy is off by {case.verdict.after.energy_kT:+.2f} kT."
        )
    if len(rows) > 1:
        line = agreements(case.verdict)
        text.append(f"{line[0].upper()}{line[1:]}.")
    text.append(weight_words(case.weighed, case.verdict.worth))
    return tuple(text)
