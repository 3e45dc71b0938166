"""The report page of `orbitwise conformers`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

import numpy as np

from orbitwise.methods.conformers.diffusion.weights import STEPS
from orbitwise.methods.conformers.diffusion.weights import words as weight_words
from orbitwise.methods.conformers.exchange.mixing import angles
from orbitwise.methods.conformers.summary import Case
from orbitwise.methods.conformers.words import (
    SHORT,
    above,
    agreements,
    answer,
    banner,
    checks,
    conformer_name,
    further,
    goals,
    learner_gap,
    minimum_torsions,
)
from orbitwise.molecules.metrics.torsions import Torsion, map_pair
from orbitwise.report import (
    Beside,
    Checks,
    Citation,
    ConformerRow,
    Cost,
    Distributions,
    Drawing,
    Ensemble,
    FreeEnergy,
    KeyFigure,
    Method,
    Page,
    Provenance,
    StageRow,
    Text,
    TorsionPanel,
    main_picture,
    write_report,
)
from orbitwise.report.numbers import duration, with_error

ENERGIES = {
    "mmff94": "MMFF94",
    "mmff94s": "MMFF94s",
    "xtb": "GFN2-xTB",
    "aimnet2": "AIMNet2 (ωB97M-D3)",
}
STAGES = {  # stage: its name for people, and the heading its evaluations are counted under
    "plan": ("plan", "planning"),
    "search": ("search (replica exchange)", "search"),
    "plan_learner": ("plan the diffusion model", None),
    "learn": ("learn (denoiser, exact orbit targets)", None),
    "weigh": ("weigh (paths of the learner)", "weighing"),
    "draw": ("draw samples", "samples"),
    "relax": ("relax", "relaxation"),
    "levels": ("carry to the better energy", "levels"),
    "judge": ("quench, count and compare", "clustering"),
}
ORBIT_DIFFUSION = Citation(
    "Tong et al., Rao-Blackwell Gradient Estimators for Equivariant Denoising Diffusion (2025)",
    "https://arxiv.org/abs/2502.09890",
)
MIXTURES = Citation(
    "Swanson, Williams, Jonas, Von Mises Mixture Distributions for Molecular Conformation"
    " Generation (ICML 2023)",
    "https://arxiv.org/abs/2306.07472",
)
EXCHANGE = (
    Citation(
        "Syed et al., Non-reversible parallel tempering, J. R. Stat. Soc. B 84, 321 (2022)",
        "https://arxiv.org/abs/1905.02939",
    ),
    Citation(
        "Shirts, Chodera, Statistically optimal analysis of samples from multiple equilibrium"
        " states, J. Chem. Phys. 129, 124105 (2008)",
        "https://arxiv.org/abs/0801.1426",
    ),
)
FORCE_FIELD = Citation(
    "Halgren, Merck molecular force field I-V, J. Comput. Chem. 17, 490-641 (1996)"
)
XTB = Citation("Bannwarth, Ehlert, Grimme, GFN2-xTB, J. Chem. Theory Comput. 15, 1652 (2019)")
AIMNET2 = Citation(
    "Anstine, Zubatyuk, Isayev, AIMNet2: a neural network potential to meet your neutral, charged,"
    " organic, and elemental-organic needs, Chem. Sci. 16, 10228 (2025)"
)
NOTE = (
    "Mirror images are listed apart. Errors are one standard error. Conformers with fewer than ten"
    " independent samples have a 95 % interval or limit of ΔG instead."
)
SOURCES = {
    "search": (
        "Final: the search, all temperatures pooled; errors from the scatter between its chains."
    ),
    "levels": (
        "Final: samples of the search, carried to the better energy with exact weights; errors from"
        " the scatter between parts that were carried apart."
    ),
    "weights": "Final: the diffusion model's paths by their importance weights.",
}
BESIDE = {  # in the summary: in the table
    "search": "Search",
    "learned": "Learned",
    "weighted": "Weighted",
    "reference": "Reference",
}
FILES = (
    ("conformers.sdf", "a minimised structure of each conformer with ΔE, ΔG and population"),
    (
        "ensemble.sdf",
        "thermal samples with weights, energies in kcal/mol above the lowest minimum, conformer"
        " numbers",
    ),
    ("ensemble.extxyz", "the same for ASE and other tools"),
    ("summary.json", "every number on this page"),
)


def write(case: Case, told: dict) -> None:
    """``report.html`` and ``picture.png`` in the run's folder; ``told`` is the summary."""
    shown = ensemble(case, conformer_rows(case, told))
    write_report(case.folder / "report.html", page(case, told, shown))
    main_picture(shown, case.folder / "picture.png")


