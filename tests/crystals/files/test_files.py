"""Crystal files: read as pymatgen and ASE read them, written so that they come back, refused with a
place."""

import csv
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read as ase_read
from ase.io import write as ase_write

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.read import (
    cell_from_parameters,
    from_atoms,
    from_structure,
    read_crystals,
    to_atoms,
    to_structure,
    write_cif,
    write_crystal_extxyz,
)
from orbitwise.crystals.files.sound import checked
from orbitwise.errors import InputError

pymatgen = pytest.importorskip("pymatgen.core", reason="needs orbitwise[crystals]")

ROCK_SALT = """data_NaCl
_symmetry_space_group_name_H-M   'F m -3 m'
_cell_length_a 5.64(2)
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_Int_Tables_number 225
loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
 Na1 Na+ 0 0 0 1
 Cl1 Cl- 0.5 0.5 0.5 1.0
"""
OXIDE = """data_oxide
_cell_length_a 3.9
_cell_length_b 3.9
_cell_length_c 3.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _atom_site_label
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
 Sr1 0 0 0 1
 Ti1 0.5 0.5 0.5 1
 O1 0.5 0.5 0.00004 1
 O2 0.5 0 0.5 1
 O3 0 0.5 0.5 1
"""


def random_crystals(count: int, seed: int = 0) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        atoms = int(rng.integers(1, 9))
        lattice = 6 * np.eye(3) + rng.normal(size=(3, 3))
        while True:
            species = rng.integers(1, 90, atoms)
            crystal = Crystal(rng.random((atoms, 3)), lattice, species, f"random-{k}")
            try:
                made.append(checked(crystal))
                break
            except InputError:  # two atoms on one another
                continue
    return made


def same(a: Crystal, b: Crystal, tolerance: float = 1e-8) -> bool:
    """The same atoms at the same places in the same cell, whatever the order and the orientation of
    the cell."""
    metric = np.allclose(a.lattice @ a.lattice.T, b.lattice @ b.lattice.T, atol=tolerance)
    apart = (a.frac[:, None] - b.frac[None] + 0.5) % 1.0 - 0.5
    near = (np.abs(apart) < tolerance).all(-1) & (a.species[:, None] == b.species[None])
    return metric and len(a) == len(b) and (near.sum(0) == 1).all() and (near.sum(1) == 1).all()


def test_cells_from_parameters_are_those_of_pymatgen_and_ase():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.uniform(3, 9, (50, 3)), rng.uniform(70, 109, (50, 3))], 1)
    values = np.concatenate([values, [[4, 4, 4, 90, 90, 90]]])
    lattices = cell_from_parameters(values)
    for row, lattice in zip(values, lattices, strict=True):
        np.testing.assert_allclose(
            lattice, pymatgen.Lattice.from_parameters(*row).matrix, atol=1e-12
        )
    assert np.isnan(
        cell_from_parameters(np.array([4, 4, 4, 20, 20, 119.0]))
    ).any()  # no such corner


def test_round_trips_by_structure_atoms_cif_and_extxyz(tmp_path):
    crystals = random_crystals(20)
    for crystal in crystals:
        assert same(from_structure(to_structure(crystal)), crystal)
        assert same(from_atoms(to_atoms(crystal)), crystal)
    files = write_cif(tmp_path / "cifs", crystals)
    assert [file.stem for file in files] == [c.name for c in crystals]
    back = {c.name: c for c in read_crystals(tmp_path / "cifs").crystals}
    assert all(same(back[c.name], c, 1e-6) for c in crystals)
    write_cif(tmp_path / "all.cif", crystals)
    back = read_crystals(tmp_path / "all.cif").crystals
    assert [c.name for c in back] == [c.name for c in crystals]
    assert all(same(a, b, 1e-6) for a, b in zip(back, crystals, strict=True))
    write_crystal_extxyz(tmp_path / "all.extxyz", crystals, {"rank": range(1, 21)})
    found = read_crystals(tmp_path / "all.extxyz")
    assert [c.name for c in found.crystals] == [c.name for c in crystals]
    assert all(same(a, b, 1e-6) for a, b in zip(found.crystals, crystals, strict=True))
    assert found.columns["rank"].tolist() == list(range(1, 21))


