"""Dihedrals against RDKit's own, and the choice of torsions on molecules whose answer is known."""

import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from orbitwise.errors import InputError
from orbitwise.metrics.torsions import dihedral, find_torsions, map_pair, torsion_word


def molecule(smiles: str):
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def test_dihedral_equals_rdkit():
    mol = molecule("CC(C)Cc1ccc(cc1)C(C)C(=O)O")
    AllChem.EmbedMultipleConfs(mol, 12, randomSeed=5)
    torsions = [t.atoms for t in find_torsions(mol)]
    x = torch.stack([torch.tensor(c.GetPositions()) for c in mol.GetConformers()]).reshape(3, 4, -1, 3)
    ours = dihedral(x, torsions)
    assert ours.shape == (3, 4, len(torsions))
    theirs = torch.tensor(
        [[rdMolTransforms.GetDihedralRad(c, *t) for t in torsions] for c in mol.GetConformers()]
    )
    difference = torch.remainder(ours.reshape(12, -1) - theirs + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-6  # RDKit goes through acos


def test_mirror_image_changes_the_sign_and_collinear_atoms_give_a_number():
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(dihedral(-x, [(0, 1, 2, 3)]), -dihedral(x, [(0, 1, 2, 3)]))
    line = torch.arange(4.0)[:, None] * torch.tensor([1.0, 2.0, 0.5])
    assert torch.isfinite(dihedral(line, [(0, 1, 2, 3)])).all()


@pytest.mark.parametrize(
    "smiles, kinds",
    [
        ("CC", []),  # methyl rotors only
        ("O", []),
        ("C#CC#C", []),  # linear: no dihedral is defined
        ("OO", ["single"]),
        ("CCCC", ["single"]),
        ("FCCF", ["single"]),
        ("CCCCC", ["single", "single"]),
        ("CC[C@@H](C)O", ["single", "single"]),
        ("CC(C)(C)C(F)(F)F", []),
        ("C1CCCCC1", ["ring"]),  # six equivalent ones, one is shown
        ("c1ccccc1", []),
        ("CC(=O)NC", ["amide"]),
        ("CC(=O)NC(C)C(=O)NC", ["backbone", "backbone", "amide", "amide"]),
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", ["single"] * 5),
    ],
)
def test_known_molecules(smiles, kinds):
    assert [t.kind for t in find_torsions(molecule(smiles))] == kinds


def test_phi_and_psi_of_alanine_dipeptide_and_of_a_tripeptide():
    torsions = find_torsions(molecule("CC(=O)NC(C)C(=O)NC"))
    assert [t.label for t in torsions[:2]] == ["φ", "ψ"]
    assert torsions[0].atoms == (1, 3, 4, 6) and torsions[1].atoms == (3, 4, 6, 8)
    assert [(t.label, t.atoms) for t in torsions[2:]] == [("ω1", (0, 1, 3, 4)), ("ω2", (4, 6, 8, 9))]
    assert map_pair(torsions) == (0, 1)
    longer = find_torsions(molecule("CC(=O)NCC(=O)NC(C)C(=O)NC"))
    assert [t.label for t in longer[:4]] == ["φ1", "ψ1", "φ2", "ψ2"]


def test_labels_count_from_one_and_pairs_need_two():
    (torsion,) = find_torsions(molecule("FCCF"))
    assert torsion.label == "F1–C2–C3–F4"
    assert map_pair((torsion,)) is None


def test_implicit_hydrogens_are_refused():
    with pytest.raises(InputError, match="AddHs"):
        find_torsions(Chem.MolFromSmiles("CCCC"))


@pytest.mark.parametrize(
    "degrees, word",
    [(180, "trans"), (-175, "trans"), (62, "g+"), (-62, "g-"), (118, "e+"), (5, "cis"), (300, "g-")],
)
def test_words(degrees, word):
    assert torsion_word(math.radians(degrees)) == word
