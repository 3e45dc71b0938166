"""Objectives: (model, batch) -> per-sample losses."""

from orbitwise.objectives.denoiser import Denoiser, coordinate_scale
from orbitwise.objectives.denoising import Denoising

__all__ = ["Denoiser", "Denoising", "coordinate_scale"]
