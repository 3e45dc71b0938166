"""Markov chains that move points using an energy. Names load on first use."""

from importlib import import_module

# One line per name: name -> module inside this package.
_WHERE = {
    "State": "base",
    "Info": "base",
    "Kernel": "base",
    "MALA": "mala",
    "HMC": "hmc",
    "Langevin": "langevin",
    "AdjustedLangevin": "langevin",
    "OrbitMove": "orbit_move",
    "ApproximateOrbitMove": "orbit_move",
    "TorsionMove": "torsion_move",
    "Cycle": "cycle",
    "Stereo": "stereo",
    "KeepStereo": "stereo",
    "ReplicaExchange": "tempering",
    "Tempered": "tempering",
    "geometric_ladder": "tempering",
    "warmup": "warmup",
    "run": "run",
    "Trace": "run",
    "minimise": "quench",
}

__all__ = [*_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'orbitwise.search' has no attribute {name!r}")
    value = getattr(import_module(f"orbitwise.search.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
