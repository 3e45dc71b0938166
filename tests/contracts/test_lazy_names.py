"""Names that load on first use, and what is said of those that are not there."""

import pytest

import orbitwise as ow


@pytest.mark.parametrize(
    ("package", "name", "place"),
    [
        (ow.energies, "MMFF94", "orbitwise.molecules.MMFF94"),
        (ow.data, "read_molecule", "orbitwise.molecules.read_molecule"),
        (ow.molecules, "SO3", "orbitwise.SO3"),
        (ow, "CSPNet", "orbitwise.crystals.CSPNet"),
    ],
)
def test_a_name_that_lives_elsewhere_is_found(package, name, place):
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; it is in {place}"):
        getattr(package, name)


@pytest.mark.parametrize("name", ["no_such_name", "_private", "__wrapped__"])
def test_a_name_that_lives_nowhere_is_only_missing(name):
    with pytest.raises(AttributeError, match=rf"module 'orbitwise' has no attribute '{name}'$"):
        getattr(ow, name)


def test_every_public_name_loads_and_is_listed():
    for name in ow.__all__:
        assert getattr(ow, name) is not None
        assert name in dir(ow)
