"""Files of conformers: what is read back, and what a broken file is told."""

from __future__ import annotations

import os

import ase.io
import numpy as np
import pytest
from ase import Atoms
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.bonds import perceive_bonds
from orbitwise.molecules.files.structures import (
    read_extxyz,
    read_molecule,
    read_sdf,
    write_extxyz,
    write_sdf,
)
from orbitwise.molecules.molecule import embed, parse_smiles


@pytest.fixture(scope="module")
def ethanol():
    mol = parse_smiles("CCO")
    return mol, embed(mol, 4, seed=0)


@pytest.fixture
def extxyz(tmp_path, ethanol):
    path = tmp_path / "ethanol.extxyz"
    write_extxyz(path, *ethanol, {"energy_kcal_mol": [1.0, 2.0, 3.5, -4.0]})
    return path


def test_extxyz_round_trip_and_ase_agrees(extxyz, ethanol):
    mol, x = ethanol
    frames = read_molecule(extxyz)
    assert np.allclose(frames.positions_angstrom, x, atol=1e-7)
    assert frames.properties["energy_kcal_mol"].tolist() == [1.0, 2.0, 3.5, -4.0]
    assert frames.bond_source == "RDKit bond perception"
    assert Chem.MolToSmiles(frames.mol) == Chem.MolToSmiles(mol)
    for atoms, frame in zip(ase.io.read(extxyz, ":"), frames.positions_angstrom, strict=True):
        assert np.allclose(atoms.get_positions(), frame)


def test_reads_what_ase_writes_with_forces_and_a_cell(tmp_path, ethanol):
    mol, x = ethanol
    frames = []
    for frame in x:
        atoms = Atoms(
            numbers=[a.GetAtomicNum() for a in mol.GetAtoms()], positions=frame, cell=[20, 20, 20]
        )
        atoms.new_array("tag", np.arange(9))
        atoms.new_array("forces", frame * 2)
        atoms.info = {"energy": -3.25, "name": 'the "first" one'}
        frames.append(atoms)
    path = tmp_path / "with_more.xyz"
    ase.io.write(path, frames, format="extxyz", columns=["tag", "symbols", "positions", "forces"])
    read = read_molecule(path)
    assert np.allclose(read.positions_angstrom, x, atol=1e-7)
    assert read.properties["energy"].tolist() == [-3.25] * 4


def test_plain_xyz_with_a_comment(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text("3\nwater, made by hand\nO 0 0 0\nh 0.96 0 0\n1 -0.24 0.93 0\n")
    frames = read_molecule(path)
    assert [a.GetAtomicNum() for a in frames.mol.GetAtoms()] == [8, 1, 1]
    assert frames.mol.GetNumBonds() == 2


def test_sdf_round_trip(tmp_path):
    mol = parse_smiles("C[C@H](O)c1ccccc1[N+](=O)[O-]")
    x = embed(mol, 3, seed=1)
    path = tmp_path / "m.sdf"
    write_sdf(path, mol, x, {"energy_kcal_mol": [0.5, 1.5, 2.5], "label": ["a", "b", "c"]})
    frames = read_molecule(path)
    assert np.allclose(frames.positions_angstrom, x, atol=1e-4)  # the format holds four decimals
    assert frames.bond_source == "file"
    assert frames.properties["energy_kcal_mol"].tolist() == [0.5, 1.5, 2.5]
    assert Chem.MolToSmiles(Chem.RemoveHs(frames.mol)) == Chem.MolToSmiles(Chem.RemoveHs(mol))


def test_several_molecules(tmp_path, ethanol):
    water = parse_smiles("O")
    both = tmp_path / "both.sdf"
    write_sdf(tmp_path / "a.sdf", *ethanol)
    write_sdf(tmp_path / "b.sdf", water, embed(water, 2, 0))
    both.write_text((tmp_path / "a.sdf").read_text() + (tmp_path / "b.sdf").read_text())
    assert [len(frames) for frames in read_sdf(both)] == [4, 2]
    with pytest.raises(InputError, match=r"2 different molecules.*C2H6O.*record 1.*H2O.*record 5"):
        read_molecule(both)
    write_extxyz(tmp_path / "a.xyz", *ethanol)
    write_extxyz(tmp_path / "b.xyz", water, embed(water, 2, 0))
    mixed = tmp_path / "both.xyz"
    mixed.write_text((tmp_path / "b.xyz").read_text() + (tmp_path / "a.xyz").read_text())
    assert [len(frames) for frames in read_extxyz(mixed)] == [2, 4]


def test_another_atom_order_is_named(extxyz):
    lines = extxyz.read_text().splitlines()
    lines[13], lines[15] = lines[15], lines[13]  # C and O of frame 2
    extxyz.write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"frame 2: the same atoms as in .*frame 1 but in another order"
    ):
        read_molecule(extxyz)


def _broken(lines: list[str], kind: str) -> list[str]:
    lines = list(lines)
    if kind == "truncated":
        return lines[:-3]
    if kind == "truncated inside":
        return lines[:16] + lines[22:]
    words = lines[4].split()
    if kind == "nan":
        words[2] = "nan"
    if kind == "word":
        words[3] = "1.2.3"
    if kind == "element":
        words[0] = "Qq"
    if kind == "columns":
        words = words[:3]
    lines[4] = " ".join(words)
    if kind == "count":
        lines[0] = "nine"
    if kind == "same place":
        lines[3] = lines[2]
    if kind == "properties":
        lines[1] = "Properties=species:S:1:velo:R:3"
    return lines