def test_what_is_written_is_what_pymatgen_and_ase_read(tmp_path):
    (crystal,) = random_crystals(1, seed=5)
    (file,) = write_cif(tmp_path / "one.cif", crystal)
    assert same(
        from_structure(pymatgen.Structure.from_file(file)), crystal, 1e-4
    )  # it rounds towards fractions
    assert same(from_atoms(ase_read(file)), crystal, 1e-6)
    write_crystal_extxyz(tmp_path / "one.extxyz", [crystal])
    assert same(from_atoms(ase_read(tmp_path / "one.extxyz")), crystal, 1e-6)


def test_symmetry_of_a_cif_is_applied_and_p1_is_left_exact(tmp_path):
    (tmp_path / "salt.cif").write_text(ROCK_SALT)
    (crystal,) = read_crystals(tmp_path / "salt.cif").crystals
    assert same(crystal, from_atoms(bulk("NaCl", "rocksalt", a=5.64, cubic=True)))
    assert crystal.name == "salt"
    (tmp_path / "oxide.cif").write_text(OXIDE)
    (crystal,) = read_crystals(tmp_path / "oxide.cif").crystals
    assert sorted(crystal.species.tolist()) == [8, 8, 8, 22, 38]
    assert np.isclose(crystal.frac, 0.00004, atol=1e-12).any()


def test_blocks_of_one_file_and_data_in_text_fields(tmp_path):
    note = "_publ_section_comment\n;\ndata_hidden is no block\n;\n"
    (tmp_path / "two.cif").write_text(ROCK_SALT + note + "\n" + OXIDE)
    found = read_crystals(tmp_path / "two.cif")
    assert [c.name for c in found.crystals] == ["NaCl", "oxide"] and [
        len(c) for c in found.crystals
    ] == [
        8,
        5,
    ]


def test_csv_of_cdvae_with_its_columns_and_split(tmp_path):
    path = tmp_path / "perov.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["", "material_id", "cif", "heat_all", "formula", "code", "split"])
        rows.writerow([0, "a", OXIDE, "1.5", "SrTiO3", "007", "train"])
        rows.writerow([1, "b", ROCK_SALT, "-2", "NaCl", "010", "test"])
    found = read_crystals(path)
    assert [c.name for c in found.crystals] == ["a", "b"]
    assert found.columns["heat_all"].tolist() == [1.5, -2.0]
    assert found.columns["code"].tolist() == ["007", "010"]
    assert set(found.columns) == {"heat_all", "formula", "code", "split"}
    assert [c.name for c in read_crystals(path, split="test").crystals] == ["b"]
    assert len(read_crystals(path, split=("test", "train"))) == 2
    with pytest.raises(InputError, match="no records of split val; there are test, train"):
        read_crystals(path, split="val")


