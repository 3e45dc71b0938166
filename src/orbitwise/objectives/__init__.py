"""Objectives: (model, batch) -> per-sample losses. Names load on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "Denoiser": "denoiser",
    "Denoising": "denoising",
    "coordinate_scale": "denoiser",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
