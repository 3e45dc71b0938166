"""Which records are one molecule, and which cannot be true."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.files.sets import read_conformer_set, read_conformer_sets, read_smiles
from orbitwise.molecules.molecule import embed, parse_smiles, with_conformers


def record(smiles: str, x: np.ndarray | None = None, seed: int = 1) -> str:
    mol = parse_smiles(smiles)
    x = embed(mol, 1, seed)[0] if x is None else x
    return Chem.MolToMolBlock(with_conformers(mol, x[None])) + "$$$$\n"


def read(tmp_path, *records: str):
    path = tmp_path / "some.sdf"
    path.write_text("".join(records))
    return read_conformer_set(path)


def test_charges_and_isotopes_make_molecules_differ(tmp_path):
    quinone, dianion = "O=C1C=CC(=O)C=C1", "[O-]c1ccc([O-])cc1"
    found = read(tmp_path, *map(record, (quinone, dianion, "CCO", "[2H]OCC", "CCO")))
    assert [(m.smiles, len(m)) for m in found.molecules] == [
        (quinone, 1),
        (dianion, 1),
        ("CCO", 2),
        ("[2H]OCC", 1),
    ]


def test_resonance_forms_are_one_molecule(tmp_path):
    x = embed(parse_smiles("CC(=O)[O-]"), 1)[0]
    swapped = record("CC(=O)[O-]", x), record("CC([O-])=O", x)
    assert [len(m) for m in read(tmp_path, *swapped).molecules] == [2]


def test_enantiomers_of_an_allene_are_told_apart(tmp_path):
    mol = parse_smiles("CC=C=CC")
    x = embed(mol, 3)
    mirrored = x[2] * np.array([1.0, 1.0, -1.0])
    (found,) = read(tmp_path, *(record("CC=C=CC", f) for f in (x[0], x[1], mirrored))).molecules
    assert (len(found), found.other_isomers) == (2, 1)


def test_mapped_copies_do_not_leak_between_splits(tmp_path):
    plain, mapped = tmp_path / "a.sdf", tmp_path / "b.sdf"
    names = ["CCO", "CCN", "CC=O", "CCF", "CCC", "CCS", "COC", "C1CC1"]
    plain.write_text("".join(map(record, names)))
    text = []
    for name in names:
        mol = parse_smiles(name)
        x = embed(mol, 1)
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(atom.GetIdx() + 1)
        text.append(Chem.MolToMolBlock(with_conformers(mol, x)) + "$$$$\n")
    mapped.write_text("".join(text))
    found = read_conformer_sets([plain, mapped], shares=(0.3, 0.3))
    assert len(found) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 1.8897 * x, "are the coordinates in bohr"),
        (lambda x: 100 * x, "are the coordinates in pm"),
        (lambda x: x * np.array([1, 1, 0]), "two-dimensional"),
        (lambda x: x + 999 * (np.arange(len(x)) == 4)[:, None], "Å long"),
    ],
)
def test_geometries_that_cannot_be(tmp_path, change, message):
    x = change(embed(parse_smiles("CCO"), 1)[0])
    with pytest.raises(InputError, match=message):
        read(tmp_path, record("CCO", x))


def test_reasons_are_those_of_rdkit(tmp_path):
    text = record("CCO")
    with pytest.raises(InputError, match="Bond line too short"):
        read(tmp_path, text.replace("  9  8  0", "  9  9  0"))
    with pytest.raises(InputError, match="the bond 1-2 has no definite order"):
        read(tmp_path, text.replace("  1  2  1  0", "  1  2  8  0"))


def test_lists_in_any_encoding(tmp_path):
    path = tmp_path / "list.smi"
    path.write_bytes(b"\xef\xbb\xbfCCO \xe9thanol\r\n\r\nCC\r\n")
    assert [m.smiles for m in read_smiles(path)] == ["CCO", "CC"]
