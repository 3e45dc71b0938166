"""Noising processes p_t(x_t | x_1) and their reverse steps; t = 0 noise, t = 1 data. Names load on
first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "Ancestral": "sampling",
    "Euler": "sampling",
    "GaussianProcess": "gaussian",
    "HarmonicProcess": "harmonic",
    "Heun": "sampling",
    "Process": "base",
    "ProductMixture": "von_mises",
    "Samples": "sampling",
    "Springs": "harmonic",
    "VonMisesMixture": "von_mises",
    "edm_grid": "sampling",
    "fit_products": "von_mises_fit",
    "fit_von_mises": "von_mises_fit",
    "sample": "sampling",
    "snr_grid": "sampling",
    "uniform_grid": "sampling",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
