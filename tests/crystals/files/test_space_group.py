"""CIFs that only name their space group: the operations of every setting against spglib's, and the
kinds of spelling, of sites and of formulas that files have."""

import numpy as np
import pytest
import spglib

from orbitwise.crystals.files.cif import crystal_from_cif
from orbitwise.crystals.files.space_group import listed_operations, named_operations
from orbitwise.errors import InputError

CUBIC = (5.64, 5.64, 5.64, 90, 90, 90)
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"


def cif(told: str, sites: str = SALT, cell=CUBIC, columns: str = "label type_symbol") -> str:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = [f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)]
    loop = [f"_atom_site_{c}" for c in (*columns.split(), "fract_x", "fract_y", "fract_z")]
    return "\n".join(["data_x", *lines, told, "loop_", *loop, sites])


def counts(text: str) -> dict[int, int]:
    species = crystal_from_cif(text).species.tolist()
    return {z: species.count(z) for z in sorted(set(species))}


def own_cell(setting: int, seed: int) -> np.ndarray:
    """A random cell whose metric the operations of a setting leave alone."""
    rng = np.random.default_rng(seed)
    metric = np.diag(rng.uniform(20, 90, 3)) + rng.uniform(-4, 4, (3, 3))
    metric = metric + metric.T
    turns = spglib.get_symmetry_from_database(setting)["rotations"]
    return np.linalg.cholesky(np.mean([r.T @ metric @ r for r in turns], axis=0))


def as_set(rotations, translations):
    shifts = np.round(np.asarray(translations) * 24).astype(int) % 24
    return {(*r.astype(int).ravel(), *s) for r, s in zip(rotations, shifts, strict=True)}


@pytest.mark.parametrize("start", range(1, 531, 53))
def test_every_setting_by_its_full_symbol_and_by_its_hall_symbol(start):
    for setting in range(start, start + 53):
        about = spglib.get_spacegroup_type(setting)
        right = as_set(*spglib.get_symmetry_from_database(setting).values())
        cell = own_cell(setting, setting)
        name = about.international.split("=")[-1].strip()
        if about.choice:
            name += f" :{about.choice}"
        for told in ({"names": [name]}, {"hall": [about.hall_symbol]}):
            found = named_operations(**told, cell=cell)
            every = [as_set(one.rotations, one.translations) for one in found]
            assert right == every[0], (setting, told)


@pytest.mark.parametrize(
    "told",
    [
        "_symmetry_space_group_name_H-M 'F m -3 m'",
        "_symmetry_space_group_name_H-M 'F m 3 m'",
        "_space_group_name_H-M_alt Fm-3m",
        "_space_group.name_H-M_alt 'f M -3 M'",
        "_SYMMETRY_SPACE_GROUP_NAME_H-M 'F 4/m -3 2/m'",
        "_symmetry_space_group_name_Hall '-F 4 2 3'",
        "_space_group_name_Hall '-f 4 2 3'",
        "_symmetry_Int_Tables_number 225",
        "_space_group_IT_number 225",
    ],
)
def test_spellings_of_rock_salt(told):
    assert counts(cif(told)) == {11: 4, 17: 4}


@pytest.mark.parametrize(
    ("told", "sites", "cell", "right"),
    [
        ("R -3 m H", "Bi1 Bi 0 0 0.234", (4.5, 4.5, 11.9, 90, 90, 120), 6),
        ("R -3 m", "Bi1 Bi 0.234 0.234 0.234", (4.7, 4.7, 4.7, 57, 57, 57), 2),
        ("F d -3 m S", "Si1 Si 0 0 0", (5.43, 5.43, 5.43, 90, 90, 90), 8),
        ("F d -3 m Z", "Si1 Si .125 .125 .125", (5.43, 5.43, 5.43, 90, 90, 90), 8),
        ("F d -3 m", "Si1 Si .125 .125 .125", (5.43, 5.43, 5.43, 90, 90, 90), 8),
        ("P 21/n", "C1 C .1 .2 .3", (5, 6, 7, 90, 101, 90), 4),
        ("P 1 1 21/b", "C1 C .1 .2 .3", (5, 6, 7, 90, 90, 101), 4),
        ("C m c e", "C1 C .1 .2 .3", (5, 6, 7, 90, 90, 90), 16),
        ("P n m a", "C1 C .1 .25 .3", (5, 6, 7, 90, 90, 90), 4),
    ],
)  # fmt: skip
def test_settings(told, sites, cell, right):
    told = f"_symmetry_space_group_name_H-M '{told}'"
    assert sum(counts(cif(told, f"{sites}\n", cell)).values()) == right


