"""What no structure can be is refused with the atom or the value; what one can be is taken."""

import ase.build
import numpy as np
import pytest
from ase.collections import g2

from orbitwise.data.physical import (
    check_cell,
    check_coordinates,
    check_distances,
    check_forces,
    likely_unit,
    unit_guess,
)
from orbitwise.errors import InputError


@pytest.mark.parametrize("name", ["H2", "CH4", "C6H6", "NaCl", "SiH4"])
def test_molecules_are_taken(name):
    check_distances(g2[name].positions)


@pytest.mark.parametrize(("name", "kind"), [("NaCl", "rocksalt"), ("Si", "diamond"), ("Cu", "fcc")])
def test_crystals_are_taken(name, kind):
    atoms = ase.build.bulk(name, kind, a={"NaCl": 5.64, "Si": 5.43, "Cu": 3.61}[name])
    check_cell(atoms.cell.array, len(atoms))
    check_distances(atoms.positions, cell=atoms.cell.array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6])
def test_a_coordinate_that_is_none(value):
    positions = np.zeros((3, 3))
    positions[1, 2] = value
    with pytest.raises(InputError, match="coordinate z of atom 2"):
        check_coordinates(positions)


def test_atoms_on_one_site_also_through_the_boundary():
    cell = np.diag([4.0, 4.0, 4.0])
    with pytest.raises(InputError, match=r"atoms 1 and 2 lie 0\.000"):
        check_distances(np.zeros((2, 3)))
    through = np.array([[0.05, 1, 1], [3.95, 1, 1]])
    check_distances(through)
    with pytest.raises(InputError, match=r"atoms 1 and 2 lie 0\.100"):
        check_distances(through, cell=cell)
    with pytest.raises(InputError, match="images of atom 1"):
        check_distances(np.zeros((1, 3)), cell=np.diag([0.3, 4, 4]))


@pytest.mark.parametrize("name", ["CH3CH2OH", "C6H6", "CH3SH", "H2O"])
@pytest.mark.parametrize(("unit", "angstrom"), [("bohr", 0.529177), ("nm", 10), ("pm", 0.01)])
def test_the_unit_of_atoms_without_bonds(name, unit, angstrom):
    atoms = g2[name]
    assert f"coordinates in {unit}?" in likely_unit(atoms.numbers, atoms.positions / angstrom)
    assert likely_unit(atoms.numbers, atoms.positions) == ""
    if unit == "nm":
        with pytest.raises(InputError, match="apart; are the coordinates in nm"):
            check_distances(atoms.positions / angstrom, species=atoms.numbers)


def test_no_unit_but_the_angstrom():
    assert "bohr" in unit_guess(1.89) and "nm" in unit_guess(0.1) and "pm" in unit_guess(100)
    assert unit_guess(1.05) == ""


@pytest.mark.parametrize(
    ("cell", "n"),
    [
        (np.diag([1e30, 4, 4]), 1),
        (np.diag([4.0, 4, 0.01]), 1),
        (np.diag([4.0, 4, np.nan]), 1),
        (np.array([[4.0, 0, 0], [4, 0.02, 0], [0, 0, 4]]), 2),
        (np.diag([100.0, 100, 100]), 2),
    ],
)
def test_cells_that_hold_no_matter(cell, n):
    with pytest.raises(InputError, match="cell"):
        check_cell(cell, n)


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_forces_that_none_could_train_on(value):
    forces = np.ones((2, 3))
    check_forces(forces)
    forces[0, 0] = value
    with pytest.raises(InputError, match="force x of atom 1"):
        check_forces(forces)
