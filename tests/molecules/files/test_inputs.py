"""From what a person names to molecules: every kind of file, and one bad record at a time."""

from __future__ import annotations

import os

import numpy as np
import pytest
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.files.inputs import read_inputs
from orbitwise.molecules.files.structures import read_molecule, write_extxyz, write_sdf
from orbitwise.molecules.molecule import embed, parse_smiles, with_conformers

SHAPES = [  # centres, double bonds, charges, aromatics, sulfur, a cage
    "C[C@@H](N)C(=O)O",
    "C/C=C/C=O",
    "C/C=C\\C=O",
    "C[C@H](O)[C@@H](F)c1ccccc1",
    "CC[S@](C)=O",
    "C[C@H]1CC[C@@H](O)CC1",
    "C1CC2CCC1C2",
    "O=[N+]([O-])c1ccncc1",
]


def _smiles(inputs) -> list[str | None]:
    return [entry.smiles and Chem.CanonSmiles(entry.smiles) for entry in inputs.entries]


@pytest.mark.parametrize("smiles", SHAPES)
@pytest.mark.parametrize("kind", ["sdf", "mol", "xyz", "extxyz", "pdb"])
def test_structures_keep_their_stereochemistry(tmp_path, smiles, kind):
    mol = parse_smiles(smiles)
    x = embed(mol, 2, seed=5)
    path = tmp_path / f"some name.{kind}"
    if kind == "sdf":
        write_sdf(path, mol, x)
    elif kind == "mol":
        path.write_text(Chem.MolToMolBlock(with_conformers(mol, x[:1])))
    elif kind == "xyz":
        path.write_text("".join(Chem.MolToXYZBlock(with_conformers(mol, f[None])) for f in x))
    elif kind == "extxyz":
        write_extxyz(path, mol, x)
    else:
        path.write_text(Chem.MolToPDBBlock(with_conformers(mol, x), flavor=2))

    found = read_inputs(str(path))
    assert found.single is not None and found.frames == (kind != "mol")
    assert found.single.name == "some name"
    expected = Chem.CanonSmiles(smiles)
    flat = smiles == "C1CC2CCC1C2"  # tags that say nothing may be written or not
    assert Chem.CanonSmiles(found.single.smiles, useChiral=not flat) == expected


def test_flat_records_keep_wedges(tmp_path):
    mol = Chem.MolFromSmiles("C[C@@H](N)C(=O)O")
    path = tmp_path / "flat.sdf"
    path.write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    assert _smiles(read_inputs(str(path))) == [Chem.MolToSmiles(mol)]
    path.write_text(Chem.MolToV3KMolBlock(mol) + "$$$$\n")
    assert _smiles(read_inputs(str(path))) == [Chem.MolToSmiles(mol)]


def test_charges(tmp_path):
    mol = parse_smiles("C[NH3+]")
    path = tmp_path / "ion.xyz"
    write_extxyz(path, mol, embed(mol, 1))
    found = read_inputs(str(path)).entries[0]
    assert found.smiles is None and "they fit +1: give --charge=1" in found.error
    assert _smiles(read_inputs(str(path), charge=1)) == ["C[NH3+]"]
    text = path.read_text().splitlines()
    for said in ("charge=1", "Charge=1+", "total_charge=0.9999999", 'charge="1 0 0 0 0 0 0 0"'):
        path.write_text("\n".join([text[0], f"{text[1]} {said}", *text[2:]]))
        assert _smiles(read_inputs(str(path))) == ["C[NH3+]"]
        assert Chem.MolToSmiles(Chem.RemoveHs(read_molecule(path).mol)) == "C[NH3+]"
    path.write_text("\n".join([text[0], f"{text[1]} charge=0.5", *text[2:]]))
    assert "write a whole number" in read_inputs(str(path)).entries[0].error
    (tmp_path / "a.smi").write_text("CCO")
    write_extxyz(path, mol, embed(mol, 3))
    with pytest.raises(InputError, match=r"none of its 3 records can be used; .*fit \+1"):
        read_inputs(str(path))
    with pytest.raises(InputError, match="--charge is for"):
        read_inputs(str(tmp_path / "a.smi"), charge=1)


