"""From an ensemble to its distinct conformers, their populations and free energies.

A conformer is a basin of the energy: samples are quenched to their local minima (by the caller,
with any minimiser), and minima that differ only by a rigid motion and by a permutation of
indistinguishable atoms are one conformer. Mirror images stay apart (they are different molecules in
a chiral world, and equal in weight in an achiral one); ``Clusters.mirror`` says who mirrors whom,
``merge_mirror_images`` joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.errors import InputError

if TYPE_CHECKING:
    from rdkit import Chem

_CHUNK = 2_000_000  # 3x3 matrices at a time


@dataclass(frozen=True)
class Matching:
    """Which atoms decide whether two structures are one conformer, and how they may be exchanged.

    ``atoms: (K,)`` long; ``permutations: (P, K)`` long, rows map positions within ``atoms``
    (identity included).
    """

    atoms: Tensor
    permutations: Tensor

    @classmethod
    def of(cls, mol: Chem.Mol, atoms: Sequence[int], limit: int) -> Matching | None:
        """These atoms of a molecule with hydrogens; None where there are more than ``limit``
        exchanges.

        Atoms are exchangeable when element, number of neighbours and of hydrogens agree all along
        the graph; bond orders and charges are ignored, so the oxygens of a carboxylate or a nitro
        group are equivalent.
        """
        from rdkit import Chem

        from orbitwise.molecules.exchange import self_matches

        position = {atom: k for k, atom in enumerate(atoms)}
        labels = [
            (a.GetAtomicNum(), a.GetDegree(), a.GetTotalNumHs(includeNeighbors=True))
            for a in map(mol.GetAtomWithIdx, atoms)
        ]
        ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
        bonds = [
            (position[i], position[j], Chem.BondType.SINGLE)
            for i, j in ends
            if i in position and j in position
        ]
        found = self_matches(labels, bonds, limit + 1)
        return cls(torch.tensor(atoms), torch.from_numpy(found)) if len(found) <= limit else None


@dataclass(frozen=True)
class Clusters:
    """Distinct conformers, lowest energy first, and where every sample belongs.

    ``x: (C, N, 3)`` Å and ``energy: (C,)`` kT of the minima; ``label: (n,)`` long, the conformer of
    each sample; ``mirror: (C,)`` long, the conformer that is the mirror image (itself when it is
    its own, -1 when absent).
    """

    x: Tensor
    energy: Tensor
    label: Tensor
    mirror: Tensor

    def __len__(self) -> int:
        return len(self.energy)

    def merge_mirror_images(self) -> Clusters:
        """The same with each pair of mirror images counted as one conformer."""
        index = torch.arange(len(self), device=self.mirror.device)
        lead = torch.where(self.mirror < 0, index, torch.minimum(index, self.mirror))
        keep, new = lead.unique(return_inverse=True)
        return Clusters(
            self.x[keep], self.energy[keep], new[self.label], torch.arange(len(keep)).to(keep)
        )


@dataclass(frozen=True)
class Populations:
    """``population: (C,)`` (sums to 1) and standard errors; ``free_energy: (C,)`` in kT relative to
    the most populated conformer, ``-ln(p/p_max)``, inf where nothing was seen, with
    ``free_energy_error``; ``count: (C,)`` samples seen."""

    population: Tensor
    error: Tensor
    free_energy: Tensor
    free_energy_error: Tensor
    count: Tensor


def matching(mol: Chem.Mol, limit: int = 20_000) -> Matching:
    """Heavy atoms and polar hydrogens of an RDKit molecule with their graph automorphisms.

    Hydrogens on carbon are left out: after quenching, the skeleton fixes where they are up to their
    exchange.

    Raises ``InputError`` above ``limit`` automorphisms.
    """
    atoms = [
        a.GetIdx()
        for a in mol.GetAtoms()
        if a.GetAtomicNum() != 1 or any(n.GetAtomicNum() not in (1, 6) for n in a.GetNeighbors())
    ] or list(range(mol.GetNumAtoms()))  # H2
    found = Matching.of(mol, atoms, limit)
    if found is None:
        raise InputError(
            f"the molecule has more than {limit} automorphisms; raise the limit, or build a"
            " Matching with the identity permutation and merge equivalent conformers by hand"
        )
    return found


def heavy_matching(mol: Chem.Mol, limit: int = 4096) -> Matching:
    """The heavy atoms of an RDKit molecule with hydrogens, and how they may be exchanged: as
    RDKit's ``GetBestRMS`` does.

    Raises ``InputError`` above ``limit`` exchanges (only molecules with many equal branches have so
    many) and where there is no heavy atom.
    """
    atoms = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() > 1]
    if not atoms:
        raise InputError("the molecule has no heavy atom to compare")
    found = Matching.of(mol, atoms, limit)
    if found is None:
        raise InputError(f"the heavy atoms have more than {limit} exchanges; raise the limit")
    return found


def symmetric_rmsd(x: Tensor, y: Tensor, match: Matching, *, mirror: bool = False) -> Tensor:
    """RMSD over ``match.atoms``, minimal over proper rotations, translations and exchanges of
    equivalent atoms.

    ``x: (n, N, 3), y: (m, N, 3) -> (n, m)``, unit of x. ``mirror=True`` compares with the mirror
    image of y. With F = Xᵀ Y of centred points, max_R tr(R F) = s1 + s2 ± s3, the sign being that
    of det F (Kabsch 1978).
    """
    return _best(_centred(x, match), _centred(y, match), match.permutations.to(x.device), mirror)[0]


def find_conformers(
    x: Tensor,
    energy: Tensor,
    match: Matching,
    *,
    refine: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    rmsd: float = 0.2,
    deviation: float = 0.5,
    same_energy: float = 0.1,
) -> Clusters:
    """Merge quenched samples into distinct conformers.

    ``x: (n, N, 3)`` quenched positions in Å, ``energy: (n,)`` kT. Lowest energy first, each minimum
    not yet taken becomes a conformer and takes all those within ``rmsd`` Å (symmetric) none of
    whose compared atoms is off by more than ``deviation`` Å. ``refine(x) -> (x, energy)`` then
    converges the few representatives tightly, and they are merged once more, so a loose first
    quench is enough. Mirror images are looked for among conformers whose energies agree within
    ``same_energy`` kT.

    Raises ``InputError`` for energies that are not finite.
    """
    if not bool(torch.isfinite(energy).all()):
        raise InputError(
            f"{int((~torch.isfinite(energy)).sum())} of {len(energy)} quenched energies are not"
            " finite"
        )
    leaders, label = _lead(x, energy, match, rmsd, deviation)
    x, energy = x[leaders], energy[leaders]
    if refine is not None:
        x, energy = refine(x)
        leaders, again = _lead(x, energy, match, rmsd, deviation)
        x, energy, label = x[leaders], energy[leaders], again[label]
    # a mirror image has the same energy, which keeps look-alikes of chiral molecules out
    apart = symmetric_rmsd(x, x, match, mirror=True)
    apart = apart.masked_fill((energy[:, None] - energy).abs() > same_energy, torch.inf)
    nearest = apart.min(1)
    mirror = torch.where(nearest.values < rmsd, nearest.indices, -1)
    return Clusters(x, energy, label, mirror)


def assign(x: Tensor, conformers: Clusters, match: Matching, *, rmsd: float = 0.2) -> Tensor:
    """The conformer of each quenched structure ``(n, N, 3)``, -1 where none is within ``rmsd`` Å ->
    ``(n,)``."""
    nearest = symmetric_rmsd(x, conformers.x.to(x), match).min(1)
    return torch.where(nearest.values < rmsd, nearest.indices, -1)


def populations(
    label: Tensor, count: int, *, log_weights: Tensor | None = None, blocks: Tensor | None = None
) -> Populations:
    """Populations of ``count`` conformers from the labels of samples, with standard errors.

    ``label: (n,)`` long in [0, count); ``log_weights: (n,)`` importance weights (any constant),
    default equal; ``blocks: (n,)`` long, which samples belong together (a chain, a stretch of a
    trajectory): errors come from the scatter between blocks; default every sample is independent.
    With normalised weights w and the influence z of an estimate, the variance is ``B/(B-1) Σ_b
    (Σ_{i∈b} w_i z_i)²``: for p_k, z = 1[k] - p_k; for ln(p_k/p_0), z = 1[k]/p_k - 1[0]/p_0, which
    keeps the covariance. At least two blocks.
    """
    n = len(label)
    w = (
        torch.full((n,), 1.0 / n, dtype=torch.float64)
        if log_weights is None
        else log_weights.double().softmax(0)
    )
    w = w.to(label.device)
    block = (
        torch.arange(n, device=label.device)
        if blocks is None
        else blocks.to(label.device).unique(return_inverse=True)[1]
    )
    size = int(block.max()) + 1
    if size < 2:
        raise InputError("errors of populations need at least two samples or blocks")
    share = torch.zeros(size, count, dtype=torch.float64, device=label.device)
    share.view(-1).index_add_(0, block * count + label, w)  # weight of conformer k within block b
    p = share.sum(0)
    scale = size / (size - 1)
    error = ((share - share.sum(1, keepdim=True) * p).square().sum(0) * scale).sqrt()
    top = int(p.argmax())
    relative = share / p  # nan where nothing was seen
    free_error = ((relative - relative[:, top : top + 1]).square().sum(0) * scale).sqrt()
    seen = p > 0

    return Populations(
        population=p,
        error=error,
        free_energy=torch.where(seen, -(p / p[top]).clamp_min(1e-300).log(), torch.inf),
        free_energy_error=torch.where(seen, free_error, torch.inf),
        count=torch.bincount(label, minlength=count),
    )


def _centred(x: Tensor, match: Matching) -> Tensor:
    x = x[:, match.atoms.to(x.device)].double()
    return x - x.mean(1, keepdim=True)


def _best(x: Tensor, y: Tensor, permutations: Tensor, mirror: bool) -> tuple[Tensor, Tensor]:
    """Smallest RMSD (n, m) over permutations and which one; x: (n, K, 3), y: (m, K, 3) centred."""
    m, k = len(y), x.shape[1]
    exchanges = len(permutations)
    images = y[:, permutations].flatten(0, 1)  # (m P, K, 3)
    right = images.transpose(0, 1).reshape(k, -1)  # (K, 3 m P)
    rows = max(1, _CHUNK // max(1, len(images)))
    value, which = [], []
    for part in x.split(rows):  # chunks of memory only
        # F[a, b] = Σ_i x[i, a] y[i, b] for every pair and permutation, in one product
        f = (
            (part.transpose(1, 2).reshape(-1, k) @ right)
            .reshape(len(part), 3, len(images), 3)
            .transpose(1, 2)
        )
        s = torch.linalg.svdvals(f)
        sign = torch.where(torch.linalg.det(f) < 0, -1.0, 1.0) * (-1.0 if mirror else 1.0)
        overlap = (
            (s[..., 0] + s[..., 1] + sign * s[..., 2]).reshape(len(part), m, exchanges).max(-1)
        )
        value.append(overlap.values)
        which.append(overlap.indices)
    norms = x.square().sum((1, 2))[:, None] + y.square().sum((1, 2))[None]
    return ((norms - 2 * torch.cat(value)).clamp_min(0) / k).sqrt(), torch.cat(which)


def _largest_shift(x: Tensor, y: Tensor) -> Tensor:
    """Largest atomic distance after the best proper superposition; (n, K, 3) each -> (n,)."""
    import roma

    rotation = roma.special_procrustes(y.transpose(1, 2) @ x)
    return (x - y @ rotation).norm(dim=-1).amax(-1)


def _lead(
    x: Tensor, energy: Tensor, match: Matching, rmsd: float, deviation: float
) -> tuple[Tensor, Tensor]:
    """Leader clustering in order of energy: indices of the leaders and the leader number of every
    structure."""
    points = _centred(x, match)
    permutations = match.permutations.to(x.device)
    label = torch.full((len(x),), -1, dtype=torch.long, device=x.device)
    left = energy.argsort()
    leaders = []
    while len(left):  # over conformers found, not over samples
        head = left[:1]
        near, which = _best(points[left], points[head], permutations, False)
        close = near[:, 0] < rmsd
        close[0] = True
        member = left[close]
        image = points[head[0]][permutations[which[close, 0]]]
        fits = _largest_shift(points[member], image) < deviation
        fits[0] = True
        label[member[fits]] = len(leaders)
        leaders.append(head)
        left = left[label[left] < 0]
    return torch.cat(leaders), label
