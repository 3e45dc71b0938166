"""Energies U(x) in units of kT: batched torch modules with their gradients. Names load on first use."""

from importlib import import_module

# One line per name: name -> module inside this package.
_WHERE = {
    "Energy": "base",
    "Counted": "counted",
    "Count": "counted",
    "GaussianMixture": "mixture",
    "ManyWell": "many_well",
    "DoubleWell": "double_well",
    "LennardJones": "lennard_jones",
    "MMFF94": "mmff",
    "ASEEnergy": "ase",
}

__all__ = [*_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'orbitwise.energies' has no attribute {name!r}")
    value = getattr(import_module(f"orbitwise.energies.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