BROKEN = {
    "truncated": r"frame 4, line 42: the file is truncated: 9 atoms announced, 6 found",
    "truncated inside": r"frame 2, line 22|frame 2, line 23|frame 2",
    "nan": r"frame 1, line 5: a coordinate is not finite",
    "word": r"frame 1, line 5: a coordinate is not a number",
    "element": r"frame 1, line 5: unknown element 'Qq'",
    "columns": r"frame 1, line 5: 3 columns where 4 are needed",
    "count": r"frame 1, line 1: expected the number of atoms, found 'nine'",
    "same place": r"frame 1: atoms 1 and 2 lie 0.000 Å apart",
    "properties": r"frame 1, line 2: Properties=",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_extxyz(extxyz, kind):
    extxyz.write_text("\n".join(_broken(extxyz.read_text().splitlines(), kind)) + "\n")
    with pytest.raises(InputError, match=BROKEN[kind]) as raised:
        read_molecule(extxyz)
    assert str(extxyz) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.extxyz", "", "the file is empty"),
        ("blank.sdf", "\n\n", "the file is empty"),
        ("binary.xyz", b"\xff\xfe\x00\x81", "not a text file"),
        ("conformers.pdb", "ATOM", "cannot tell the format"),
        ("cut.sdf", "\n  RDKit\n\n  9  8  0\n", "no 'M  END'"),
    ],
)
def test_unusable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_molecule(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_molecule(tmp_path / "nowhere.sdf")
    (tmp_path / "folder.sdf").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_molecule(tmp_path / "folder.sdf")


def test_sdf_without_hydrogens_or_flat(tmp_path, ethanol, capfd):
    mol = Chem.MolFromSmiles("CCO")
    path = tmp_path / "bare.sdf"
    write_sdf(path, mol, embed(parse_smiles("CCO"), 1, 0)[:, :3])
    with pytest.raises(InputError, match="6 hydrogens are missing"):
        read_molecule(path)
    full, x = ethanol
    write_sdf(path, full, x)
    text = path.read_text().replace(" O  ", " Zz ", 1)
    path.write_text(text)
    with pytest.raises(InputError, match="record 1, line 1"):
        read_molecule(path)
    assert capfd.readouterr().err == ""


def test_bonds_come_from_the_smiles_when_given(extxyz):
    frames = read_molecule(extxyz, smiles_mol=parse_smiles("OCC"))  # another atom order
    assert frames.bond_source == "SMILES"
    assert Chem.MolToSmiles(Chem.RemoveHs(frames.mol)) == "CCO"
    assert [a.GetSymbol() for a in frames.mol.GetAtoms()][:3] == ["C", "C", "O"]
    with pytest.raises(InputError, match="is not the molecule of the coordinates"):
        read_molecule(extxyz, smiles_mol=parse_smiles("COC"))


def test_bond_orders_and_charges_follow_the_template():
    template = parse_smiles("[O-][N+](=O)c1ccccc1C#N")
    x = embed(template, 2, seed=0)
    rng = np.random.default_rng(0)
    order = rng.permutation(template.GetNumAtoms())
    numbers = np.array([a.GetAtomicNum() for a in template.GetAtoms()])[order]
    found = perceive_bonds(numbers, x[:, order], smiles_mol=template)
    assert Chem.MolToSmiles(Chem.RemoveHs(found.mol)) == Chem.MolToSmiles(Chem.RemoveHs(template))
    assert [a.GetAtomicNum() for a in found.mol.GetAtoms()] == numbers.tolist()


def test_unknown_valences_fall_back_to_distances():
    found = perceive_bonds(
        np.array([15, 8, 8]), np.array([[[0, 0, 0], [1.5, 0, 0], [-0.4, 1.45, 0.0]]])
    )
    assert found.mol.GetNumBonds() == 2
    assert found.source.startswith(("covalent radii", "RDKit"))
    with pytest.raises(InputError, match="2 separate fragments"):
        perceive_bonds(np.array([8, 1, 8]), np.array([[[0, 0, 0], [0.96, 0, 0], [9.0, 0, 0]]]))


def test_one_stretched_frame_does_not_break_a_bond(ethanol):
    mol, x = ethanol
    x = np.concatenate([x] * 3)
    x[0, 2] += [0, 0, 3.0]
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    assert Chem.MolToSmiles(Chem.RemoveHs(perceive_bonds(numbers, x).mol)) == "CCO"


def test_writers_check_and_leave_nothing_half_done(tmp_path, ethanol):
    mol, x = ethanol
    with pytest.raises(InputError, match="3 values for 4 frames"):
        write_sdf(tmp_path / "a.sdf", mol, x, {"e": [1, 2, 3]})
    with pytest.raises(InputError, match="name the unit"):
        write_extxyz(tmp_path / "a.xyz", mol, x, {"energy": [1, 2, 3, 4]})
    path = tmp_path / "a.sdf"
    path.write_text("before")
    with pytest.raises(RuntimeError):
        write_sdf(path, mol, x, {"e": _Exploding()})
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.sdf"]


class _Exploding(list):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise RuntimeError("while writing")


@pytest.mark.parametrize(
    ("name", "smiles"),
    [
        ("aspirin", "CC(=O)Oc1ccccc1C(=O)O"),
        ("uracil", "O=c1cc[nH]c(=O)[nH]1"),
        ("toluene", "Cc1ccccc1"),
    ],
)
def test_bonds_of_hot_trajectories(shared_data, name, smiles):
    with np.load(shared_data(f"rmd17/{name}.npz")) as file:
        found = perceive_bonds(file["atomic_numbers"], file["positions"].astype(float))
    assert Chem.MolToSmiles(Chem.RemoveHs(found.mol)) == Chem.CanonSmiles(smiles)