def page(case: Case, told: dict, shown: Ensemble) -> Page:
    """The page's content."""
    config, rows = case.config, shown.conformers
    return Page(
        title=f"Conformers of {told['formula']}",
        kind="Conformer ensemble",
        subtitle=(
            f"{ENERGIES.get(config.energy, config.energy)}, {config.solvent or 'gas phase'},"
            f" {config.temperature:g} K"
        ),
        banner=banner(case.verdict),
        lead=answer(case),
        drawing=Drawing(told["isomer"], shown.numbered),
        key_figures=key_figures(case, rows),
        blocks=(
            Text(words(case), warnings=further(case, told)),
            shown,
            Checks(checks(case.verdict), head="Final", target="Goal"),
            Cost(stage_rows(case)),
            Method(
                method(case),
                citations=citations(case),
            ),
            Provenance(
                files=FILES,
                settings={
                    k.replace("_", " "): v
                    for k, v in case.effort.model_dump(exclude_none=True).items()
                },
                versions=told["versions"],
                seed=config.seed,
                commit=told["commit"] or "",
                command=command(case),
            ),
        ),
    )


def ensemble(case: Case, rows: tuple[ConformerRow, ...]) -> Ensemble:
    """The molecule's part of the page, and what the picture is drawn from."""
    mol, reference = case.system.mol, case.reference
    learned = None if case.relaxed is None else case.relaxed.energy
    return Ensemble(
        numbers=np.array([a.GetAtomicNum() for a in mol.GetAtoms()]),
        temperature_kelvin=case.config.temperature,
        bonds=tuple((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()),
        conformers=rows,
        head="Final",
        note=note(case),
        torsions=torsion_panels(case),
        map_pair=map_pair(case.verdict.torsions),
        energies_kcal=Distributions(
            samples=case.kcal(case.verdict.delivered.energy[case.verdict.samples]),
            learned=None if learned is None else case.kcal(learned),
            reference=None if reference is None else case.kcal(reference.energy),
        ),
    )


def note(case: Case) -> str:
    """What stands below the table."""
    said = [SOURCES[case.verdict.choice.source]]
    if case.relaxed is not None:
        wrong = "" if learner_gap(case) is None else " (unusable)"
        said.append(f"Learned{wrong}: the diffusion model's samples after a short Markov chain.")
    if case.weighed is not None and not case.verdict.learned.worth.usable:
        said.append("Its importance weights are unusable and give no populations.")
    return " ".join([*said, NOTE])


def command(case: Case) -> str:
    """What to type to make the run again."""
    config = case.config
    text = (
        f"orbitwise conformers {shlex.quote(config.smiles)} --n {config.n} --temperature"
        f" {config.temperature:g} --energy {shlex.quote(config.energy)} --budget"
        f" {config.budget:g} --seed {config.seed}"
    )
    rest = ("solvent", "precision", "learner", "reference")
    return text + "".join(
        f" --{name} {shlex.quote(str(getattr(config, name)))}"
        for name in rest
        if getattr(config, name) != type(config).model_fields[name].default
    )


def conformer_rows(case: Case, told: dict) -> tuple[ConformerRow, ...]:
    """The conformers that the ensemble holds, most populated first, named by their torsions."""
    verdict = case.verdict
    positions = verdict.clusters.x.cpu().double().numpy()
    final = {"search": "search", "weights": "weighted"}.get(verdict.choice.source)
    names = {k: v for k, v in BESIDE.items() if k != final}
    if (cheaper := case.config.cheaper) is not None:
        names["search"] = f"Search ({ENERGIES.get(cheaper.energy, cheaper.energy)})"
    if learner_gap(case) is not None:
        names["learned"] = "Learned (unusable)"
    return tuple(
        conformer_row(row, x, theta, verdict.torsions, names)
        for row, x, theta in zip(
            told["conformers"], positions, minimum_torsions(verdict), strict=True
        )
        if row["population"] > 0
    )


def conformer_row(
    told: dict,
    positions: np.ndarray,
    theta: list[float],
    torsions: Sequence[Torsion],
    names: dict[str, str],
) -> ConformerRow:
    """One conformer of the summary, with its minimum's ``positions: (N, 3)`` in Å and torsions
    ``theta`` in radians; ``names`` of the ensembles that stand beside, where there are such."""
    free = {name: free_energy(v) for name, v in told["relative_free_energies"].items()}
    free["weighted"] = free.pop("weights", None)
    own = free["ensemble"]
    named = len(torsions) > 2  # then an amide has no column: the name says cis
    return ConformerRow(
        name=conformer_name(theta, torsions),
        energy_kcal=told["minimum_energy_kcal_mol"],
        positions_angstrom=positions,
        torsions=tuple(
            None if torsion.kind == "amide" and named else a
            for a, torsion in zip(theta, torsions, strict=True)
        ),
        population=told["population"],
        population_error=told["population_error"],
        free_energy_kcal=own.kcal,
        free_energy_error_kcal=math.inf if own.error is None else own.error,
        free_energy_interval_kcal=own.interval,
        degeneracy=told["degeneracy"],
        beside={
            word: Beside(
                told[f"{name}_population"], told[f"{name}_population_error"], free.get(name)
            )
            for name, word in names.items()
            if told[f"{name}_population"] is not None
        },
    )


def free_energy(told: dict) -> FreeEnergy:
    """From the summary, where null stands for what nothing bounds."""
    kcal, (low, high) = told["kcal_mol"], told["interval_kcal_mol"]
    return FreeEnergy(
        kcal=math.inf if kcal is None else kcal,
        error=told["error_kcal_mol"],
        interval=(-math.inf if low is None else low, math.inf if high is None else high),
    )


def torsion_panels(case: Case) -> tuple[TorsionPanel, ...]:
    """Every torsion in every ensemble that there is."""
    torsions = case.verdict.torsions
    kinds = {
        "samples": case.verdict.delivered.x[case.verdict.samples],
        "learned": None if case.relaxed is None else case.relaxed.x,
    }
    found = {
        k: angles(x.cpu(), torsions).double().numpy() for k, x in kinds.items() if x is not None
    }
    if case.reference is not None:
        found["reference"] = case.reference.torsions
    return tuple(
        TorsionPanel(t.label, Distributions(**{k: v[:, i] for k, v in found.items()}), t.atoms)
        for i, t in enumerate(torsions)
    )


def key_figures(case: Case, rows: tuple[ConformerRow, ...]) -> tuple[KeyFigure, ...]:
    """The numbers in large type."""
    config, first = case.config, rows[0]
    share = with_error(first.population, first.population_error, 100)
    return (
        KeyFigure(
            "most populated",
            f"{share} %",
            f"conformer 1: {first.name}" if 0 < len(first.name.split()) <= SHORT else "conformer 1",
        ),
        KeyFigure("conformers above 1 %", str(above(case)), f"of {len(rows)} found"),
        effective(case),
        KeyFigure(
            "energy",
            ENERGIES.get(config.energy, config.energy).split(" (")[0].split(":")[-1],
            f"{config.solvent or 'gas phase'}, {config.temperature:g} K",
        ),
        KeyFigure(
            "time",
            duration(sum(case.seconds.values())),
            f"search {duration(case.seconds['search'])}",
        ),
    )


def effective(case: Case) -> KeyFigure:
    """How many independent samples the ensemble is worth."""
    mixing, carried = case.verdict.mixing, case.carried
    state = f"R-hat {mixing.rhat:.3f}" if math.isfinite(mixing.rhat) else "R-hat unknown"
    note = f"{state}{'' if mixing.mixed else ', not mixed'}"
    count = mixing.effective_samples if carried is None else min(carried.ess, carried.families)
    return KeyFigure("effective samples", f"{count:,.0f}", note)


def stage_rows(case: Case) -> tuple[StageRow, ...]:
    """Where the time and the evaluations went."""
    rows = []
    for key, (name, counted) in STAGES.items():
        if key in case.seconds:
            count = case.system.energy.counts.get(counted)
            calls = (count.energy, count.gradient) if count else (0, 0)
            rows.append(StageRow(name, case.seconds[key], *calls))
    return tuple(rows)


def citations(case: Case) -> tuple[Citation, ...]:
    """Papers behind what was done."""
    energies = {"mmff94": FORCE_FIELD, "mmff94s": FORCE_FIELD, "xtb": XTB, "aimnet2": AIMNET2}
    found = [*EXCHANGE]
    found += [MIXTURES] if case.found.mixture is not None else []
    found += [ORBIT_DIFFUSION] if case.weighed is not None else []
    found += [energies[case.config.energy]] if case.config.energy in energies else []
    return tuple(found)


def method(case: Case) -> tuple[str, ...]:
    """What was done, in words with numbers."""
    info, effort = case.found.info, case.effort
    moves = "Hamiltonian Monte Carlo and torsion moves"
    if case.found.mixture is not None:
        moves += (
            ", among them independent torsions from mixtures of von Mises distributions that were"
            " fitted to the warm-up"
        )
    text = [
        f"Search: replica exchange over {effort.rungs} temperatures from"
        f" {case.config.temperature:g} to {info['temperatures'][-1]:.0f} K with {effort.chains}"
        f" chains each, {moves}; {info['steps']} steps after"
        f" warm-up, {info['round_trips']} round trips, {info['stereo_rejections']} moves"
        " refused because they would have changed the stereochemistry.",
        "Populations: frames of all temperatures, weighted for the target (multistate Bennett"
        " acceptance ratio), quenched and counted; errors from the scatter between chains.",
    ]
    if case.weighed is not None:
        text += [
            "Diffusion model: SO(3)-equivariant, trained on the frames of the search; the target of"
            " every training pair is the exact posterior mean over rotations and the molecule's"
            " automorphisms.",
            f"Its weights: {case.weighed.paths:,} paths in {STEPS} steps, each with its importance"
            f" weight, and {len(case.weighed.backward):,} paths back from frames of the search."
            " Variances of the steps are fitted to frames of the search; the weights are exact for"
            " any variances.",
        ]
    if case.relaxed is not None:
        text.append(
            f"Its relaxation: {effort.relax_steps} Markov steps at the target temperature from each"
            " sample."
        )
    return tuple(text)


def words(case: Case) -> tuple[str, ...]:
    """The result in a few sentences."""
    verdict = case.verdict
    text = [verdict.choice.reason] if verdict.choice.converged else []
    if (line := goals(verdict)) is not None:
        text.append(line)
    if (line := agreements(verdict)) is not None:
        text.append(f"{line[0].upper()}{line[1:]}.")
    if case.weighed is not None:
        text.append(weight_words(case.weighed, verdict.learned.worth))
    return tuple(text)
