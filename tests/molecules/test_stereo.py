"""Stereochemistry that a SMILES leaves open, against RDKit's enumeration with embedding."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.rdBase import BlockLogs

from orbitwise.errors import InputError
from orbitwise.molecules.handedness import relabel, stereo_elements
from orbitwise.molecules.molecule import embed, parse_smiles, unspecified_stereo
from orbitwise.molecules.stereo.axes import cumulenes, possible_atropisomers

# cages and rings in one form or several, sp2 nitrogen, sulfur, phosphorus, N-oxides, para and meso
ENUMERATED = [
    "C1C2CC3CC1CC(C2)C3",
    "C1CC2CCC1C2",
    "CC1CC2CCC1C2",
    "C1CC2CCC1CC2",
    "C1CN2CCC1CC2",
    "C1CC2CC1C=C2",
    "C1CCC2(CC1)CCCCC2",
    "CC1CCC2(CC1)CCCCC2",
    "C1CC2(C1)CCC2",
    "c1cc2ccc1CCc1ccc(cc1)CC2",
    "C1CCCCC/C=C/1",
    "CC(C)=NO",
    "CC=NO",
    "CC(=NO)CC",
    "CC=NC",
    "CC(C)=N",
    "CS(C)=O",
    "CS(=O)CC",
    "CS(=O)(=O)CC",
    "CP(C)C",
    "CP(CC)c1ccccc1",
    "CP(=O)(CC)c1ccccc1",
    "C[N+](C)(C)[O-]",
    "CC[N+](C)([O-])c1ccccc1",
    "CN(CC)c1ccccc1",
    "CN1CC1",
    "CC1CCC(C)CC1",
    "OC1CCC(CC1)C(=O)O",
    "CC1CCCC(C)C1",
    "CC1CC(C)C1",
    "C1CC2CCCCC2C1",
    "C1CCC2CC2C1",
    "C12CCC1CC2",
    "C12C3C4C1C5C2C3C45",
    "OC(=O)C(O)C(O)C(=O)O",
    "CC(O)CC(C)O",
    "C1CN2CCN1CC2",
    "C1N2CN3CN1CN(C2)C3",
    "CN1C2CCC1CC(O)C2",
    "C1=CC=CC=CC=C1",
    "O=C1C2CCC1CC2",
    "OC12CCC(CC1)C2",
    "C1CC2CC1CO2",
    "[2H]C(C)O",
    "CC=C(C)C",
    "FC=CF",
    "O=C1CC2CCC1(C)C2(C)C",
]


@pytest.mark.parametrize("smiles", ENUMERATED)
def test_open_where_more_than_one_isomer_can_be_embedded(smiles):
    options = StereoEnumerationOptions(tryEmbedding=True, unique=True, maxIsomers=64, rand=1)
    with BlockLogs():
        every = EnumerateStereoisomers(Chem.MolFromSmiles(smiles), options=options)
        isomers = {Chem.MolToSmiles(mol) for mol in every}
    assert bool(unspecified_stereo(parse_smiles(smiles))) == (len(isomers) > 1)


@pytest.mark.parametrize(
    ("smiles", "named"),
    [  # forms that RDKit's SMILES do not tell apart: the truth is of textbooks
        ("CC=C=CC", ["cumulene 2=3=4, right- and left-handed"]),
        ("CC(C)=C=CC", []),
        ("CC=C=C", []),
        ("CC=C=C=CC", ["cumulene 2=3=4=5, cis and trans"]),
        ("C=C=C=CC", []),
        ("OC(=O)C=C1CCC(C)CC1", ["atom 8 (C)", "double bond 4 (C)=5 (C)"]),
        ("CC1CCC2(CC1)CCC(C)CC2", ["atom 2 (C)", "atom 5 (C)", "atom 10 (C)"]),
        ("C1CCCCCC=C1", ["double bond 7 (C)=8 (C)"]),
        ("CN1CC1C", ["atom 4 (C)"]),  # the nitrogen inverts
    ],
)
def test_forms_beyond_the_smiles(smiles, named):
    found = unspecified_stereo(parse_smiles(smiles))
    assert len(found) == len(named)
    assert all(said.startswith(start) for said, start in zip(found, named, strict=True))


def test_handedness_of_an_allene_is_kept():
    mol = parse_smiles("CC=C=CC")
    assert [c.atoms for c in cumulenes(mol)] == [(1, 2, 3)]
    x = embed(mol, 20, seed=3)

    def volume(frames):  # by hand: methyl, hydrogen | hydrogen, methyl
        h = [next(a.GetIdx() for a in mol.GetAtomWithIdx(k).GetNeighbors() if a.GetAtomicNum() == 1)
             for k in (1, 3)]  # fmt: skip
        corners = frames[:, [0, h[0], 4, h[1]]]
        return np.linalg.det(corners[:, :3] - corners[:, 3:])

    hands = np.sign(volume(x))
    assert abs(hands.sum()) == 20
    mirrored = x * np.array([1.0, 1.0, -1.0])
    assert not relabel(mol, mirrored, x[0]).same_isomer.any()
    assert relabel(mol, x, x[0]).same_isomer.all()


def test_mirror_images_of_an_allene_without_handedness_are_one():
    mol = parse_smiles("CC(C)=C=CC")
    x = embed(mol, 5, seed=1)
    assert relabel(mol, x * np.array([1.0, 1.0, -1.0]), x[0]).same_isomer.all()
    assert stereo_elements(mol).enclosed(x).all()


@pytest.mark.parametrize(
    ("smiles", "bonds"),
    [
        ("c1ccc(cc1)-c1ccccc1", 0),
        ("Cc1ccccc1-c1ccccc1C", 0),  # two ortho groups turn
        ("Oc1ccc2ccccc2c1-c1c(O)ccc2ccccc12", 1),  # BINOL
        ("COc1cccc(C)c1-c1c(C)cccc1OC", 1),
        ("COc1cccc(OC)c1-c1c(C)cccc1OC", 0),  # one ring has a mirror plane
        ("Cc1cccc(Br)c1-c1c(C)cccn1", 1),
        ("CCc1cccc(C)c1N(C(C)COC)C(=O)CCl", 1),  # metolachlor
        ("Cc1cccc(C)c1NC(=O)CN(CC)CC", 0),  # lidocaine
        ("CN1CCc2c1cccc2", 0),
    ],
)
def test_atropisomers_are_noted(smiles, bonds):
    said = possible_atropisomers(parse_smiles(smiles))
    assert len(said) == bonds
    assert all("can be an atropisomer; the search may or may not cross" in line for line in said)


@pytest.mark.parametrize("smiles", ["[CH3]", "[NH2]", "[OH]", "O=O", "[O][O]", "[N]=O", "C[CH2]"])
def test_open_shells_are_refused_alike(smiles):
    with pytest.raises(InputError, match=r"is a radical \(.*unpaired.*\); only closed shells"):
        parse_smiles(smiles)
