"""Energies U(x) in units of kT of no particular matter, batched, with their gradients. Names load
on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "Energy": "base",
    "Counted": "counted",
    "Count": "counted",
    "GaussianMixture": "mixture",
    "ManyWell": "many_well",
    "DoubleWell": "double_well",
    "LennardJones": "lennard_jones",
    "ASEEnergy": "ase",
    "RayEnergy": "distributed",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
