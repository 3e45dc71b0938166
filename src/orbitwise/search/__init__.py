"""Markov chains that move points using an energy. Names load on first use."""

import sys
from types import ModuleType

from orbitwise.lazy import load_on_first_use

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
    "Cycle": "cycle",
    "ReplicaExchange": "tempering",
    "Tempered": "tempering",
    "geometric_ladder": "tempering",
    "warmup": "warmup",
    "run": "run",
    "Trace": "run",
    "minimise": "quench",
    "Prior": "prior",
    "GaussianPrior": "prior",
    "AnnealingPath": "schedule",
    "Schedule": "schedule",
    "pilot": "schedule",
    "anneal": "annealing",
    "Annealed": "annealing",
    "carry": "carry",
    "Carried": "carry",
    "Novelty": "novelty",
    "NoveltyEnergy": "novelty",
    "Coordinates": "novelty",
    "PairHistogram": "novelty",
    "explore": "explore",
    "Explored": "explore",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)


class _Package(ModuleType):
    def __setattr__(self, name, value):
        # Importing the submodule ``run`` binds it here; the function of the same name is what
        # people mean.
        if name in _WHERE and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
