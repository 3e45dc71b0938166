"""Orbitwise: learn to sample distributions with symmetries; remove the symmetry's training noise
exactly.

Names load on first use, so ``import orbitwise`` costs nothing beyond Python itself.
"""

from importlib import import_module

from orbitwise.errors import name_missing_extras

__version__ = "0.2.0"
name_missing_extras()

# Type checkers and editors read the same names from __init__.pyi; a test holds the two equal.
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
    "SE3": "groups.se3",
    "Process": "orbits.posterior.noise",
    "WrappedProcess": "orbits.posterior.noise",
    "GaussianProcess": "processes.gaussian",
    "HarmonicProcess": "processes.harmonic",
    "WrappedNormalProcess": "processes.wrapped_normal",
    "FrameProcess": "processes.frames",
    "orbit_posterior": "orbits.posterior.entrance",
    "OrbitPosterior": "orbits.posterior.result",
    "frame_posterior": "orbits.posterior.rigid.posterior",
    "FramePosterior": "orbits.posterior.rigid.posterior",
    "horizontal": "orbits.tangent",
    "twirl": "orbits.average",
    "framed": "orbits.frames",
    "audit_equivariance": "audit.equivariance",
    "sample_conformers": "methods.conformers.ensemble.sample",
    "ConformerEnsemble": "methods.conformers.ensemble.ensemble",
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

_load = import_module("orbitwise.lazy").load_on_first_use
__getattr__, __dir__ = _load(__name__, _WHERE, _PACKAGES)