def test_what_has_no_group_is_refused():
    with pytest.raises(InputError, match="unknown space group 'F m -3 mm'"):
        counts(cif("_symmetry_space_group_name_H-M 'F m -3 mm'"))
    with pytest.raises(InputError, match="cannot have the space group"):
        counts(cif("_symmetry_space_group_name_H-M 'F m -3 m'", cell=(5, 6, 7, 90, 90, 90)))
    with pytest.raises(InputError, match="not the group of the other names"):
        named_operations(names=["F m -3 m"], hall=["P 1"], cell=5 * np.eye(3))
    for text in ("x,y", "x,y,q", "2x,y,z", "x,y,1/0"):
        with pytest.raises(InputError, match="operation"):
            listed_operations(["x,y,z", text])


def test_listed_operations_decide_and_a_note_says_so():
    notes: list[str] = []
    told = "_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'"
    assert len(crystal_from_cif(cif(told), notes=notes)) == 2
    assert len(notes) == 1 and "192" in notes[0]


def test_special_positions_of_three_digits_are_one_atom():
    told = "_symmetry_space_group_name_H-M 'P 63/m m c'"
    cell = (3.209, 3.209, 5.211, 90, 90, 120)
    crystal = crystal_from_cif(cif(told, "Mg1 Mg 0.333 0.667 0.25\n", cell))
    assert len(crystal) == 2
    assert np.abs(3 * crystal.frac - (3 * crystal.frac).round())[:, :2].max() < 1e-9


@pytest.mark.parametrize(
    ("label", "formula", "right"),
    [("HO1", "C H4 O", 1), ("Ca1", "Ca O", 20), ("CA1", "C4 H4", 6), ("CL1", "Cl", 17), ("D1", "D2 O", 1)],  # noqa: E501
)  # fmt: skip
def test_the_formula_says_what_a_label_means(label, formula, right):
    from orbitwise.crystals.files.cif_sites import formula_of, sites_of

    block = {f"_atom_site_fract_{axis}": ["0"] for axis in "xyz"}
    block |= {"_atom_site_label": [label], "_chemical_formula_sum": formula}
    assert formula_of(block)
    assert sites_of(block, np.eye(3), 5).species.tolist() == [right]


@pytest.mark.parametrize(
    ("label", "formula", "message"),
    [
        ("T1", None, "unknown element 'T1'"),
        ("HO1", None, "may be Ho or H"),
        ("T1", "Si O2", "no element of its formula"),
        ("Xx1", None, "unknown element"),
    ],
)
def test_labels_that_nothing_decides(label, formula, message):
    told = "" if formula is None else f"_chemical_formula_sum '{formula}'"
    with pytest.raises(InputError, match=message):
        counts(cif(told, f"{label} 0 0 0\n", columns="label"))


def test_atoms_that_the_formula_does_not_have_or_that_are_missing():
    with pytest.raises(InputError, match="4 H missing"):
        counts(cif("_chemical_formula_sum 'C H4 O'", "C1 C 0 0 0\nO1 O 0.3 0 0\n"))
    with pytest.raises(InputError, match=r"'Cl' is no element of its formula"):
        counts(cif("_chemical_formula_sum 'Na'"))
    assert counts(cif("_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 1")) == {11: 1, 17: 1}


def test_hydrogens_without_coordinates():
    told = "O1 O 0 0 0 2\nCl1 Cl 0.5 0.5 0.5 0\n"
    text = cif("", told).replace("_fract_z\n", "_fract_z\n_atom_site_attached_hydrogens\n")
    with pytest.raises(InputError, match="2 attached hydrogens"):
        counts(text)
