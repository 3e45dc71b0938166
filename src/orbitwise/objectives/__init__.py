"""Objectives: (model, batch) -> per-sample losses."""

from orbitwise.objectives.crystal_denoiser import CrystalDenoiser
from orbitwise.objectives.crystal_denoising import CrystalDenoising
from orbitwise.objectives.denoiser import Denoiser, coordinate_scale
from orbitwise.objectives.denoising import Denoising

__all__ = ["CrystalDenoiser", "CrystalDenoising", "Denoiser", "Denoising", "coordinate_scale"]
