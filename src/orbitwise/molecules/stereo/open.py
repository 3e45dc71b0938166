"""Which stereocentres and double bonds a SMILES leaves open, where more than one isomer can exist.

RDKit lists every atom and bond that could be stereogenic by its graph. In rings that is too many:
norbornane's bridgeheads have one possible arrangement. What is uncertain there is decided by
embedding: an element counts where embeddings fall into isomers that no renumbering of equal atoms
makes one.
"""

from __future__ import annotations

from itertools import pairwise

from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.etkdg import run_etkdg, with_stereo_of
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.stereo.axes import cumulenes, open_cumulenes

_EMBEDDINGS = 32  # a form of one in ten is missed once in 30


def unspecified_stereo(mol: Chem.Mol) -> list[str]:
    """Stereocentres, double bonds and cumulenes that the SMILES leaves open, in words; atoms count
    from 1 as written. ``mol`` has explicit hydrogens."""
    cumulated = {frozenset(pair) for c in cumulenes(mol) for pair in pairwise(c.atoms)}
    centres, bonds = [], []
    for item in Chem.FindPotentialStereo(mol):
        if item.specified != Chem.StereoSpecified.Unspecified:
            continue
        if item.type == Chem.StereoType.Atom_Tetrahedral:
            if not _inverts(mol.GetAtomWithIdx(item.centeredOn)):
                centres.append(item.centeredOn)
        elif item.type == Chem.StereoType.Bond_Double:
            bond = mol.GetBondWithIdx(item.centeredOn)
            ends = frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            if ends not in cumulated and not _annulene(mol, item.centeredOn):
                bonds.append(item.centeredOn)

    unsure = _unsure(mol, centres, bonds)
    closed = _closed(mol, unsure)
    words = [_centre(mol, k) for k in centres if ("atom", k) not in closed]
    words += [_bond(mol, k) for k in bonds if ("bond", k) not in closed]
    return words + open_cumulenes(mol)


def _inverts(atom: Chem.Atom) -> bool:
    """Nitrogen with three neighbours that no second ring holds; RDKit counts that of aziridines."""
    rings = atom.GetOwningMol().GetRingInfo()
    return (
        atom.GetAtomicNum() == 7 and atom.GetDegree() == 3 and rings.NumAtomRings(atom.GetIdx()) < 2
    )


def _annulene(mol: Chem.Mol, bond: int) -> bool:
    """In a ring of eight or nine without a saturated atom, which has no room for a trans bond."""
    rings = mol.GetRingInfo()
    for ring, atoms in zip(rings.BondRings(), rings.AtomRings(), strict=True):
        if bond in ring and len(ring) in (8, 9):
            return all(
                mol.GetAtomWithIdx(k).GetHybridization() == Chem.HybridizationType.SP2
                for k in atoms
            )
    return False


def _centre(mol: Chem.Mol, k: int) -> str:
    return f"atom {k + 1} ({mol.GetAtomWithIdx(k).GetSymbol()}), written with @ or @@"


def _bond(mol: Chem.Mol, k: int) -> str:
    bond = mol.GetBondWithIdx(k)
    ends = [f"{a.GetIdx() + 1} ({a.GetSymbol()})" for a in (bond.GetBeginAtom(), bond.GetEndAtom())]
    return f"double bond {ends[0]}={ends[1]}, written with / or \\"


Element = tuple[str, int]


def _unsure(
    mol: Chem.Mol, centres: list[int], bonds: list[int]
) -> dict[frozenset[int], list[Element]]:
    """Elements that geometry decides, by their block of rings: centres where rings meet or that
    have two equal neighbours, double bonds with equal neighbours at an end."""
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False, includeChirality=False))
    rings = mol.GetRingInfo()
    blocks = _blocks(mol)
    found: dict[frozenset[int], list[Element]] = {}

    def equal(atom: int, without: int = -1) -> bool:
        near = [o.GetIdx() for o in mol.GetAtomWithIdx(atom).GetNeighbors()]
        near = [ranks[k] for k in near if k != without]
        return len(set(near)) < len(near)

    for k in centres:
        if rings.NumAtomRings(k) and (rings.NumAtomRings(k) > 1 or equal(k)):
            found.setdefault(blocks[k], []).append(("atom", k))
    for k in bonds:
        bond = mol.GetBondWithIdx(k)
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if equal(i, j) or equal(j, i):
            block = blocks.get(i) or blocks.get(j)
            if block:
                found.setdefault(block, []).append(("bond", k))
    return found


def _blocks(mol: Chem.Mol) -> dict[int, frozenset[int]]:
    """Atom -> the atoms of its rings and of all that share an atom or a double bond with them."""
    groups = [set(ring) for ring in mol.GetRingInfo().AtomRings()]
    links = [
        {b.GetBeginAtomIdx(), b.GetEndAtomIdx()}
        for b in mol.GetBonds()
        if b.GetBondType() == Chem.BondType.DOUBLE
    ]
    merged: list[set[int]] = []
    for group in groups:
        touching = [m for m in merged if m & group]
        touching += [
            m for m in merged if m not in touching and any(m & k and k & group for k in links)
        ]
        merged = [m for m in merged if m not in touching]
        merged.append(group.union(*touching))
    return {atom: frozenset(block) for block in merged for atom in block}


def _closed(mol: Chem.Mol, unsure: dict[frozenset[int], list[Element]]) -> set[Element]:
    """Those elements of blocks that come in one form only, everything else of the molecule held."""
    closed: set[Element] = set()
    if not unsure:
        return closed
    try:
        whole = with_stereo_of(mol, run_etkdg(mol, 1, 0)[0])
    except InputError:  # said where it is embedded
        return closed
    for elements in unsure.values():
        work = Chem.Mol(whole)
        for kind, k in elements:
            if kind == "atom":
                work.GetAtomWithIdx(k).SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
            else:
                work.GetBondWithIdx(k).SetStereo(Chem.BondStereo.STEREONONE)
        try:
            frames = run_etkdg(work, _EMBEDDINGS, 1)
        except InputError:
            continue
        if relabel(mol, frames).same_isomer.all():
            closed |= set(elements)
    return closed
