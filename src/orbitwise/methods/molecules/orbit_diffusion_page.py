"""The report page of a trained model: its samples beside the frames that were held out."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem

from orbitwise.errors import EnergyError, InputError
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules import MMFF94
from orbitwise.molecules.files.ensemble import Ensemble
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.metrics.comparison import Comparison
from orbitwise.molecules.metrics.torsions import Torsion, find_torsions, map_pair
from orbitwise.report import (
    CheckRow,
    Checks,
    Citation,
    Distributions,
    Drawing,
    KeyFigure,
    Method,
    Page,
    Provenance,
    Text,
    TorsionPanel,
    write_report,
)
from orbitwise.report import Ensemble as EnsembleBlock
from orbitwise.runs.config import Config
from orbitwise.runs.registry import card


def write(
    path: Path,
    config: Config,
    data: Ensemble,
    samples: np.ndarray,
    result: Comparison,
) -> Path:
    """Write the page of one run; ``samples: (n, N, 3)`` Å."""
    own, smiles = card("orbit_diffusion"), Chem.MolToSmiles(Chem.RemoveHs(data.mol))
    shown = _shown(config.temperature, data, samples)
    page = Page(
        title=f"Orbit Diffusion: {smiles}",
        kind="Conformer ensemble",
        subtitle="samples of the trained model; the reference is the frames that were held out",
        drawing=Drawing(smiles, shown.numbered),
        key_figures=_key_figures(result, len(data.training)),
        blocks=(
            Text(tuple(result.lines()), warnings=_warnings(result)),
            shown,
            Checks(_checks(result)),
            Method(
                (own.summary.strip(), f"Bonds: {data.bond_source}."),
                citations=(Citation.arxiv(own.paper, own.arxiv),),
            ),
            Provenance(
                files=(
                    ("samples.sdf", "samples"),
                    ("samples.extxyz", "samples"),
                    ("summary.json", "all figures"),
                ),
                settings=config.resolved(),
                versions={name: version(name) for name in ("orbitwise", "torch", "rdkit")},
                seed=config.train.seed,
            ),
        ),
    )
    return write_report(path, page)


def _shown(temperature: float, data: Ensemble, samples: np.ndarray) -> EnsembleBlock:
    """Torsions and energies of the samples beside those of the held-out frames."""
    mol = data.mol
    renamed = relabel(mol, samples, data.training[0]).positions
    x, y = torch.from_numpy(renamed), torch.from_numpy(data.held_out)
    torsions = find_torsions(mol)
    return EnsembleBlock(
        numbers=np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]),
        temperature_kelvin=temperature,
        torsions=tuple(
            TorsionPanel(
                t.label,
                angles=Distributions(samples=_angle(x, t), reference=_angle(y, t)),
                atoms=t.atoms,
            )
            for t in torsions
        ),
        map_pair=map_pair(torsions),
        energies_kcal=_energies(mol, x, y),
    )


def _key_figures(result: Comparison, trained_on: int) -> tuple[KeyFigure, ...]:
    return (
        KeyFigure("samples", f"{result.samples:,}"),
        KeyFigure("held-out frames", f"{result.held_out:,}", f"{trained_on:,} trained on"),
        KeyFigure(
            "distances, W1",
            f"{result.distances.w1_angstrom:.4f} Å",
            f"training frames: {result.floor.w1_angstrom:.4f} Å",
        ),
    )


def _angle(x: torch.Tensor, torsion: Torsion) -> np.ndarray:
    return dihedral(x, [torsion.atoms])[..., 0].numpy()


def _energies(mol: Chem.Mol, x: torch.Tensor, y: torch.Tensor) -> Distributions | None:
    try:
        energy = MMFF94(mol)
    except (EnergyError, InputError):
        return None
    a, b = (energy.kcal_per_mol(v).detach().numpy() for v in (x, y))
    low = min(a.min(), b.min())
    return Distributions(samples=a - low, reference=b - low)


def _checks(result: Comparison) -> tuple[CheckRow, ...]:
    rows = [
        CheckRow(
            "interatomic distances, W1 (Å)",
            f"{result.distances.w1_angstrom:.4f}",
            target=f"{result.floor.w1_angstrom:.4f} (training frames)",
        ),
        CheckRow("largest error of a mean bond length (Å)", f"{result.bond_error_angstrom:.4f}"),
        CheckRow(
            "samples of another stereoisomer", f"{100 * result.other_isomer:.2f} %", target="0 %"
        ),
    ]
    if result.energy_w1_kcal_mol is not None:
        rows.append(
            CheckRow(
                "energy levels, W1 (kcal/mol)",
                f"{result.energy_w1_kcal_mol:.3f}",
                target=f"{result.energy_floor_w1_kcal_mol:.3f} (training frames)",
            )
        )
    return tuple(rows)


def _warnings(result: Comparison) -> tuple[str, ...]:
    found = []
    if result.no_energy:
        found.append(f"Energies are not compared: {result.no_energy}")
    if result.not_finite:
        found.append(
            f"{result.not_finite} samples have no finite energy (atoms on top of each other)."
        )
    if result.other_isomer > 0:
        found.append(f"{100 * result.other_isomer:.1f} % of the samples are another stereoisomer.")
    return tuple(found)
