"""Dihedral angles of a batch, how far two clouds of them are apart, and which torsions of a molecule matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.metrics.transport import wasserstein_from_distances

Kind = Literal["backbone", "single", "ring", "amide"]


@dataclass(frozen=True)
class Torsion:
    """Four bonded atoms ``a-b-c-d`` (0-based), a label for people (atoms counted from 1) and its kind:
    ``backbone`` (φ, ψ), ``single`` (a rotatable bond), ``ring`` or ``amide`` (ω; hindered)."""

    atoms: tuple[int, int, int, int]
    label: str
    kind: Kind


def dihedral(x: Tensor, atoms: Tensor | list[tuple[int, int, int, int]]) -> Tensor:
    """Dihedral angles in radians, (-π, π]; cis is 0, trans is π, sign after IUPAC (as in RDKit).

    ``x: (*B, N, 3)``, ``atoms: (T, 4)`` -> ``(*B, T)``. Collinear atoms give 0, never NaN.
    """
    index = torch.as_tensor(atoms, dtype=torch.long, device=x.device).reshape(-1, 4)
    a, b, c, d = x[..., index, :].unbind(-2)
    u, v, w = b - a, c - b, d - c
    m, n = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    sine = (v.norm(dim=-1, keepdim=True) * u * n).sum(-1)
    return torch.atan2(sine, (m * n).sum(-1))


@dataclass(frozen=True)
class TorusW2:
    """``W_2`` in radians between two clouds of angles, ``size`` points of each, and its ``floor``: the same
    between two disjoint parts of the reference of that size (what exact samples show)."""

    value: float
    floor: float
    size: int


def torus_distances(a: Tensor, b: Tensor) -> Tensor:
    """Geodesic distances on the flat torus: ``(n, D), (m, D)`` radians, any branch -> ``(n, m)``, at most
    ``π √D``."""
    turn = (a.double()[:, None] - b.to(a.device).double()) / (2 * math.pi)
    return 2 * math.pi * (turn - turn.round()).norm(dim=-1)


def torus_w2(
    samples: Tensor, reference: Tensor, limit: int = 2000, *, generator: torch.Generator | None = None
) -> TorusW2:
    """Exact 2-Wasserstein distance on the torus between ``(n, D)`` and ``(m, D)`` angles in radians.

    Both sets are thinned at random to ``min(limit, n, m // 2)`` points, so that value and floor are biased
    alike; both fall with the size, so numbers of different sizes are not comparable. ``W2(φ, ψ)`` as in
    Liu et al., arXiv 2506.22565. Exact transport of 2000 points takes a few seconds.

    Raises ``InputError`` where a set is too small or angles are not finite.
    """
    if samples.ndim != 2 or samples.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"angle sets are (n, D) and (m, D), got {tuple(samples.shape)}, {tuple(reference.shape)}"
        )
    size = min(limit, len(samples), len(reference) // 2)
    if size < 1 or not (torch.isfinite(samples).all() and torch.isfinite(reference).all()):
        raise InputError(
            f"{len(samples)} samples and {len(reference)} reference points: need one and two, all finite"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    ours, known = (
        v[torch.randperm(len(v), generator=generator, device=generator.device)[:count].to(v.device)]
        for v, count in ((samples, size), (reference, 2 * size))
    )
    return TorusW2(
        value=wasserstein_from_distances(torus_distances(ours, known[:size])),
        floor=wasserstein_from_distances(torus_distances(known[size:], known[:size])),
        size=size,
    )


def find_torsions(mol) -> tuple[Torsion, ...]:
    """The torsions of an RDKit molecule with hydrogens that tell its conformers apart.

    φ and ψ of every ``C(=O)-N-C-C(=O)-N`` come first, then rotatable single bonds, one torsion per set of
    equivalent ring bonds (none for aromatic rings), then amide bonds (ω). Not listed, because they tell nothing
    or are not defined: rotors with three equivalent arms (methyl, CF3, tert-butyl), bonds next to a linear
    (sp) atom, double bonds. The end atoms are the heaviest neighbours, at equal weight the lowest index.
    """
    from rdkit import Chem

    if any(a.GetTotalNumHs() for a in mol.GetAtoms()):
        raise InputError("the molecule has implicit hydrogens; call Chem.AddHs first")
    rank = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    backbone = _backbone(mol)
    amide = {
        frozenset((m[0], m[2])) for m in mol.GetSubstructMatches(Chem.MolFromSmarts("[CX3](=[O,S])[NX3]"))
    }
    single, hindered = [], []
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing() or bond.GetIsAromatic():
            continue
        arms = [_arms(ends[0], ends[1].GetIdx()), _arms(ends[1], ends[0].GetIdx())]
        pair = frozenset(e.GetIdx() for e in ends)
        if not all(arms) or any(e.GetHybridization() == Chem.HybridizationType.SP for e in ends):
            continue
        if any(len(arm) == 3 and len({rank[i] for i in arm}) == 1 for arm in arms):
            continue
        if pair in {frozenset(t.atoms[1:3]) for t in backbone}:
            continue
        if pair in amide:  # ω runs along the chain, C-C(=O)-N-C, not to the oxygen
            chain = [[i for i in arm if mol.GetAtomWithIdx(i).GetAtomicNum() == 6] or arm for arm in arms]
            hindered.append((chain[0][0], ends[0].GetIdx(), ends[1].GetIdx(), chain[1][0]))
        else:
            single.append((arms[0][0], ends[0].GetIdx(), ends[1].GetIdx(), arms[1][0]))
    named = [Torsion(t, _label(mol, t), "single") for t in single]
    rings = [Torsion(t, _label(mol, t), "ring") for t in _ring_torsions(mol, rank)]
    numbers = [str(k + 1) if len(hindered) > 1 else "" for k in range(len(hindered))]
    omega = [Torsion(t, f"ω{k}", "amide") for k, t in zip(numbers, hindered, strict=True)]
    return (*backbone, *named, *rings, *omega)


def map_pair(torsions: tuple[Torsion, ...]) -> tuple[int, int] | None:
    """Which two torsions to draw against each other: the first two that turn freely, None with fewer."""
    free = [i for i, t in enumerate(torsions) if t.kind in ("backbone", "single")]
    return (free[0], free[1]) if len(free) > 1 else None


def torsion_word(radians: float) -> str:
    """A chemist's word for an angle, after Klyne and Prelog (Experientia 16, 521, 1960), 60°-wide ranges:
    ``cis`` (sp), ``g+``/``g-`` (sc), ``e+``/``e-`` (ac, eclipsed side), ``trans`` (ap)."""
    degrees = math.degrees(math.remainder(radians, 2 * math.pi))
    sign = "+" if degrees > 0 else "-"
    size = abs(degrees)
    return "cis" if size < 30 else f"g{sign}" if size < 90 else f"e{sign}" if size < 150 else "trans"


def _arms(atom, other: int) -> list[int]:
    """Neighbours of ``atom`` but ``other``: heaviest first, then lowest index."""
    near = [n for n in atom.GetNeighbors() if n.GetIdx() != other]
    return [n.GetIdx() for n in sorted(near, key=lambda n: (-n.GetAtomicNum(), n.GetIdx()))]


def _backbone(mol) -> list[Torsion]:
    """φ (C-N-CA-C) and ψ (N-CA-C-N) of each residue, numbered when there are several."""
    from rdkit import Chem

    query = Chem.MolFromSmarts("[CX3](=O)[NX3][CX4][CX3](=O)[NX3]")
    found = {}
    for c0, _, n1, ca, c1, _, n2 in mol.GetSubstructMatches(query):
        if not mol.GetBondBetweenAtoms(n1, ca).IsInRing():
            found.setdefault((n1, ca, c1), (c0, n2))
    several = len(found) > 1
    out = []
    for k, ((n1, ca, c1), (c0, n2)) in enumerate(sorted(found.items(), key=lambda kv: kv[0][1])):
        number = str(k + 1) if several else ""
        out.append(Torsion((c0, n1, ca, c1), f"φ{number}", "backbone"))
        out.append(Torsion((n1, ca, c1, n2), f"ψ{number}", "backbone"))
    return out


def _ring_torsions(mol, rank: list[int]) -> list[tuple[int, int, int, int]]:
    """One torsion for every set of equivalent bonds in saturated rings of five or more atoms."""
    out, seen = [], set()
    for ring in mol.GetRingInfo().AtomRings():
        if len(ring) < 5 or all(mol.GetAtomWithIdx(i).GetIsAromatic() for i in ring):
            continue
        n = len(ring)
        for k in range(n):
            atoms = tuple(ring[(k + j) % n] for j in range(4))
            if mol.GetBondBetweenAtoms(*atoms[1:3]).GetBondTypeAsDouble() != 1:
                continue
            ranks = tuple(rank[i] for i in atoms)
            key = min(ranks, ranks[::-1])
            if key not in seen:
                seen.add(key)
                out.append(atoms)
    return out


def _label(mol, atoms: tuple[int, ...]) -> str:
    return "–".join(f"{mol.GetAtomWithIdx(i).GetSymbol()}{i + 1}" for i in atoms)
