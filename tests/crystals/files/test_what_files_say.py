"""Spellings, places and units of what CIFs and frames get wrong: each with its right value."""

import numpy as np
import pytest

from orbitwise.crystals.files.cif import crystal_from_cif
from orbitwise.crystals.files.read import read_crystals
from orbitwise.crystals.files.sound import checked
from orbitwise.errors import InputError

NAME = "_symmetry_space_group_name_H-M '{}'"
OPERATIONS = "loop_\n_symmetry_equiv_pos_as_xyz\n"
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5"
WHOLE = (
    "Na1 Na 0 0 0\nNa2 Na .5 .5 0\nNa3 Na .5 0 .5\nNa4 Na 0 .5 .5\n"
    "Cl1 Cl .5 .5 .5\nCl2 Cl .5 0 0\nCl3 Cl 0 .5 0\nCl4 Cl 0 0 .5"
)


def cif(told="", sites=SALT, lengths=(5.64,) * 3, angles=(90,) * 3, columns="label type_symbol"):
    values = zip(("length_a", "length_b", "length_c"), lengths, strict=True)
    values = [*values, *zip(("angle_alpha", "angle_beta", "angle_gamma"), angles, strict=True)]
    loop = [f"_atom_site_{c}" for c in (*columns.split(), "fract_x", "fract_y", "fract_z")]
    cell = [f"_cell_{name} {value}" for name, value in values]
    return "\n".join(["data_x", *cell, told, "loop_", *loop, sites, ""])


@pytest.mark.parametrize(
    "told",
    [
        NAME.format("F 4/m 3 2/m"),
        "_space_group_name_Schoenflies 'O h 5'",
        "_space_group_name_Hall '-F423'",
        "_space_group_name_H_M_alt 'F m -3 m'",
        "_symmetry_space_group_name 'F m -3 m'",
        "loop_\n_space_group_id\n_space_group_name_H-M_alt\n1 'F m -3 m'",
        NAME.format("F m -3 m") + f"\n{OPERATIONS}?",
        NAME.format("F m -3 m") + "\n_symmetry_equiv_pos_as_xyz ?",
    ],
)
def test_rock_salt_in_other_tags(told):
    assert len(crystal_from_cif(cif(told))) == 8


@pytest.mark.parametrize(
    ("old", "new"),
    [("A b m 2", "A e m 2"), ("C m c a", "C m c e"), ("A c a m", "A e a m"), ("C m m a", "C m m e"),
     ("C c c a :2", "C c c e :2"), ("B b a b :1", "B b e b :1"), ("C 2 c b", "C 2 c e")],
)  # fmt: skip
def test_names_of_before_1992_are_those_with_e(old, new):
    one, other = (
        crystal_from_cif(cif(NAME.format(name), "C1 C .11 .23 .31", (5, 6, 7))).frac
        for name in (old, new)
    )
    np.testing.assert_allclose(np.unique(one.round(6), axis=0), np.unique(other.round(6), axis=0))


@pytest.mark.parametrize("suffix", ["O2", "Z", ":2", "(origin choice 2)", "2"])
def test_origins_in_words(suffix):
    told = NAME.format(f"F d -3 m {suffix}")
    assert len(crystal_from_cif(cif(told, "Si1 Si .125 .125 .125", (5.431,) * 3))) == 8


def test_the_formula_and_z_decide_between_origins():
    told = NAME.format("F d -3 m") + "\n_chemical_formula_sum Si\n_cell_formula_units_Z {}"
    for z in (8, 16):
        sites, lengths = "Si1 Si .125 .125 .125", (6.5,) * 3
        assert len(crystal_from_cif(cif(told.format(z), sites, lengths))) == z


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (cif(NAME.format("F m -3 m") + "\n_space_group_IT_number 221"), "not the group"),
        (cif(NAME.format("P 1") + "\n_space_group_IT_number 225"), "not the group"),
        (cif(f"{OPERATIONS}x,y,z\n-y,x,z\n-x,-y,z"), "do not form a group"),
        (cif(f"{OPERATIONS}x,y,z\n-y,x,z\n-x,-y,z\ny,-x,z", lengths=(4, 6, 5)), "do not fit"),
        (cif("", "N1 NH4 0 0 0"), "hydrogens without coordinates"),
        (cif("", "C1 CH3 0 0 0"), "hydrogens without coordinates"),
        (cif("", "T1 T 0 0 0"), "unknown element 'T'"),
        (cif("", "Na1 Na 1_000 0 0"), "not a number"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        crystal_from_cif(text)


def test_a_name_of_as_many_operations_that_is_another_group_is_noted():
    notes: list[str] = []
    told = NAME.format("P -1") + f"\n{OPERATIONS}x,y,z\n-x,y,-z"
    assert len(crystal_from_cif(cif(told, "Na1 Na .1 .2 .3"), notes=notes)) == 2
    assert "P -1" in notes[0]


def test_all_atoms_and_the_operations_as_well():
    notes: list[str] = []
    crystal = crystal_from_cif(cif(NAME.format("F m -3 m"), WHOLE), notes=notes)
    assert len(crystal) == 8 and "6 of its sites" in notes[0]


def test_types_that_are_not_told_are_those_of_the_labels():
    assert crystal_from_cif(cif("", "Na1 ? 0 0 0\nCl1 . .5 .5 .5")).species.tolist() == [11, 17]


@pytest.mark.parametrize(
    ("scale", "message"), [(0.1, "nm"), (100, "pm"), (0.529, None), (1 / 0.529, "bohr")]
)
def test_units_are_guessed(scale, message):
    notes: list[str] = []
    crystal = crystal_from_cif(cif("", WHOLE, (5.64 * scale,) * 3))
    try:
        checked(crystal, notes)
    except InputError as error:
        notes.append(str(error))
    assert bool(notes) == (message is not None)
    assert message is None or f"in {message}?" in notes[0]


def test_cartesian_as_fractional_and_near_atoms():
    near = "Na1 Na 0 0 0\nNa2 Na 0 0 .12"
    cartesian = WHOLE.replace(".5", "2.82").replace("02.82", "2.82")
    for sites in (near, cartesian):
        with pytest.raises(InputError, match="fractions of the cell"):
            checked(crystal_from_cif(cif("", sites)))


def test_blocks_of_the_paper_and_of_the_pattern_are_no_records(tmp_path):
    path = tmp_path / "x.cif"
    paper, pattern = "data_global\n_cell_length_a ?\n", "data_p\n_pd_x 1\n_cell_length_a 5.64\n"
    path.write_text(paper + cif() + pattern)
    assert len(read_crystals(path)) == 1


def test_atomic_numbers_as_species_and_atoms_far_away(tmp_path):
    path = tmp_path / "x.extxyz"
    head = '2\nLattice="5.64 0 0 0 5.64 0 0 0 5.64" Properties=species:S:1:pos:R:3\n'
    path.write_text(f"{head}11 0 0 0\n17 2.82 0 0\n")
    assert read_crystals(path).crystals[0].species.tolist() == [11, 17]
    path.write_text(f"{head}Na 0 0 0\nCl 999 0 0\n")
    with pytest.raises(InputError, match="cells: too far away"):
        read_crystals(path)


def test_slabs_with_periodic_vacuum():
    with pytest.raises(InputError, match="along c without an atom"):
        checked(crystal_from_cif(cif("", SALT, (4, 4, 60))))
