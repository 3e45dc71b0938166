"""Which records are one molecule.

A molecule is who is bonded to whom, with how many hydrogens, the total charge, unpaired electrons,
isotopes and stereochemistry. What only tells how it was written does not count: the order of the
atoms, atom maps, explicit hydrogens, and which resonance form was drawn (a SMILES tells nitro
groups, amidinium ions and carboxylates apart by where their charges stand).
"""

from __future__ import annotations

from rdkit import Chem
from rdkit.rdBase import BlockLogs

_DOUBLE = (
    Chem.BondStereo.STEREOE,
    Chem.BondStereo.STEREOZ,
    Chem.BondStereo.STEREOCIS,
    Chem.BondStereo.STEREOTRANS,
)
_HANDED = (Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW)


def identity(mol: Chem.Mol, *, exact: bool = True) -> str:
    """The same text for the same molecule, whatever the order of its atoms; ``mol`` is sanitised,
    its hydrogens explicit or not.

    Without ``exact`` stereochemistry and isotopes do not count: what belongs into one split of a
    data set, since such molecules have the same conformers, or nearly so.
    """
    with BlockLogs():
        bare = Chem.RWMol(without_maps(mol))
        if not exact:
            for atom in bare.GetAtoms():
                atom.SetIsotope(0)
        bare = Chem.RWMol(Chem.RemoveHs(bare))
        charge = Chem.GetFormalCharge(bare)
        unpaired = sum(atom.GetNumRadicalElectrons() for atom in bare.GetAtoms())
        _forget_orders(bare)
        if not exact:
            Chem.RemoveStereochemistry(bare)
        text = Chem.MolToSmiles(bare, allHsExplicit=True)
    return f"{text} {charge:+d}" + (f" {unpaired} unpaired" if unpaired else "")


def identity_of(smiles: str, *, exact: bool = True) -> str:
    """``identity`` of a SMILES; one that RDKit does not read is its own."""
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    return smiles if mol is None else identity(mol, exact=exact)


def identity_in_order(mol: Chem.Mol) -> tuple[int, ...]:
    """The same for records of one molecule that have one order of atoms, hydrogens explicit: their
    frames can be stacked. Stereochemistry is not in it: that of frames is in their coordinates."""
    atoms = list(mol.GetAtoms())
    return (
        *(atom.GetAtomicNum() for atom in atoms),
        *Chem.GetAdjacencyMatrix(mol).ravel().tolist(),
        *(atom.GetIsotope() for atom in atoms),
        Chem.GetFormalCharge(mol),
        sum(atom.GetNumRadicalElectrons() for atom in atoms),
    )


def without_maps(mol: Chem.Mol) -> Chem.Mol:
    """A copy in which no atom has a number of a reaction map: ``[CH3:1][OH:2]`` is methanol."""
    mol = Chem.Mol(mol)
    mapped = [atom for atom in mol.GetAtoms() if atom.GetAtomMapNum()]
    for atom in mapped:
        atom.SetAtomMapNum(0)
    if mapped:  # what the maps told apart is no centre any more
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def _forget_orders(mol: Chem.RWMol) -> None:
    """Every bond single but double bonds with stereochemistry, charges gone, hydrogens counted."""
    hydrogens = [atom.GetTotalNumHs() for atom in mol.GetAtoms()]
    for bond in mol.GetBonds():
        kept = bond.GetStereo() in _DOUBLE and bond.GetBondType() == Chem.BondType.DOUBLE
        bond.SetBondType(Chem.BondType.DOUBLE if kept else Chem.BondType.SINGLE)
        bond.SetIsAromatic(False)
    for atom, count in zip(mol.GetAtoms(), hydrogens, strict=True):
        atom.SetIsAromatic(False)
        # RDKit writes the handedness of three neighbours only where sulfur's charge explains it
        pyramid = atom.GetChiralTag() in _HANDED and atom.GetAtomicNum() in (16, 34, 52)
        atom.SetFormalCharge(1 if pyramid and atom.GetDegree() == 3 else 0)
        atom.SetNumRadicalElectrons(0)
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(count)
    mol.UpdatePropertyCache(strict=False)
