"""What is one molecule, however it is written."""

import numpy as np
import pytest
from rdkit import Chem

from orbitwise.molecules.identity import identity, identity_in_order, identity_of
from orbitwise.molecules.molecule import parse_smiles

SAME = [
    ("CC(=O)[O-]", "CC([O-])=O"),
    ("C[NH+]=CNCC", "CNC=[NH+]CC"),  # two drawings of one amidinium ion
    ("CN1C=[N+](CC)C=C1", "C[N+]1=CN(CC)C=C1"),
    ("C[S+]([O-])C", "CS(C)=O"),
    ("C[S@](=O)CC", "C[S@+]([O-])CC"),
    ("c1ccccc1C", "CC1=CC=CC=C1"),
    ("[CH3:1][OH:2]", "CO"),
    ("[H:1][O:2][H:3]", "O"),
    ("C[CH:5]([CH2:1]C)[CH2:3]C", "CCC(C)CC"),
    ("[H]C([H])([H])O[H]", "CO"),
    ("[2H]C", "C[2H]"),
]
SAME_SPLIT = [
    ("F/C=C/F", "F/C=C\\F"),
    ("C[C@H](O)F", "C[C@@H](O)F"),
    ("C[C@H](O)F", "CC(O)F"),
    ("C[S@](=O)CC", "C[S@@](=O)CC"),
    ("C[C@@H]1CC[C@H](C)CC1", "C[C@@H]1CC[C@@H](C)CC1"),
    ("[2H]OCC", "OCC"),
    ("[13CH3]C", "CC"),
    ("[2H][H]", "[H][H]"),
]
DIFFERENT = [
    ("O=C1C=CC(=O)C=C1", "[O-]c1ccc([O-])cc1"),  # the same bonds, another charge
    ("CC(=O)O", "CC(=O)[O-]"),
    ("CC", "C[CH2]"),
    ("NC=O", "N=CO"),  # tautomers
    ("CC#N", "CCN"),
    ("C[N+]#[C-]", "CNC"),
    ("C=O", "CO"),
    ("c1ccncc1", "c1ccccc1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_ways_to_write_one_molecule(one, other):
    assert identity_of(one) == identity_of(other)
    assert identity_of(one, exact=False) == identity_of(other, exact=False)


@pytest.mark.parametrize(("one", "other"), SAME_SPLIT)
def test_stereoisomers_and_isotopologues_differ_but_share_a_split(one, other):
    assert identity_of(one) != identity_of(other)
    assert identity_of(one, exact=False) == identity_of(other, exact=False)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_charges_hydrogens_and_elements_differ(one, other):
    assert identity_of(one, exact=False) != identity_of(other, exact=False)


@pytest.mark.parametrize("smiles", [s for pair in SAME + SAME_SPLIT + DIFFERENT for s in pair])
def test_the_order_of_the_atoms_does_not_count(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    random = np.random.default_rng(0)
    for _ in range(10):
        order = random.permutation(mol.GetNumAtoms()).tolist()
        assert identity(Chem.RenumberAtoms(mol, order)) == identity(mol)


def test_in_order():
    ethanol, other = parse_smiles("CCO"), parse_smiles("OCC")
    assert identity(ethanol) == identity(other)
    assert identity_in_order(ethanol) != identity_in_order(other)
    acetate, swapped = parse_smiles("CC(=O)[O-]"), parse_smiles("CC([O-])=O")
    assert identity_in_order(acetate) == identity_in_order(swapped)


def test_a_mapped_smiles_is_the_molecule_without_maps():
    mol = parse_smiles("[CH3:7][C@@:1]([CH3:2])([F:3])[Cl:4]")
    assert not any(atom.GetAtomMapNum() for atom in mol.GetAtoms())
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == "CC(C)(F)Cl"  # not chiral without the maps
    hydrogens = parse_smiles("[H:1][C:2]([H:3])([H:4])[O:5][H:6]")
    assert [a.GetSymbol() for a in hydrogens.GetAtoms()] == ["C", "O", "H", "H", "H", "H"]


def test_what_rdkit_does_not_read_is_its_own():
    assert identity_of("not a molecule") == "not a molecule"
