"""The stages of `orbitwise conformers` against a long reference run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.methods.conformers.diffusion.draw import Drawn
from orbitwise.methods.conformers.diffusion.relax import Relaxed
from orbitwise.methods.conformers.exchange.mixing import angles
from orbitwise.methods.conformers.exchange.pooled import Delivered, fewer
from orbitwise.metrics.divergence import JensenShannon, compare_angles
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.metrics.conformers import Clusters, Matching, Populations, assign
from orbitwise.molecules.metrics.torsions import Torsion, map_pair

RESOLVED = 0.01  # a basin counts above this population
REPEATED = 6000  # samples that stand for an ensemble in a histogram


@dataclass(frozen=True)
class Against:
    """One ensemble against the reference: ``js`` of the map (None without a torsion), difference of
    the mean energy in kT, largest difference of a mean bond length in Å."""

    js: JensenShannon | None
    energy_kT: float
    bond_angstrom: float


@dataclass(frozen=True)
class Compared:
    """With a reference: its ``population`` and ``error`` by our conformers ``(C,)``, ``basins``
    above 1 % found, of how many; each stage against it (None where there was none)."""

    population: Tensor
    error: Tensor
    basins: tuple[int, int]
    final: Against
    search: Against
    learned: Against | None
    before: Against | None


def bond_lengths(mol: Chem.Mol, x: Tensor) -> Tensor:
    """``(*B, N, 3) -> (*B, bonds)`` Å, in RDKit's order."""
    ends = torch.tensor(
        [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], device=x.device
    )
    return (x[..., ends[:, 0], :] - x[..., ends[:, 1], :]).norm(dim=-1)


def compare(
    mol: Chem.Mol,
    x: Tensor,
    mean_energy: float,
    torsions: tuple[Torsion, ...],
    reference: Reference,
) -> Against:
    """The map of two torsions (or the histogram of one), mean energy (kT) and bond lengths of
    samples ``x: (n, N, 3)`` against the reference.

    Which of two equal groups carries which label is a matter of the embedding, and torsions are
    told by labels: the samples are renumbered as the reference's atoms are.
    """
    if len(reference.minima):
        named = relabel(mol, x.detach().cpu().double().numpy(), reference.minima[0])
        x = torch.as_tensor(named.positions).to(x)
    pair = map_pair(torsions) or ((0,) if torsions else None)
    js = None
    if pair is not None:
        mine = angles(x.cpu(), torsions)[:, list(pair)]
        js = compare_angles(
            mine, torch.as_tensor(reference.torsions)[:, list(pair)], generator=torch.Generator()
        )

    bonds = bond_lengths(mol, x).double().mean(0).cpu() - torch.as_tensor(reference.bond_mean)
    return Against(js, mean_energy - float(reference.energy.mean()), float(bonds.abs().max()))


def repeated(final: Delivered) -> Tensor:
    """Structures as often as they weigh, ``(n, N, 3)``."""
    rows = fewer(final, max(REPEATED, len(final.x)), 0)
    return final.x[rows.to(final.x.device)]


def compare_set(
    mol: Chem.Mol, samples: Drawn | Relaxed, torsions: tuple[Torsion, ...], reference: Reference
) -> Against:
    """Samples that are worth the same, those of finite energy."""
    finite = torch.isfinite(samples.energy)
    mean = float(samples.energy[finite].double().mean())
    return compare(mol, samples.x[finite], mean, torsions, reference)


@dataclass(frozen=True)
class Known:
    """The reference's ``population`` and its ``error`` by our conformers ``(C,)``, and how many of
    its ``basins`` above 1 % were found, of how many."""

    population: Tensor
    error: Tensor
    basins: tuple[int, int]


def known_populations(
    reference: Reference,
    clusters: Clusters,
    final: Populations,
    match: Matching,
    *,
    rmsd: float,
) -> Known:
    """The reference told by the conformers that were found here: those within ``rmsd`` Å."""
    where = clusters.x.device
    label = assign(torch.as_tensor(reference.minima).to(clusters.x), clusters, match, rmsd=rmsd)
    mine, inside = label.clamp_min(0), label >= 0
    weight = torch.as_tensor(reference.population).to(where)
    square = torch.as_tensor(reference.population_error).to(weight).square()

    population = torch.zeros(len(clusters), dtype=torch.float64, device=where)
    population.index_add_(0, mine, torch.where(inside, weight, 0.0))
    variance = torch.zeros_like(population)
    variance.index_add_(0, mine, torch.where(inside, square, 0.0))

    large = weight > RESOLVED
    seen = inside & (final.count[mine] > 0)
    basins = (int((seen & large).sum()), int(large.sum()))
    return Known(population, variance.sqrt(), basins)
