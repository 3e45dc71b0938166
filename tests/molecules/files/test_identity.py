"""Which records are one molecule, and which cannot be true."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.files.inputs import read_inputs
from orbitwise.molecules.files.sets import read_conformer_set, read_conformer_sets, read_smiles
from orbitwise.molecules.identity import identity
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


def test_what_is_held_out_in_one_file_is_trained_on_in_none(tmp_path):
    """Mirror images, isotopologues and other drawings of what is held out included."""
    texts = {
        "a": ["C[C@H](O)F", "CCO", "C[NH+]=CNCC", "CC(=O)O"],
        "b": ["C[C@@H](O)F", "[2H]OCC", "CNC=[NH+]CC", "CC(=O)[O-]"],
    }
    for name, smiles in texts.items():
        (tmp_path / f"{name}.sdf").write_text("".join(map(record, smiles)))
    for seed in range(12):
        found = read_conformer_sets(
            [tmp_path / "a.sdf", tmp_path / "b.sdf"], shares=(0.3, 0.3), seed=seed
        )
        splits = {}
        for m in found.molecules:
            splits.setdefault(identity(m.mol, exact=False), set()).add(m.split)
        assert len(splits) == 5  # acetate is not acetic acid
        assert all(len(names) == 1 for names in splits.values())
        assert len(found) + len(found.skipped) == 8
        assert all("left out" in line for line in found.skipped)


def test_a_molecule_of_two_records_is_kept_once_and_named(tmp_path):
    path = tmp_path / "x.sdf"
    path.write_text(record("CCO") + record("OCC"))
    found = read_conformer_sets([path])
    assert len(found) == 1 and "record 2" in found.skipped[0] and "the same" in found.skipped[0]


def test_without_what_another_set_has(tmp_path):
    mine, other = (tmp_path / f"{k}.sdf" for k in "ab")
    mine.write_text("".join(map(record, ("CCO", "CCN", "C[C@H](O)F"))))
    other.write_text("".join(map(record, ("[2H]OCC", "C[C@@H](O)F"))))
    left = read_conformer_set(mine).without(read_conformer_set(other))
    assert [m.smiles for m in left.molecules] == ["CCN"]


def test_frames_of_one_molecule_are_one_input(tmp_path):
    path = tmp_path / "x.sdf"
    same = ("CN1C=[N+](CC)C=C1", "C[N+]1=CN(CC)C=C1")
    path.write_text("".join(map(record, (*same, "CCO", "[2H]OCC", "OCC"))))
    found = read_inputs(str(path))
    assert len(found.entries) == 3 and found.frames == 2
