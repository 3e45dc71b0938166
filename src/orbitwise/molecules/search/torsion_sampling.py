"""Conformers from a law of each torsion: embed once, set all torsions, leave out what clashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.molecules.molecule import embed
from orbitwise.molecules.search.rotors import Rotors
from orbitwise.processes.von_mises import VonMisesMixture, wrap_angle
from orbitwise.search.weights import effective

FAR = 5  # bonds: only atoms further apart can clash


@dataclass(frozen=True, eq=False)
class TorsionSamples:
    """``positions: (n - failed, N, 3)`` in Å, float64, with their ``torsions: (n - failed, R)`` and
    ``log_density: (n - failed,)`` under the law, of all tries. ``failed``: how many of the n asked
    for clashed at every try; ``tries``: geometries made."""

    positions: Tensor
    torsions: Tensor
    log_density: Tensor
    failed: int
    tries: int


def sample_torsions(
    mol: Chem.Mol,
    rotors: Rotors | None,
    law: VonMisesMixture | None,
    n: int,
    *,
    starts: int = 1,
    tries: int = 5,
    seed: int = 0,
) -> TorsionSamples:
    """``n`` conformers of ``mol`` (explicit hydrogens) with independent torsions from ``law: (R,
    K)``, set in ``starts`` ETKDG embeddings in turn; lengths, angles and rings stay those of the
    embedding.

    A geometry in which two atoms more than five bonds apart are nearer than the mean of their van
    der Waals radii is drawn again, at most ``tries`` times (Swanson et al., arXiv 2306.07472). What
    still clashes is counted, not replaced. Without a rotor, the embeddings themselves. Raises
    ``InputError`` as ``embed``.
    """
    first = torch.from_numpy(embed(mol, min(starts, n), seed))
    base = first[torch.arange(n) % len(first)]
    if rotors is None or law is None:
        nothing = base.new_zeros(n, 0)
        return TorsionSamples(base, nothing, nothing.sum(-1), 0, n)

    generator = torch.Generator().manual_seed(seed)
    near = _limits(mol)
    x, angles = base.clone(), base.new_zeros(n, len(rotors))
    left, made = torch.arange(n), 0
    every = torch.arange(len(rotors))
    for _ in range(tries):
        drawn = law.sample((len(left),), generator=generator).double()
        start = base[left]
        turned = rotors.turn(
            start, every.expand(len(left), -1), wrap_angle(drawn - rotors.angles(start))
        )
        x[left], angles[left] = turned, drawn
        made += len(left)
        left = left[(torch.cdist(turned, turned) < near).flatten(1).any(1)]
        if not len(left):
            break

    good = torch.ones(n, dtype=torch.bool)
    good[left] = False
    density = law.log_density(angles.to(law.mean.dtype)).sum(-1).double()
    return TorsionSamples(x[good], angles[good], density[good], len(left), made)


def _limits(mol: Chem.Mol) -> Tensor:
    """Least distance of every pair in Å, ``(N, N)``; 0 for atoms within ``FAR`` bonds."""
    table = Chem.GetPeriodicTable()
    radius = np.array([table.GetRvdw(atom.GetAtomicNum()) for atom in mol.GetAtoms()])
    bonds = Chem.GetDistanceMatrix(mol)
    return torch.from_numpy(np.where(bonds > FAR, (radius + radius[:, None]) / 2, 0.0))


def importance_ess(samples: TorsionSamples, energy: Tensor) -> float:
    """Effective number of the samples under weights ``exp(-U)/q`` that correct their law to the
    Boltzmann law of the torsions, all else held (one start): Kish, ``(Σw)²/Σw²``.

    ``energy: (n - failed,)`` in kT. Where nothing clashed it tells how good the law is; what
    clashed has no weight in either.
    """
    return effective(-energy.double() - samples.log_density)
