"""Noising processes p_t(x_t | x_1) and their reverse steps; t = 0 noise, t = 1 data."""

from orbitwise.processes.base import Process
from orbitwise.processes.crystal import CrystalProcess
from orbitwise.processes.crystal_sampling import PredictorCorrector
from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.processes.harmonic import HarmonicProcess, Springs
from orbitwise.processes.sampling import (
    Ancestral,
    Euler,
    Heun,
    Samples,
    edm_grid,
    sample,
    snr_grid,
    uniform_grid,
)

__all__ = [
    "Ancestral",
    "CrystalProcess",
    "Euler",
    "GaussianProcess",
    "HarmonicProcess",
    "Heun",
    "PredictorCorrector",
    "Process",
    "Samples",
    "Springs",
    "edm_grid",
    "sample",
    "snr_grid",
    "uniform_grid",
]
