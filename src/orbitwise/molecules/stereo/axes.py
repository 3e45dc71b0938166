"""Handedness along an axis, which RDKit's SMILES do not carry: cumulenes and hindered bonds."""

from __future__ import annotations

from dataclasses import dataclass

from rdkit import Chem

_BIARYL = Chem.MolFromSmarts("[a;r5,r6]-!@[a;r5,r6]")
# nitrogen of an amide, imide, urea, carbamate or sulfonamide on a ring of six
_ANILIDE = Chem.MolFromSmarts("[a;r6]-!@[NX3;$(N[C,S]=[O,S,N])]")


@dataclass(frozen=True)
class Cumulene:
    """Adjacent double bonds: their ``atoms`` in order, and the other neighbours of the first and of
    the last of them in ascending order, one or two each."""

    atoms: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def chiral(self) -> bool:
        """An even number of double bonds twists the ends by 90°: a tetrahedron; an odd number
        leaves them in one plane: cis and trans."""
        return len(self.atoms) % 2 == 1


def cumulenes(mol: Chem.Mol) -> list[Cumulene]:
    """Chains of two or more double bonds between carbons; ``mol`` has explicit hydrogens."""
    double = {
        frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))
        for b in mol.GetBonds()
        if b.GetBondType() == Chem.BondType.DOUBLE
    }
    near: dict[int, list[int]] = {}
    for i, j in map(sorted, double):
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)

    def inner(atom: int) -> bool:
        """Sits between two double bonds and has no other neighbour."""
        return len(near.get(atom, ())) == 2 and mol.GetAtomWithIdx(atom).GetDegree() == 2

    found = []
    for first in sorted(near):
        for second in near[first]:
            chain = [first, second]
            while inner(chain[-1]) and chain[-1] != first:
                chain.append(next(k for k in near[chain[-1]] if k != chain[-2]))
            if len(chain) < 3 or inner(first) or chain[0] >= chain[-1]:
                continue
            sides = [_others(mol, end, beside) for end, beside in (chain[:2], chain[:-3:-1])]
            if all(len(side) in (1, 2) for side in sides):
                found.append(Cumulene(tuple(chain), *sides))
    return found


def _others(mol: Chem.Mol, atom: int, without: int) -> tuple[int, ...]:
    near = (other.GetIdx() for other in mol.GetAtomWithIdx(atom).GetNeighbors())
    return tuple(sorted(k for k in near if k != without))


def open_cumulenes(mol: Chem.Mol) -> list[str]:
    """Cumulenes that exist in two forms, in words; atoms count from 1."""
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    words = []
    for cumulene in cumulenes(mol):
        sides = (cumulene.left, cumulene.right)
        if any(len({ranks[k] for k in side}) != len(side) for side in sides):
            continue
        if cumulene.chiral and any(len(side) == 1 for side in sides):
            continue
        chain = "=".join(str(k + 1) for k in cumulene.atoms)
        forms = "right- and left-handed" if cumulene.chiral else "cis and trans"
        # a SMILES can say it (/ and \\, @ of the middle atom), RDKit drops the marks
        words.append(f"cumulene {chain}, {forms}, which RDKit does not read from a SMILES")
    return words


def possible_atropisomers(mol: Chem.Mol) -> list[str]:
    """What has to be said of bonds that hindered groups may keep from turning; atoms count from 1.

    A bond between two aromatic rings with three or four ortho substituents, or from a ring of six
    with two ortho substituents to the nitrogen of an amide or its like (tertiary), where both sides
    are without a mirror plane. A rule of thumb: no barrier is computed.
    """
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    words = []
    for pattern in (_BIARYL, _ANILIDE):
        for i, j in mol.GetSubstructMatches(pattern):
            ends = [_others(mol, i, j), _others(mol, j, i)]
            if any(len(end) != 2 or ranks[end[0]] == ranks[end[1]] for end in ends):
                continue
            if pattern is _BIARYL:
                # a benzo ring counts too; hydrogens, and ring atoms without any, do not
                hindered = sum(_bulky(mol, o, (i, j)) for end in ends for o in end) >= 3
            else:
                nitrogen = [mol.GetAtomWithIdx(k).GetAtomicNum() > 1 for k in ends[1]]
                hindered = all(_bulky(mol, o, (i, j)) for o in ends[0]) and all(nitrogen)
            if hindered:
                words.append(
                    f"The bond {i + 1}-{j + 1} is hindered: the molecule can be an atropisomer;"
                    " the search may or may not cross."
                )
    return words


def _bulky(mol: Chem.Mol, ortho: int, axis: tuple[int, int]) -> bool:
    """Whether an ortho atom carries more than a hydrogen outside the ring of the axis."""
    rings = [r for r in mol.GetRingInfo().AtomRings() if ortho in r and set(axis) & set(r)]
    ring = set(min(rings, key=len)) if rings else set()
    outside = (o for o in mol.GetAtomWithIdx(ortho).GetNeighbors() if o.GetIdx() not in ring)
    return any(o.GetAtomicNum() > 1 and o.GetIdx() not in axis for o in outside)
