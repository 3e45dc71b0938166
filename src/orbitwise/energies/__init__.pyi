# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.energies.ase import ASEEnergy as ASEEnergy
from orbitwise.energies.base import Energy as Energy
from orbitwise.energies.counted import Count as Count
from orbitwise.energies.counted import Counted as Counted
from orbitwise.energies.distributed import RayEnergy as RayEnergy
from orbitwise.energies.double_well import DoubleWell as DoubleWell
from orbitwise.energies.lennard_jones import LennardJones as LennardJones
from orbitwise.energies.many_well import ManyWell as ManyWell
from orbitwise.energies.mixture import GaussianMixture as GaussianMixture

__all__: list[str]
_WHERE: dict[str, str]
