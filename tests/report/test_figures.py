"""Figures of an ensemble: what they compute, and the static picture."""

import math

import numpy as np
import pytest
from PIL import Image

from orbitwise.report import Distributions, main_picture
from orbitwise.report.figures import energies_beyond, free_energy_map
from report.example import MOLECULES, ensemble


def test_free_energy_map_is_the_log_density():
    """Against the closed form of a wrapped Gaussian (its width broadened by the smoothing)."""
    rng = np.random.default_rng(2)
    a, b = (
        np.radians(170) + 0.5 * rng.normal(size=200_000),
        np.radians(-60) + 0.35 * rng.normal(size=200_000),
    )
    f = free_energy_map(a, b, kt=0.6)
    centres = np.radians(np.arange(72) * 5 - 177.5)
    wide = [math.hypot(s, math.radians(5)) for s in (0.5, 0.35)]

    def wrapped(x, mean, s):
        return sum(np.exp(-0.5 * ((x - mean + 2 * math.pi * k) / s) ** 2) for k in range(-2, 3))

    p = wrapped(centres, math.radians(-60), wide[1])[:, None] * wrapped(
        centres, math.radians(170), wide[0]
    )
    expected = -0.6 * np.log(p / p.max())
    inside = expected < 2.0
    assert np.abs(f - expected)[inside].max() < 0.1
    assert f.min() == 0 and np.isinf(f).any()


def test_energies_off_the_axis_are_said():
    good = np.linspace(1, 20, 500)
    wild = np.concatenate([good[:300], [1e6] * 100, [np.inf] * 60, [np.nan] * 40])
    assert energies_beyond(Distributions(good)) == ""
    assert energies_beyond(Distributions(good, wild)) == "Not on the axis: 40 % of learned samples."


@pytest.mark.parametrize("smiles, torsions", MOLECULES.items())
def test_picture(smiles, torsions, tmp_path):
    path = main_picture(ensemble(smiles, torsions), tmp_path / "picture.png")
    image = np.asarray(Image.open(path).convert("L"), dtype=float)
    assert image.shape[1] > 700 and 0.02 < (image < 200).mean() < 0.6
