"""Reference values as files have them: what is none is said with its frame, and so is what nothing
reads."""

import numpy as np
import pytest

from orbitwise.audit.structures import chosen
from orbitwise.data.structures import read_structures
from orbitwise.errors import InputError

ROWS = "O 0 0 0 1 2 3\nH 0.96 0 0 0 0 0\nH -0.24 0.93 0 0 0 0\n"


def written(tmp_path, comment, rows=ROWS):
    path = tmp_path / "x.extxyz"
    path.write_text(f"3\n{comment}\n{rows}" * 2)
    return path


def test_energy_and_forces(tmp_path):
    told = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5"
    first = read_structures(written(tmp_path, told))[0]
    assert first.energy == -1.5 and first.forces[0].tolist() == [1, 2, 3] and first.unused == ()


@pytest.mark.parametrize("value", ["None", '"-1.5 eV"', '"1 2 3"', '""', "T", "nan", "inf"])
def test_an_energy_that_is_none(tmp_path, value):
    told = f"Properties=species:S:1:pos:R:3:forces:R:3 energy={value}"
    with pytest.raises(InputError, match=r"frame 1.*energy"):
        read_structures(written(tmp_path, told))


@pytest.mark.parametrize("forces", ["1e30 0 0", "nan 0 0"])
def test_forces_that_are_none(tmp_path, forces):
    told = "Properties=species:S:1:pos:R:3:forces:R:3 energy=1"
    with pytest.raises(InputError, match=r"frame 1.*force"):
        read_structures(written(tmp_path, told, ROWS.replace("1 2 3", forces)))


def test_columns_that_look_like_reference_values_are_named(tmp_path):
    told = 'Properties=species:S:1:pos:R:3:dft_force:R:3 DFT_energy=-1.5 pbc="F F F"'
    found = chosen(written(tmp_path, told), items=2, seed=0)
    assert found.known == ()
    assert "dft_force" in found.notes[0] and "DFT_energy" in found.notes[0]


def test_atomic_numbers_are_elements(tmp_path):
    rows = "8 0 0 0\n1 0.96 0 0\n1 -0.24 0.93 0\n"
    assert np.array_equal(read_structures(written(tmp_path, "x", rows))[0].numbers, [8, 1, 1])


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("species:S:1:pos:R:3", "8 0 0 0\n1 0.96 0 0\n1 -0.24 0.93 0\n"),
        ("species:I:1:pos:R:3", "8 0 0 0\n1 0.96 0 0\n1 -0.24 0.93 0\n"),
        ("species:S:1:pos:R:3", "8\t0\t0\t0\n1\t0.96\t0\t0\n1\t-0.24\t0.93\t0\n"),
        ("Z:I:1:pos:R:3", "8 0 0 0\n1 0.96 0 0\n1 -0.24 0.93 0\n"),
        ("id:I:1:species:S:1:pos:R:3", "1 O 0 0 0\n2 H 0.96 0 0\n3 H -0.24 0.93 0\n"),
        ("id:I:1:Z:I:1:pos:R:3", "1 8 0 0 0\n2 1 0.96 0 0\n3 1 -0.24 0.93 0\n"),
        ("pos:R:3:species:S:1", "0 0 0 O\n1 0 0 H\n0 1 0 8\n"),
    ],
)
def test_whole_numbers_are_elements_only_in_the_column_of_the_species(tmp_path, columns, rows):
    for found in read_structures(written(tmp_path, f"Properties={columns} energy=-1", rows)):
        assert found.numbers.tolist() == [8, 1, 8 if "H\n0 1" in rows else 1]
        assert found.energy == -1 and len({*map(tuple, found.positions.tolist())}) == 3


def test_atoms_on_one_another(tmp_path):
    told = "Properties=species:S:1:pos:R:3:forces:R:3"
    with pytest.raises(InputError, match=r"frame 1.*atoms 1 and 2 lie 0\.1"):
        read_structures(written(tmp_path, told, ROWS.replace("0.96", "0.1")))
