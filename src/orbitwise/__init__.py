"""Orbitwise: learn to sample distributions with symmetries; remove the symmetry's training noise
exactly.

Names load on first use, so ``import orbitwise`` costs nothing beyond Python itself.
"""

from importlib import import_module

from orbitwise.errors import name_missing_extras

__version__ = "0.2.0"
name_missing_extras()

_WHERE = {
    "SO3": "groups.so3",
    "O3": "groups.so3",
    "Translation": "groups.translation",
    "PeriodicTranslation": "groups.torus",
    "Permutation": "groups.permutation",
    "ItemPermutations": "groups.item_permutations",
    "Automorphism": "groups.automorphism",
    "Finite": "groups.finite",
    "Product": "groups.product",
    "VoxelRotations": "groups.voxels",
    "GaussianProcess": "processes.gaussian",
    "HarmonicProcess": "processes.harmonic",
    "WrappedNormalProcess": "processes.wrapped_normal",
    "orbit_posterior": "orbits.posterior.entrance",
    "twirl": "orbits.average",
    "framed": "orbits.frames",
    "audit_equivariance": "audit.equivariance",
}
_PACKAGES = [
    "groups",
    "orbits",
    "processes",
    "energies",
    "search",
    "objectives",
    "networks",
    "data",
    "metrics",
    "training",
    "report",
    "audit",
    "runs",
    "molecules",
    "crystals",
    "proteins",
    "methods",
    "units",
    "errors",
]

__all__ = [*_WHERE, *_PACKAGES]


def __getattr__(name: str):
    if name in _WHERE:
        value = getattr(import_module(f"orbitwise.{_WHERE[name]}"), name)
    elif name in _PACKAGES:
        value = import_module(f"orbitwise.{name}")
    else:
        raise AttributeError(f"module 'orbitwise' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