def npz(path: Path, crystals: list[Crystal], **changes) -> Path:
    arrays = {
        "lengths_angles": np.array([to_structure(c).lattice.parameters for c in crystals]),
        "num_atoms": np.array([len(c) for c in crystals]),
        "offsets": np.cumsum([0, *map(len, crystals)]),
        "atomic_numbers": np.concatenate([c.species for c in crystals]),
        "frac_coords": np.concatenate([c.frac for c in crystals]),
        "material_id": np.array([c.name for c in crystals]),
        "split": np.array(["train", "test"] * (len(crystals) // 2)),
        "prompt": np.array([f"text {k}" for k in range(len(crystals))]),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_npz_arrays(tmp_path):
    crystals = random_crystals(6)
    found = read_crystals(npz(tmp_path / "a.npz", crystals), split="test")
    assert all(same(a, b, 1e-6) for a, b in zip(found.crystals, crystals[1::2], strict=True))
    assert found.columns["prompt"].tolist() == ["text 1", "text 3", "text 5"]
    broken = np.cumsum([0, *map(len, crystals)])
    broken[2] += 1
    with pytest.raises(InputError, match="do not cut the atoms"):
        read_crystals(npz(tmp_path / "b.npz", crystals, offsets=broken))
    with pytest.raises(InputError, match=r"c\.npz: has no frac_coords"):
        read_crystals(npz(tmp_path / "c.npz", crystals, frac_coords=None))
    frac = np.concatenate([c.frac for c in crystals])
    frac[len(crystals[0])] = np.nan
    with pytest.raises(
        InputError, match=r"d\.npz, record 2 \(random-1\): a coordinate is not finite"
    ):
        read_crystals(npz(tmp_path / "d.npz", crystals, frac_coords=frac))
    found = read_crystals(tmp_path / "d.npz", skip_bad=True)
    assert len(found) == 5 and len(found.skipped) == 1 and found.columns["prompt"][1] == "text 2"


def edited(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            edited(ROCK_SALT, "Cl- 0.5 0.5 0.5 1.0", "Cl- 0.5 0.5 0.5 0.5"),
            "atom site 2 .* partial occupancy",
        ),
        (ROCK_SALT + " Br1 Br- 0.5 0.5 0.5 0.0\n", "atom site 3 .* partial occupancy"),
        (edited(OXIDE, "_atom_site_occupancy", "_atom_site_disorder_group"), "disorder group 1"),
        (edited(OXIDE, "_cell_length_b 3.9\n", ""), "no cell: _cell_length_b missing"),
        (edited(OXIDE, "_cell_angle_beta 90", "_cell_angle_beta 0"), "is none"),
        (edited(OXIDE, " Ti1 ", " Xx1 "), "atom site 2: unknown element 'Xx1'"),
        (edited(ROCK_SALT, "Na1 Na+", "Na1 Wat"), "hydrogens without coordinates"),
        (
            edited(OXIDE, "Ti1 0.5 0.5 0.5", "Ti1 ? ? ?"),
            "_atom_site_fract_x of atom site 2 is not a number",
        ),
        (edited(OXIDE, "Ti1 0.5 0.5 0.5", "Ti1 nan 0.5 0.5"), "not finite"),
        (edited(OXIDE, "_cell_length_a 3.9", "_cell_length_a inf"), "_cell_length_a is not finite"),
        (edited(OXIDE, "Ti1 0.5 0.5 0.5 1", "Ti1 0.5 0.5"), "malformed"),
        (
            edited(OXIDE, "_atom_site_fract_x", "_atom_site_Cartn_x"),
            "no atom sites with fractional",
        ),
        ("data_x\n_cell_length_a 3\n", "no cell"),
        ("not a cif at all\n", "this is no CIF"),
        ("", "the file is empty"),
        ("data_x\nloop_\n_atom_site_label\n_cell 'open\n", "malformed|no cell"),
    ],
)
def test_bad_cifs_are_named_or_skipped_and_counted(tmp_path, text, message):
    (tmp_path / "a_good.cif").write_text(OXIDE)
    (tmp_path / "bad.cif").write_text(text)
    with pytest.raises(InputError, match=rf"(?s)bad\.cif.*({message})"):
        read_crystals(tmp_path / "bad.cif")
    with pytest.raises(InputError, match=r"bad\.cif"):
        read_crystals(tmp_path)
    found = read_crystals(tmp_path, skip_bad=True)
    assert [c.name for c in found.crystals] == ["a_good"]
    assert len(found.skipped) == 1 and "bad.cif" in found.skipped[0]
    with pytest.raises(
        InputError, match=r"bad\.cif"
    ):  # nothing is left: an error even where bad ones may go
        read_crystals(tmp_path / "bad.cif", skip_bad=True)


def test_cells_that_are_too_large(tmp_path):
    rng = np.random.default_rng(0)
    rows = "\n".join(
        f" C{i} {x:.5f} {y:.5f} {z:.5f} 1" for i, (x, y, z) in enumerate(rng.random((5000, 3)))
    )
    head = OXIDE.split(" Sr1")[0]
    (tmp_path / "large.cif").write_text(f"{head}{rows}\n")
    with pytest.raises(
        InputError, match=r"large\.cif, line 1 .*5,000 atom sites, the limit is 500"
    ):
        read_crystals(tmp_path / "large.cif")
    (tmp_path / "salt.cif").write_text(ROCK_SALT)  # two sites, eight atoms
    with pytest.raises(InputError, match="8 atoms in the cell, the limit is 7"):
        read_crystals(tmp_path / "salt.cif", max_atoms=7)
    ase_write(tmp_path / "large.extxyz", bulk("Cu", cubic=True).repeat(2), format="extxyz")
    with pytest.raises(InputError, match=r"large\.extxyz, frame 1, line 1: 32 atoms"):
        read_crystals(tmp_path / "large.extxyz", max_atoms=31)


def test_bad_csv(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("material_id,formula\na,NaCl\n")
    with pytest.raises(
        InputError, match=r"x\.csv, line 1: column 'cif' missing; found material_id, formula"
    ):
        read_crystals(path)
    bad = edited(OXIDE, "Ti1 0.5 0.5 0.5 1", "Ti1 0.5 0.5 0.5 0.3")
    path.write_text(f'material_id,cif\na,"{OXIDE}"\nb,"{bad}"\nc,\n')
    line = 3 + OXIDE.count("\n")
    with pytest.raises(InputError, match=rf"x\.csv, line {line} \(b\): .*partial occupancy"):
        read_crystals(path)
    found = read_crystals(path, skip_bad=True)
    assert (
        len(found) == 1 and len(found.skipped) == 2 and "the cif field is empty" in found.skipped[1]
    )
    path.write_text("material_id,cif\n")
    with pytest.raises(InputError, match="no crystal in it"):
        read_crystals(path)
    with pytest.raises(InputError, match="no column 'split'"):
        path.write_text(f'material_id,cif\na,"{OXIDE}"\n')
        read_crystals(path, split="test")


def test_bad_extxyz(tmp_path):
    path = tmp_path / "x.extxyz"
    good = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'
    for frame, message in [
        ("1\nno lattice\nCu 0 0 0\n", "frame 2, line 4: periodic along 0 of three"),
        (good.replace("Properties", 'pbc="T T F" Properties'), "periodic along 2 of three"),
        (good.replace("Cu", "Xy"), "unknown element 'Xy'"),
        (good.replace("Cu 0", "Cu nan"), "not finite"),
        (good.replace("Cu 0 0 0", "Cu 0 a 0"), "cannot be read"),
    ]:
        path.write_text(good + frame)
        with pytest.raises(InputError, match=message):
            read_crystals(path)
        found = read_crystals(path, skip_bad=True)
        assert len(found) == 1 and len(found.skipped) == 1
    path.write_text(good.replace("1\n", "2\n", 1))
    with pytest.raises(InputError, match="truncated, 2 atoms announced"):
        read_crystals(path)


def test_paths_that_lead_nowhere(tmp_path):
    for name, message in [
        ("none.cif", "no such file"),
        ("none.npz", "no such file"),
        ("none.what", "no such file"),
        ("", "no .cif files in this folder"),
    ]:
        with pytest.raises(InputError, match=message):
            read_crystals(tmp_path / name)
    (tmp_path / "x.poscar").write_text("1")
    with pytest.raises(InputError, match="cannot tell the format"):
        read_crystals(tmp_path / "x.poscar")
    (tmp_path / "x.npz").write_text("nothing")
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        read_crystals(tmp_path / "x.npz")


def test_structures_that_are_not_ordered():
    lattice = pymatgen.Lattice.cubic(4)
    with pytest.raises(InputError, match="disordered or partly occupied"):
        from_structure(pymatgen.Structure(lattice, [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]]))
    with pytest.raises(InputError, match="unknown element"):
        from_structure(pymatgen.Structure(lattice, ["X"], [[0, 0, 0]]))
    with pytest.raises(InputError, match="no cell"):
        from_atoms(bulk("Cu").__class__("Cu"))


def test_the_data_sets_beside_the_project(shared_data):
    found = read_crystals(shared_data("perov5/perov5.npz"), split="test")
    assert len(found) == 3000 and {len(c) for c in found.crystals} == {5}
    for crystal, formula in list(zip(found.crystals, found.columns["formula"], strict=True))[:50]:
        composition = pymatgen.Composition(str(formula))
        assert to_structure(crystal).composition.reduced_formula == composition.reduced_formula
