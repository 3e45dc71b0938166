"""What cannot be learned from: units, charges, open shells and damaged records, each refused with
its frame and its reason."""

import re

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.errors import InputError
from orbitwise.molecules.files.inputs import read_inputs
from orbitwise.molecules.files.physical import charge_of
from orbitwise.molecules.files.reasons import rdkit_reason
from orbitwise.molecules.files.structures import read_molecule, write_sdf
from orbitwise.molecules.molecule import parse_smiles
from orbitwise.molecules.stereo.open import unspecified_stereo


def embedded(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return mol, mol.GetConformer().GetPositions()


def as_xyz(path, mol, frames, comment=""):
    rows = [
        f"{len(x)}\n{comment}\n"
        + "".join(
            f"{a.GetSymbol()} {p[0]:.6f} {p[1]:.6f} {p[2]:.6f}\n"
            for a, p in zip(mol.GetAtoms(), x, strict=True)
        )
        for x in frames
    ]
    path.write_text("".join(rows))
    return path


@pytest.mark.parametrize("kind", ["sdf", "xyz"])
@pytest.mark.parametrize(("unit", "angstrom"), [("bohr", 0.529177), ("nm", 10), ("pm", 0.01)])
def test_the_unit_is_guessed(tmp_path, kind, unit, angstrom):
    mol, x = embedded("CCO")
    path = tmp_path / f"x.{kind}"
    if kind == "sdf":
        write_sdf(path, mol, x[None] / angstrom)
    else:
        as_xyz(path, mol, [x / angstrom])
    with pytest.raises(InputError, match=rf"(record|frame) 1.*are the coordinates in {unit}\?"):
        read_molecule(path)
    assert f"coordinates in {unit}?" in read_inputs(str(path)).entries[0].error


def test_a_later_frame_that_fell_apart_is_named(tmp_path):
    mol, x = embedded("CCO")
    far = x.copy()
    far[2] += [0, 0, 4.0]
    path = as_xyz(tmp_path / "x.xyz", mol, [x, x, x, far, x])
    with pytest.raises(InputError, match=r"frame 4: the bond .* Å long$"):
        read_molecule(path)


@pytest.mark.filterwarnings("error")
def test_a_coordinate_beyond_all_numbers_is_refused_without_overflow(tmp_path):
    mol, x = embedded("CCO")
    far = x.copy()
    far[8, 2] = 1e308
    path = tmp_path / "x.xyz"
    as_xyz(path, mol, [x, far])
    with pytest.raises(InputError, match="frame 2: coordinate z of atom 9 is 1e\\+308"):
        read_molecule(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, True, "one", "", [np.nan, 1.0]])
def test_charges_that_are_none(value):
    with pytest.raises(InputError, match="is no charge"):
        charge_of({"charge": value})


def test_a_cation_without_its_charge(tmp_path):
    mol, x = embedded("C[NH3+]")
    path = as_xyz(tmp_path / "x.xyz", mol, [x] * 3)
    with pytest.raises(InputError, match=r"frame 1: .*they fit \+1: write charge=1 .*smiles="):
        read_molecule(path)
    given = read_molecule(path, smiles_mol=parse_smiles("C[NH3+]"))
    assert Chem.GetFormalCharge(given.mol) == 1
    said = read_molecule(as_xyz(tmp_path / "y.xyz", mol, [x] * 3, "charge=1"))
    assert Chem.MolToSmiles(Chem.RemoveHs(said.mol)) == "C[NH3+]"


def test_bonds_of_a_metal_may_stay_of_order_one(tmp_path):
    path = tmp_path / "x.xyz"
    rows = "Fe 0 0 0\nC 1.8 0 0\nO 2.95 0 0\nC 0 1.8 0\nO 0 2.95 0\nC 0 0 1.8\nO 0 0 2.95\n"
    path.write_text("7\n\n" + rows)
    assert read_molecule(path).mol.GetNumBonds() == 6


def test_radicals_are_refused(tmp_path):
    mol, x = embedded("C[CH2]")
    write_sdf(tmp_path / "x.sdf", mol, x[None])
    with pytest.raises(InputError, match=r"record 1, line 1: atom 2 is a radical"):
        read_molecule(tmp_path / "x.sdf")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("  1  2  1  0", "  0  2  1  0", "an atom number that the record does not have"),
        ("  1  2  1  0", " 99  2  1  0", "an atom number that the record does not have"),
        ("  1  2  1  0", "  1  1  1  0", "attempt to add self-bond"),
        (" C ", " Qq", "Element 'Qq' not found"),
        ("  1  2  1  0", "  1  2  3  0", "Explicit valence for atom # [12]"),
        ("M  END", "M  CHG  1  44   1\nM  END", "an atom number that the record does not have"),
    ],
)
def test_the_reason_of_a_damaged_record(tmp_path, old, new, reason):
    mol, x = embedded("CCO")
    good = tmp_path / "good.sdf"
    write_sdf(good, mol, x[None])
    text = good.read_text()
    assert old in text
    path = tmp_path / "bad.sdf"
    path.write_text(text + text.replace(old, new))
    lines = len(text.splitlines())
    with pytest.raises(InputError, match=rf"record 2, line {lines + 1}: .*: {reason}"):
        read_molecule(path)
    assert re.search(reason, read_inputs(str(path)).entries[1].error)


@pytest.mark.parametrize("log", [[], [""], ["ERROR: "], ["****", "Range Error"], ["****", "", ""]])
def test_a_reason_is_never_empty(log):
    assert rdkit_reason(log) == "its lines do not follow the format"


@pytest.mark.parametrize(
    ("smiles", "forms"), [("C/C=C=C=C/C", "cis and trans"), ("CC=C=CC", "right- and left-handed")]
)
def test_a_cumulene_that_a_smiles_can_tell_and_rdkit_does_not(smiles, forms):
    (words,) = unspecified_stereo(parse_smiles(smiles))
    assert forms in words and "RDKit does not read" in words and "cannot" not in words


def test_rdkit_drops_the_marks_of_cumulenes():
    """The day this fails the words above are no longer true."""
    bare = Chem.CanonSmiles("CC=C=C=CC")
    assert {Chem.CanonSmiles(s) for s in (r"C/C=C=C=C/C", r"C/C=C=C=C\C")} == {bare}
    handed = {Chem.CanonSmiles(s) for s in ("CC=[C@]=CC", "CC=[C@@]=CC")}
    assert handed == {Chem.CanonSmiles("CC=C=CC")}
