"""The figures of spectra and landscapes show what they are given."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch

from orbitwise.audit.landscape.conditioning import conditioning
from orbitwise.audit.landscape.plane import Landscape
from orbitwise.audit.landscape.spectrum import Spectrum
from orbitwise.audit.result import Estimate
from orbitwise.methods.audits.landscape_figures import (
    conditioning_figure,
    landscape_figure,
    spectrum_figure,
)
from orbitwise.report.canvas import save


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(fig) -> str:
    found = [
        t.get_text() for axis in fig.axes for t in (axis.title, axis.xaxis.label, axis.yaxis.label)
    ]
    found += [t.get_text() for axis in fig.axes for t in [*axis.texts, *axis.get_yticklabels()]]
    return "\n".join(found)


def inside(fig, path) -> None:
    """Drawn, and with a white edge: nothing is cut off."""
    image = matplotlib.image.imread(save(fig, path))[..., :3]
    assert image.std() > 0.02
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() > 0.95


def test_conditioning(tmp_path):
    x = torch.randn(6, 50, 8, generator=gen(), dtype=torch.float64) * torch.logspace(0, -1, 8)
    total = x.mT @ x / 50
    twirled = total * torch.diag(torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    result = conditioning(total, twirled - 1e-3 * torch.eye(8))
    fig = conditioning_figure(result)
    shown = texts(fig)
    assert f"{result.total.value.value:.3g}" in shown and "8 parameters" in shown
    assert result.twirled.lower_bound and f"≥ {result.twirled.value.value:.3g}" in shown
    lines = fig.axes[0].get_lines()
    assert np.allclose(lines[0].get_ydata(), result.total.spectrum.flip(0))
    inside(fig, tmp_path / "a.png")


def test_spectra(tmp_path):
    one = Spectrum(
        "total",
        torch.tensor([-0.2, 3.0, 50.0]),
        torch.tensor([0.1, 0.2, 1.0]),
        torch.zeros(9, 3),
        torch.zeros(3),
        Estimate(60.0, 1.0),
        Estimate(2600.0, 1.0),
        4096,
        100,
    )
    other = SimpleNamespace(
        term="twirled",
        values=torch.tensor([0.0, 2e-4]),
        errors=torch.tensor([float("nan")] * 2),
        effective_rank=2.0,
        dimension=4096,
        stretch=7.0,
    )
    fig = spectrum_figure([one, other])
    shown = texts(fig)
    assert f"effective rank {3600 / 2600:.3g} of 4,096" in shown and "λmax/rms 7" in shown
    low, high = fig.axes[0].get_xlim()
    assert low < -0.2 and high > 50
    inside(fig, tmp_path / "b.png")


@pytest.mark.parametrize("both", [False, True])
def test_landscapes(tmp_path, both):
    axis = torch.linspace(-0.02, 0.02, 11, dtype=torch.float64)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    twirled, error = 1 + 30 * a * a - 10 * b * b, 0.2 + 150 * a * a + 0 * b
    smooth = Landscape(axis, twirled + error, twirled, error, fresh=False)
    noise = 0.01 * torch.randn(2, 11, 11, generator=gen(), dtype=torch.float64)
    rough = Landscape(axis, twirled + error, twirled + noise[0], error + noise[1], fresh=True)
    fig = landscape_figure(smooth, rough if both else None, title="a model")
    shown = texts(fig)
    assert "curvatures 60, −20;  R² 1.000" in shown and "curvatures 3e+02" in shown
    assert ("drawn anew" in shown) == both
    mesh = fig.axes[0].collections[0]
    middle = 100 * (twirled - 1).T
    assert np.allclose(
        mesh.get_array().reshape(11, 11), middle, atol=1e-9
    )  # columns are the first direction
    inside(fig, tmp_path / "c.png")
