"""How samples of a molecule compare with frames that were held out: geometry, isomers, energy
levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem

from orbitwise.energies import Counted
from orbitwise.errors import EnergyError, InputError
from orbitwise.metrics.divergence import JensenShannon, compare_angles
from orbitwise.metrics.torus import dihedral
from orbitwise.metrics.transport import DistanceComparison, compare_distances, wasserstein_1d
from orbitwise.molecules import MMFF94
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.metrics.torsions import find_torsions


@dataclass(frozen=True)
class EnergyLevels:
    """MMFF94 energies in kcal/mol: mean, standard deviation and the 5, 25, 50, 75, 95 %
    quantiles."""

    mean_kcal_mol: float
    sd_kcal_mol: float
    quantiles_kcal_mol: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """``distances`` of samples against held-out frames, ``floor`` of training against held-out
    frames (what a perfect sampler would show); ``bond_error_angstrom`` the largest error of a mean
    bond length; ``other_isomer`` the share of samples of another stereoisomer; ``torsions`` by
    label; energies are None where MMFF94 has no parameters (``no_energy`` says why), ``not_finite``
    samples are left out of them."""

    samples: int
    held_out: int
    distances: DistanceComparison
    floor: DistanceComparison
    bond_error_angstrom: float
    other_isomer: float
    torsions: dict[str, JensenShannon]
    not_finite: int
    sample_energy: EnergyLevels | None
    held_out_energy: EnergyLevels | None
    energy_w1_kcal_mol: float | None
    energy_floor_w1_kcal_mol: float | None
    energy_calls: int
    no_energy: str | None

    def lines(self) -> list[str]:
        """The comparison in words."""
        text = [
            (
                f"{self.samples} samples against {self.held_out} held-out frames (in brackets:"
                " training frames)"
            ),
            (
                f"interatomic distances: W1 {self.distances.w1_angstrom:.4f} Å"
                f" ({self.floor.w1_angstrom:.4f}), total variation"
                f" {self.distances.total_variation:.4f} ({self.floor.total_variation:.4f})"
            ),
            f"largest error of a mean bond length: {self.bond_error_angstrom:.4f} Å",
            f"samples of another stereoisomer: {100 * self.other_isomer:.2f} %",
        ]
        text += [
            f"torsion {label}: Jensen-Shannon {js.value:.4f} (equal distributions would show"
            f" {js.floor:.4f})"
            for label, js in self.torsions.items()
        ]
        if self.sample_energy is None or self.held_out_energy is None:
            return [*text, f"no energies: {self.no_energy}"]
        if self.not_finite:
            text.append(f"{self.not_finite} samples have no finite energy and are left out below")
        s, h = self.sample_energy, self.held_out_energy

        return [
            *text,
            (
                f"MMFF94 energy, kcal/mol: samples {s.mean_kcal_mol:.2f} ± {s.sd_kcal_mol:.2f},"
                f" held out {h.mean_kcal_mol:.2f} ± {h.sd_kcal_mol:.2f} (mean ± standard deviation)"
            ),
            (
                f"levels, kcal/mol: W1 {self.energy_w1_kcal_mol:.3f}"
                f" ({self.energy_floor_w1_kcal_mol:.3f}), median {s.quantiles_kcal_mol[2]:.2f}"
                f" against {h.quantiles_kcal_mol[2]:.2f}"
            ),
        ]


def compare(
    mol: Chem.Mol, samples: np.ndarray, held_out: np.ndarray, training: np.ndarray
) -> Comparison:
    """Compare samples ``(n, N, 3)`` with held-out ``(m, N, 3)`` and training ``(k, N, 3)`` frames
    in Å.

    The samples are renumbered first, as the frames were: a molecule does not know the names of its
    hydrogens.
    """
    renamed = relabel(mol, samples, training[0])
    x, y, z = (
        torch.as_tensor(a, dtype=torch.float64) for a in (renamed.positions, held_out, training)
    )
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    i, j = torch.tensor(pairs).T
    lengths = [(a[:, i] - a[:, j]).norm(dim=-1).mean(0) for a in (x, y)]
    energy, why = _energy(mol)
    all_levels = [_energies(energy, a) for a in (x, y, z)] if energy else [None, None, None]
    levels = [None if e is None else e[torch.isfinite(e)] for e in all_levels]

    return Comparison(
        samples=len(x),
        held_out=len(y),
        distances=compare_distances(x, y),
        floor=compare_distances(z, y),
        bond_error_angstrom=float((lengths[0] - lengths[1]).abs().max()),
        other_isomer=float(1 - renamed.same_isomer.mean()),
        torsions=_torsions(mol, x, y),
        not_finite=0 if energy is None else len(x) - len(levels[0]),
        sample_energy=_levels(levels[0]),
        held_out_energy=_levels(levels[1]),
        energy_w1_kcal_mol=wasserstein_1d(levels[0], levels[1]) if energy else None,
        energy_floor_w1_kcal_mol=wasserstein_1d(levels[2], levels[1]) if energy else None,
        energy_calls=energy.counts["evaluation"].energy if energy else 0,
        no_energy=why,
    )


def _energy(mol: Chem.Mol) -> tuple[Counted | None, str | None]:
    try:
        return Counted(MMFF94(mol)), None
    except (EnergyError, InputError) as error:
        return None, str(error)


def _energies(energy: Counted, x: torch.Tensor) -> torch.Tensor:
    """kcal/mol of every frame."""
    with energy.stage("evaluation"), torch.no_grad():
        return energy(x) * energy.inner.kcal_per_kT


def _levels(energies: torch.Tensor | None) -> EnergyLevels | None:
    if energies is None:
        return None
    quantiles = energies.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=energies.dtype))
    return EnergyLevels(float(energies.mean()), float(energies.std()), tuple(quantiles.tolist()))


def _torsions(mol: Chem.Mol, x: torch.Tensor, y: torch.Tensor) -> dict[str, JensenShannon]:
    generator = torch.Generator().manual_seed(0)
    return {
        t.label: compare_angles(dihedral(x, [t.atoms]), dihedral(y, [t.atoms]), generator=generator)
        for t in find_torsions(mol)
    }
