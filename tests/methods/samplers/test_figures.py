"""The static figures of a sampler: what they draw is what they were given, and nothing overlaps."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from orbitwise.energies import GaussianMixture, LennardJones, ManyWell
from orbitwise.methods.samplers.figures import (
    ensemble_figure,
    mixture_figure,
    ramachandran_figure,
    weights_figure,
    wells_figure,
)
from orbitwise.methods.samplers.gap_figure import GapCurve, PublishedGap, gap_figure
from orbitwise.metrics.divergence import angle_kl
from orbitwise.metrics.evidence import evidence
from orbitwise.metrics.modes import mixture_modes, well_coverage
from orbitwise.metrics.torus import torus_w2
from orbitwise.metrics.transport import pair_distances
from orbitwise.report.canvas import save


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def density(energy):
    return lambda points: -energy(torch.from_numpy(points)).numpy()


def drawn(figure, tmp_path):
    """Saved and not blank."""
    path = save(figure, tmp_path / "figure.png")
    picture = np.asarray(Image.open(path).convert("L"), dtype=float)
    assert picture.std() > 10
    return picture


def texts(figure) -> str:
    axes = [a.get_title() + a.get_xlabel() for a in figure.axes]
    suptitle = figure._suptitle.get_text() if figure._suptitle else ""
    return " ".join([suptitle, *axes])


def no_text_outside(figure):
    figure.canvas.draw()
    frame = figure.bbox
    texts = [figure._suptitle] if figure._suptitle else []
    for axis in figure.axes:  # tick labels beyond the range exist but are not drawn
        legend = axis.get_legend()
        texts += [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        texts += legend.get_texts() if legend else []
    for text in texts:
        box = text.get_window_extent()
        if text.get_text():
            assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1, text
            assert box.y0 >= frame.y0 - 1 and box.y1 <= frame.y1 + 1, text


def test_mixture_bars_are_the_weights(tmp_path):
    energy = GaussianMixture.forty()
    x = energy.sample((1500,), generator=gen(0))
    modes = mixture_modes(x, energy.means, energy.scales, energy.weights)
    figure = mixture_figure(x.numpy(), density(energy.double()), modes)
    bars = [p.get_height() for p in figure.axes[1].patches if isinstance(p, mpl.patches.Rectangle)][
        :40
    ]
    assert np.allclose(np.sort(bars), 100 * modes.weight.sort().values)
    assert "40 of 40" in texts(figure)
    drawn(figure, tmp_path)
    no_text_outside(figure)


@pytest.mark.parametrize("dim, panels", [(4, 1), (32, 3)])
def test_wells(dim, panels, tmp_path):
    energy = ManyWell(dim).double()
    x = energy.sample((1000,), generator=gen(1)).double()
    coverage = well_coverage(x, energy.minor_mass)
    figure = wells_figure(x.numpy(), density(energy), coverage)
    assert len(figure.axes) == panels + 2
    mass = figure.axes[panels]
    points = mass.containers[0].lines[0].get_xydata()
    assert np.allclose(points[:, 1], 100 * coverage.minor) and len(points) == dim // 2
    bars = [p.get_height() for p in figure.axes[-1].patches]
    assert sum(bars) == pytest.approx(1.0, abs=1e-3 * dim)
    drawn(figure, tmp_path)
    no_text_outside(figure)


def test_gap_labels_keep_apart_and_inside(tmp_path):
    calls = np.geomspace(1e4, 2e6, 12)
    curves = [
        GapCurve(f"method {k}", calls, (k + 2) * 50 * (calls / 1e4) ** -0.5, calls * 0 + 3)
        for k in range(5)
    ]
    known = [
        PublishedGap("SGDS", 20e6, 3.85, 0.2),
        PublishedGap("SGDS, first round", 9e6, 4.11),
        PublishedGap("TB+LS+LP", 320e6, 2.4),
        PublishedGap("TB+LS", 300e6, 2.5),
        PublishedGap("PIS", 200e6, 55.0),
    ]
    figure = gap_figure(curves, known, "many-well 32")
    drawn(figure, tmp_path)
    no_text_outside(figure)
    axis = figure.axes[0]
    assert axis.get_xscale() == axis.get_yscale() == "log"
    boxes = [t.get_window_extent() for t in axis.texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    lines = [line for line in axis.lines if line.get_label().startswith("method")]
    assert len(lines) == 5 and np.allclose(lines[2].get_ydata(), curves[2].gap)


def test_energies_off_the_axis_are_named(tmp_path):
    energy = LennardJones(13)
    reference = torch.randn(600, 13, 3, generator=gen(2)) * 1.1
    r, x = energy(reference).clamp(max=100), energy(reference[:300])
    x[:30] = math.inf
    figure = ensemble_figure(
        x.numpy(),
        r.numpy(),
        pair_distances(reference[:300]).numpy(),
        pair_distances(reference).numpy(),
        "r_m",
    )
    label = figure.axes[0].get_xlabel()
    left_out = float((~(x <= figure.axes[0].get_xlim()[1])).float().mean())
    assert left_out >= 0.1 and f"{100 * left_out:.1f} % of samples" in label
    drawn(figure, tmp_path)
    assert len(ensemble_figure(x.numpy()).axes) == 1


def test_ramachandran_titles_hold_the_numbers(tmp_path):
    reference = torch.randn(3000, 2, generator=gen(3)) * 0.5 - 1.5
    samples = torch.randn(800, 2, generator=gen(4)) * 0.6 - 1.4
    kl, w2 = angle_kl(samples, reference), torus_w2(samples, reference, 300)
    figure = ramachandran_figure(samples.numpy(), reference.numpy(), kl, w2)
    assert f"{kl.value:.3f}" in texts(figure) and f"{w2.value:.3f}" in texts(figure)
    assert "Samples (800)" in texts(figure) and "Reference (3,000)" in texts(figure)
    drawn(figure, tmp_path)
    no_text_outside(figure)
    assert "Reference" not in texts(ramachandran_figure(samples.numpy()))


def test_weights_show_the_bounds(tmp_path):
    forward = torch.randn(2000, generator=gen(5)).double() - 0.5
    backward = (
        torch.randn(1000, generator=gen(6)).double() + 0.5
    )  # E[w] = 1: the two are one sampler's
    forward[:40] = -math.inf
    found = evidence(forward, backward, 0.0)
    figure = weights_figure(forward.numpy(), found, backward.numpy())
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert f"EUBO {found.eubo:.2f}" in labels and "log Z 0.00" in labels
    assert not any(label.startswith("ELBO") for label in labels)  # -inf is nowhere
    assert "not on the axis" in figure.axes[0].get_xlabel()
    drawn(figure, tmp_path)


def test_style_stays_inside():
    before = dict(mpl.rcParams)
    gap_figure([], [PublishedGap("a", 10.0, 1.0)])
    assert dict(mpl.rcParams) == before