def test_smiles_lists(tmp_path):
    path = tmp_path / "list.smi"
    path.write_bytes(
        b"\xef\xbb\xbfSMILES Name\r\n# a remark\r\n\r\nCCO ethanol, 99 %\r\nC1CC( broken\r\n"
        b"CC.Cl salt\r\nCCN\tethyl amine\r\nC[C@H](F)Cl |&1:1| mixed\r\n[CH3] radical\r\n"
        b"CO M\xfcller"
    )
    found = read_inputs(str(path))
    assert found.listed and found.single is None
    assert [(e.name, e.number, e.error is None) for e in found.entries] == [
        ("ethanol, 99 %", 4, True),
        ("broken", 5, False),
        ("salt", 6, False),
        ("ethyl amine", 7, True),
        ("mixed", 8, True),
        ("radical", 9, False),
        ("Müller", 10, True),
    ]
    assert "unclosed" in found.entries[1].error or "character" in found.entries[1].error
    assert "2 separate fragments" in found.entries[2].error

    path.write_text("name smiles\nethanol CCO\nonly\n", encoding="utf-16")
    assert [(e.name, e.smiles) for e in read_inputs(str(path)).entries] == [
        ("ethanol", "CCO"),
        ("", None),
    ]
    path.write_text("CCO")  # a first line without a name is no heading
    assert _smiles(read_inputs(str(path))) == ["CCO"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,SMILES,mass\na,CCO,46\nb,xx,1\n", [("a", "CCO"), ("b", None)]),
        ('mass;Canonical SMILES;Name\n46;CCO;"x; y"\n\n1;;z\n', [("x; y", "CCO"), ("z", None)]),
        ("canonical_smiles,isomeric_smiles\nCC(F)Cl,C[C@H](F)Cl\n", [("", "C[C@H](F)Cl")]),
        ("structure\tprice\nCCO\t1.5\nCCN\t2\n", [("", "CCO"), ("", "CCN")]),
        ("ethanol,CCO\namine,CCN\n", [("ethanol", "CCO"), ("amine", "CCN")]),
        ("CCO\nCCN\n", [("", "CCO"), ("", "CCN")]),
        ('smiles,name\n"CCO",a\nCC,"b\nCCC,c\n', [("a", "CCO"), ("", None)]),
    ],
)
def test_tables(tmp_path, text, expected):
    path = tmp_path / "table.csv"
    path.write_text(text)
    assert [(e.name, e.smiles) for e in read_inputs(str(path)).entries] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", "no column of it could be SMILES"), ("x,y\nCC,CO\nCN,CF\n", "2 columns of it")],
)
def test_tables_without_a_clear_column(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_inputs(str(tmp_path / "t.csv"))


def test_bad_records_do_not_stop_the_rest(tmp_path):
    mol = parse_smiles("CCO")
    x = embed(mol, 4)
    path = tmp_path / "some.sdf"
    x[1, 0, 0] = 999.0
    write_sdf(path, mol, x[:3])
    records = path.read_text().split("$$$$\n")
    other = Chem.MolToMolBlock(with_conformers(parse_smiles("CCN"), embed(parse_smiles("CCN"), 1)))
    path.write_text("$$$$\n".join([records[0], records[1], "cut\n", other, "RDKit\n", ""]))
    found = read_inputs(str(path))
    assert [e.number for e in found.entries] == [1, 2, 3, 4, 5]
    assert _smiles(found) == ["CCO", None, None, "CCN", None]
    assert "Å long" in found.entries[1].error and "truncated" in found.entries[2].error

    write_extxyz(path.with_suffix(".xyz"), mol, np.stack([x[0], x[2], x[3]]))
    lines = path.with_suffix(".xyz").read_text().splitlines()
    lines[2] = lines[2].replace("C", "Xx", 1)
    path.with_suffix(".xyz").write_text("\n".join(lines[:-1]))
    found = read_inputs(str(path.with_suffix(".xyz")))
    assert _smiles(found) == [None, "CCO", None]
    assert "line 3: unknown element 'Xx'" in found.entries[0].error
    assert "truncated" in found.entries[2].error


def test_units_and_missing_hydrogens_are_guessed(tmp_path):
    mol = parse_smiles("CCO")
    path = tmp_path / "units.sdf"
    for factor, unit in ((1.8897, "bohr"), (0.1, "nm"), (100.0, "pm")):
        write_sdf(path, mol, factor * embed(mol, 1))
        said = read_inputs(str(path)).entries[0].error
        assert (f"coordinates in {unit}" in said) or ("in Å" in said and unit == "nm")
    bare = Chem.RemoveHs(with_conformers(mol, embed(mol, 1)))
    for kind, text in (("pdb", Chem.MolToPDBBlock(bare)), ("xyz", Chem.MolToXYZBlock(bare))):
        (tmp_path / f"bare.{kind}").write_text(text)
        said = read_inputs(str(tmp_path / f"bare.{kind}")).entries[0].error
        assert "there is no hydrogen in it: add all of them" in said or "is a radical" in said


def test_what_is_no_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.smi").touch()
    (tmp_path / "remarks.smi").write_text("# nothing\n")
    (tmp_path / "blob.sdf").write_bytes(b"\0\1\2" * 50)
    (tmp_path / "list.dat").write_text("CCO")
    (tmp_path / "C").mkdir()
    for argument, said in {
        "missing.sdf": "no file 'missing.sdf', and not a SMILES: ",
        "aspirin": "no file 'aspirin', and not a SMILES: ",
        "CC.O": "2 separate fragments",
        "": "the SMILES is empty",
        "empty.smi": "the file is empty",
        "remarks.smi": "there is no molecule in it",
        "blob.sdf": "not a text file",
        "list.dat": "use a name that ends in",
        str(tmp_path): "is a folder, not a file",
        "x" * 5000: "not a SMILES",
    }.items():
        with pytest.raises(InputError) as raised:
            read_inputs(argument)
        assert said in str(raised.value) and "\n" not in str(raised.value)
    assert _smiles(read_inputs("C")) == ["C"]  # though there is a folder of that name
    assert _smiles(read_inputs("C/C=C/C")) == ["C/C=C/C"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_unreadable_file(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("CCO")
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        read_inputs(str(path))
