"""Noising processes p_t(x_t | x_1) and their reverse steps; t = 0 noise, t = 1 data."""

from orbitwise.processes.base import Process
from orbitwise.processes.gaussian import GaussianProcess

__all__ = ["GaussianProcess", "Process"]
