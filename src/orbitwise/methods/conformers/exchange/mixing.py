"""Has the search mixed, and how many independent samples is it worth?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.mixing import effective_sample_size, split_rhat
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules.metrics.conformers import Matching, matching
from orbitwise.molecules.metrics.torsions import Torsion, find_torsions

MIXED = 1.05  # split R-hat above which populations may be off by more than their errors
IMAGES = 72  # of a torsion, at most
WELL_MIXED = 1.03  # below which the search may stop


@dataclass(frozen=True)
class Mixing:
    """Of the search: split R-hat and effective sample size of the slowest torsion (and of the
    energy)."""

    rhat: float
    effective_samples: float

    @property
    def mixed(self) -> bool:
        return self.rhat <= MIXED

    def precise(self, precision: float) -> bool:
        """Whether a population has at most ``precision`` as standard error: 0.5/√ESS."""
        return self.rhat <= WELL_MIXED and self.effective_samples >= 0.25 / precision**2


def angles(x: Tensor, torsions: tuple[Torsion, ...]) -> Tensor:
    """``(*B, N, 3) -> (*B, D)`` radians."""
    return dihedral(x, torch.tensor([t.atoms for t in torsions], dtype=torch.long).reshape(-1, 4))


@dataclass(frozen=True)
class Watched:
    """What has to mix: for every torsion of a molecule all that it becomes by exchanges of equal
    atoms, ``images``: D tensors ``(m, 4)``. Which label an equal atom carries need not mix, and in
    rings or phenyl groups it hardly does."""

    images: tuple[Tensor, ...]

    @staticmethod
    def of(mol: Chem.Mol) -> Watched:
        match = match_of(mol)
        place = {int(atom): k for k, atom in enumerate(match.atoms)}
        found = []
        for torsion in find_torsions(mol):
            quads = {torsion.atoms}
            if all(atom in place for atom in torsion.atoms):
                rows = [place[atom] for atom in torsion.atoms]
                moved = match.atoms[match.permutations[:, rows]].tolist()
                quads = {min(tuple(q), tuple(q[::-1])) for q in moved}  # read from either end
            found.append(torch.tensor(sorted(quads)[:IMAGES]))
        return Watched(tuple(found))

    def features(self, x: Tensor) -> Tensor:
        """``(*B, N, 3) -> (*B, F)``: means of cos kθ and sin kθ over the m images of each torsion,
        k up to m or 3, which do not depend on the labels of equal atoms."""
        columns = []
        for quads in self.images:
            theta = dihedral(x, quads)
            for k in range(1, min(len(quads), 3) + 1):
                columns += [(k * theta).cos().mean(-1), (k * theta).sin().mean(-1)]
        return torch.stack(columns, -1) if columns else x.new_empty(*x.shape[:-2], 0)

    def mixing(self, x: Tensor, energy: Tensor) -> Mixing:
        """Of ``x: (S, C, N, 3)`` and ``energy: (S, C)``; the worst series counts. Nothing is known
        below 8 frames."""
        if len(energy) < 8:
            return Mixing(math.inf, 1.0)
        features = self.features(x.cpu()).double()
        series = torch.cat([features, energy.cpu().double()[..., None]], -1)  # (S, C, F+1)
        spread = series.flatten(0, 1).std(0) > 1e-3  # what is frozen has no mixing to speak of
        chains = series[..., spread].transpose(0, 1)  # (C, S, F')
        return Mixing(float(split_rhat(chains).max()), float(effective_sample_size(chains).min()))


def match_of(mol: Chem.Mol) -> Matching:
    """Exchanges of equal atoms; none where there are too many to enumerate, and then equal
    conformers are listed apart."""
    try:
        return matching(mol)
    except InputError:
        atoms = torch.arange(mol.GetNumAtoms())
        return Matching(atoms, atoms[None].clone())


def too_many_exchanges(mol: Chem.Mol) -> str | None:
    """A warning where equal atoms have too many exchanges to enumerate."""
    try:
        matching(mol)
    except InputError:
        return (
            "The equal atoms of the molecule have too many exchanges to enumerate. Conformers that"
            " differ in nothing but their labels are listed apart: the list is too long, and each"
            " population is that of one labelling. Energies and samples are not touched by this."
        )
    return None
