"""Texts of crystals whose answers are known, and of arbitrary ones."""

from __future__ import annotations

import numpy as np
import pytest

from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.text.words import about_element, long_prompt, prompts, short_prompt
from orbitwise.errors import InputError

pytest.importorskip("pymatgen")

X3 = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def crystal(lattice, frac, species, name="") -> Crystal:
    return Crystal(
        np.array(frac, dtype=float), np.array(lattice, dtype=float), np.array(species), name
    )


def perovskite(corner: int, centre: int, a: float = 3.905) -> Crystal:
    return crystal(a * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5], *X3], [corner, centre, 8, 8, 8])


# name, crystal, an element of it, what is said of that element
KNOWN = [
    (
        "rock salt",
        crystal(5.64 * FCC, [[0, 0, 0], [0.5] * 3], [11, 17]),
        "Na",
        "six Cl atoms in an octahedron",
    ),
    (
        "CsCl",
        crystal(4.12 * np.eye(3), [[0, 0, 0], [0.5] * 3], [55, 17]),
        "Cs",
        "eight Cl atoms in a cube",
    ),
    (
        "sphalerite",
        crystal(5.41 * FCC, [[0, 0, 0], [0.25] * 3], [30, 16]),
        "Zn",
        "four S atoms in a tetrahedron",
    ),
    ("copper", crystal(3.61 * FCC, [[0, 0, 0]], [29]), "Cu", "twelve Cu atoms in a cuboctahedron"),
    (
        "iron",
        crystal(2.87 * np.eye(3), [[0, 0, 0], [0.5] * 3], [26, 26]),
        "Fe",
        "eight Fe atoms in a cube",
    ),
    (
        "polonium",
        crystal(3.35 * np.eye(3), [[0, 0, 0]], [84]),
        "Po",
        "six Po atoms in an octahedron",
    ),
    ("strontium titanate", perovskite(38, 22), "Ti", "six O atoms in an octahedron"),
    ("strontium titanate", perovskite(38, 22), "Sr", "twelve O atoms in a cuboctahedron"),
    ("the other way round", perovskite(22, 38), "Sr", "six O atoms in an octahedron"),
]


def test_short_text():
    assert (
        short_prompt(perovskite(38, 22)) == "SrTiO3, space group Pm-3m (221), cubic crystal system."
    )
    long_cell = crystal(np.diag([3.9, 3.9, 4.2]), [[0, 0, 0], [0.5] * 3, *X3], [38, 22, 8, 8, 8])
    assert short_prompt(long_cell) == "SrTiO3, space group P4/mmm (123), tetragonal crystal system."


@pytest.mark.parametrize(
    ("name", "given", "element", "said"), KNOWN, ids=[f"{k[0]}-{k[2]}" for k in KNOWN]
)
def test_what_surrounds_an_element(name, given, element, said):
    assert f"{element} is bonded to {said}." in long_prompt(given)


def test_neighbours_are_those_of_another_rule():
    """Coordination numbers by the Voronoi cells and radii of pymatgen's CrystalNN."""
    from pymatgen.analysis.local_env import CrystalNN

    from orbitwise.crystals.files.convert import to_structure
    from orbitwise.crystals.text.words import _shells

    for _, given, element, _ in KNOWN:
        structure = to_structure(given)
        site = next(i for i, s in enumerate(structure) if s.specie.symbol == element)
        counts = dict(_shells(structure)[element][0][0])
        assert sum(counts.values()) == CrystalNN().get_cn(structure, site)


def test_numbers_in_the_long_text():
    text = long_prompt(perovskite(38, 22))
    assert "Ti-O 1.95" in text and "Sr-O 2.76" in text  # a / 2, a / sqrt 2
    assert "3.9, 3.9, 3.9 Å, angles 90, 90, 90, volume 12 Å3 per atom" in text


@pytest.mark.parametrize("seed", range(6))
def test_any_crystal_has_a_text_that_does_not_depend_on_how_it_is_written(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    species = rng.integers(1, 95, n)
    given = crystal(rng.normal(size=(3, 3)) + 4 * np.eye(3), rng.random((n, 3)), species)
    order = rng.permutation(n)
    moved = crystal(given.lattice, (given.frac + rng.random(3))[order] % 1.0, species[order])
    text = long_prompt(given)
    assert text.startswith(short_prompt(given)) and text == long_prompt(moved)


def test_a_column_of_the_file():
    two = [perovskite(38, 22), perovskite(22, 38)]
    columns = {
        "words": np.array(["one ", "['first', 'second']"]),
        "x": np.array([1.0, 2.0]),
        "gap": np.array(["a", ""]),
    }
    assert prompts(two, "column:words", columns) == ["one", "first"]
    for form, given, message in [
        ("column:word", columns, "no column 'word'; there are gap, words, x"),
        ("column:x", columns, r"crystal 1: expected a text, found np.float64\(1.0\)"),
        ("column:gap", columns, "crystal 2: expected a text, found"),
        ("column:words", None, "the file has no columns"),
        ("column:words", {"words": np.array(["one"])}, "1 values for 2 crystals"),
        ("middle", None, "give none, short, long, or column:NAME"),
        ("column:", None, "column:NAME"),
        ("none", None, "makes no texts"),
    ]:
        with pytest.raises(InputError, match=message):
            prompts(two, form, given)


def test_progress_counts_crystals():
    seen = []
    texts = prompts(
        [perovskite(38, 22)] * 3, "short", progress=lambda done, of: seen.append((done, of))
    )
    assert len(texts) == 3 and seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("element", "said"),
    [
        (22, "Ti is bonded to six O atoms in an octahedron."),
        (38, "Two Sr are bonded to twelve O atoms."),
        (8, "O is bonded to two Ti and four Sr atoms."),
        (
            82,
            "The cell has room for lead, 3.9 Å wide.",
        ),  # not its subject, but nothing else names it
        (5, ""),  # B: no sentence, and no part of Ba or of a name
    ],
)
def test_what_a_text_says_about_an_element(element, said):
    text = (
        "SrTiO3, cubic crystal system. Ti is bonded to six O atoms in an octahedron. Two Sr are"
        " bonded to twelve O atoms. O is bonded to two Ti and four Sr atoms. The cell has room for"
        " lead, 3.9 Å wide. Shortest bonds: Ti-O 1.95 Å, Sr-O 2.76 Å."
    )
    assert about_element(text, element) == said


def test_names_and_symbols_are_words():
    assert about_element(
        "TITANIUM sits in octahedra; strontium does not. I is iodine.", 22
    ).startswith("TITANIUM")
    assert about_element("I is iodine. In is indium.", 53) == "I is iodine."
    assert about_element("in the octahedra", 49) == ""  # a symbol is written as one
