"""Dihedral angles of a batch, how far two clouds of them are apart, and which torsions of a
molecule matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orbitwise.errors import InputError

if TYPE_CHECKING:
    from rdkit import Chem

Kind = Literal["backbone", "single", "ring", "amide"]


@dataclass(frozen=True)
class Torsion:
    """Four bonded atoms ``a-b-c-d`` (0-based), a label for people (atoms counted from 1) and its
    kind: ``backbone`` (φ, ψ), ``single`` (a rotatable bond), ``ring`` or ``amide`` (ω;
    hindered)."""

    atoms: tuple[int, int, int, int]
    label: str
    kind: Kind


def find_torsions(mol: Chem.Mol) -> tuple[Torsion, ...]:
    """The torsions of an RDKit molecule with hydrogens that tell its conformers apart.

    φ and ψ of every ``C(=O)-N-C-C(=O)-N`` come first, then rotatable single bonds, one torsion per
    set of equivalent ring bonds (none for aromatic rings), then amide bonds (ω). Not listed,
    because they tell nothing or are not defined: rotors with three equivalent arms (methyl, CF3,
    tert-butyl), bonds next to a linear (sp) atom, double bonds. The end atoms are the heaviest
    neighbours, at equal weight the lowest index.
    """
    from rdkit import Chem

    if any(a.GetTotalNumHs() for a in mol.GetAtoms()):
        raise InputError("the molecule has implicit hydrogens; call Chem.AddHs first")
    rank = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    backbone = _backbone(mol)
    amide = {
        frozenset((m[0], m[2]))
        for m in mol.GetSubstructMatches(Chem.MolFromSmarts("[CX3](=[O,S])[NX3]"))
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
            chain = [
                [i for i in arm if mol.GetAtomWithIdx(i).GetAtomicNum() == 6] or arm for arm in arms
            ]
            hindered.append((chain[0][0], ends[0].GetIdx(), ends[1].GetIdx(), chain[1][0]))
        else:
            single.append((arms[0][0], ends[0].GetIdx(), ends[1].GetIdx(), arms[1][0]))
    named = [Torsion(t, _label(mol, t), "single") for t in single]
    rings = [Torsion(t, _label(mol, t), "ring") for t in _ring_torsions(mol, rank)]
    numbers = [str(k + 1) if len(hindered) > 1 else "" for k in range(len(hindered))]
    omega = [Torsion(t, f"ω{k}", "amide") for k, t in zip(numbers, hindered, strict=True)]
    return (*backbone, *named, *rings, *omega)


def map_pair(torsions: tuple[Torsion, ...]) -> tuple[int, int] | None:
    """Which two torsions to draw against each other: the first two that turn freely, None with
    fewer."""
    free = [i for i, t in enumerate(torsions) if t.kind in ("backbone", "single")]
    return (free[0], free[1]) if len(free) > 1 else None


def torsion_word(radians: float) -> str:
    """A chemist's word for an angle, after Klyne and Prelog (Experientia 16, 521, 1960), 60°-wide
    ranges: ``cis`` (sp), ``g+``/``g-`` (sc), ``e+``/``e-`` (ac, eclipsed side), ``trans`` (ap)."""
    degrees = math.degrees(math.remainder(radians, 2 * math.pi))
    sign = "+" if degrees > 0 else "-"
    size = abs(degrees)
    return (
        "cis" if size < 30 else f"g{sign}" if size < 90 else f"e{sign}" if size < 150 else "trans"
    )


def _arms(atom: Chem.Atom, other: int) -> list[int]:
    """Neighbours of ``atom`` but ``other``: heaviest first, then lowest index."""
    near = [n for n in atom.GetNeighbors() if n.GetIdx() != other]
    return [n.GetIdx() for n in sorted(near, key=lambda n: (-n.GetAtomicNum(), n.GetIdx()))]


def _backbone(mol: Chem.Mol) -> list[Torsion]:
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


def _ring_torsions(mol: Chem.Mol, rank: list[int]) -> list[tuple[int, int, int, int]]:
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


def _label(mol: Chem.Mol, atoms: tuple[int, ...]) -> str:
    return "–".join(f"{mol.GetAtomWithIdx(i).GetSymbol()}{i + 1}" for i in atoms)
