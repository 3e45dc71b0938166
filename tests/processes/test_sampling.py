"""Time grids, orders of convergence, the sampler's own rules. Every process x stepper:
tests/contracts."""

from itertools import pairwise

import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.processes.gaussian import GaussianProcess, beside
from orbitwise.processes.sampling import (
    Ancestral,
    Euler,
    Heun,
    edm_grid,
    sample,
    snr_grid,
    uniform_grid,
)

F64 = torch.float64
FLOW, VP, VE, EDM = (
    GaussianProcess.flow(),
    GaussianProcess.vp(),
    GaussianProcess.ve(),
    GaussianProcess.edm(),
)


class Line:
    """Data N(0, spread²) per coordinate: the denoiser is linear and the flow known in closed
    form."""

    def __init__(self, process, spread=0.5):
        self.process, self.spread = process, spread

    def sd(self, t):
        return ((self.process.alpha(t) * self.spread) ** 2 + self.process.sigma(t) ** 2).sqrt()

    def denoise(self, x, t):
        return beside(self.process.alpha(t) * self.spread**2 / self.sd(t) ** 2) * x

    def exact_end(self, start, grid):
        """The probability flow of a Gaussian scales with its standard deviation; then the last
        D."""
        x = start * self.sd(grid[-1]) / self.sd(grid[0])
        return self.denoise(x, grid[-1])


@pytest.mark.parametrize("process", [FLOW, VP, EDM], ids=repr)
@pytest.mark.parametrize(("stepper", "order"), [(Euler(), 1), (Heun(), 2)], ids=["euler", "heun"])
def test_order_of_convergence(process, stepper, order):
    line, start, errors = Line(process), torch.ones(1, 1, 1, dtype=F64), []
    for steps in (80, 160, 320):
        grid = edm_grid(process, steps, noise_min=0.05, noise_max=20.0)[1:]  # from ratio 20 to 0.05
        out = sample(line.denoise, process, start=start, grid=grid, stepper=stepper).x
        errors.append(abs(out / line.exact_end(start, grid) - 1).item())
    rates = torch.tensor(errors[:-1]).log2() - torch.tensor(errors[1:]).log2()
    assert (rates - order).abs().max() < 0.2, (errors, rates)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_variance_approaches_the_truth_at_first_order(eta):
    """The exact variance of the sampler's law, propagated step by step for a linear denoiser."""
    gen, number, errors = torch.Generator().manual_seed(0), 40_000, []
    line = Line(FLOW)
    for steps in (20, 80):
        grid = snr_grid(FLOW, steps, noise_min=0.01, noise_max=50.0)
        x = sample(
            line.denoise,
            FLOW,
            (number, 4, 3),
            grid=grid,
            stepper=Ancestral(eta),
            generator=gen,
            dtype=F64,
        ).x
        errors.append(abs(x.square().mean().item() / line.spread**2 - 1))
    noise = (2 / (12 * number)) ** 0.5  # 0.002, relative standard error of the variance
    assert errors[1] < errors[0] / 2.5 and errors[0] > 10 * noise and errors[1] < 0.12, errors


def test_ancestral_without_fresh_noise_is_euler_and_flow_euler_is_the_textbook_one():
    line, start = (
        Line(FLOW),
        torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(1), dtype=F64),
    )
    grid = uniform_grid(FLOW, 12)
    ddim = sample(line.denoise, FLOW, start=start, grid=grid, stepper=Ancestral(0.0)).x
    euler = sample(line.denoise, FLOW, start=start, grid=grid, stepper=Euler()).x
    torch.testing.assert_close(ddim, euler)
    x = start  # dx/dt = (D − x)/(1 − t), twelve equal steps to t = 1
    for k in range(12):
        t = torch.full((7,), k / 12, dtype=F64)
        x = x + (line.denoise(x, t) - x) / (1 - beside(t)) / 12
    torch.testing.assert_close(euler, x)


def test_edm_heun_is_the_papers_algorithm():
    line, start = (
        Line(EDM),
        80 * torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(2), dtype=F64),
    )
    out = sample(line.denoise, EDM, start=start, grid=uniform_grid(EDM, 18), stepper=Heun())
    assert out.evaluations == 35  # 2N − 1 for N = 18
    root = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 18, dtype=F64)
    levels = [*(root**7).tolist(), 0.0]
    x = start
    for s, s_next in pairwise(levels):
        slope = (x - 0.25 / (0.25 + s * s) * x) / s
        ahead = x + (s_next - s) * slope
        if s_next > 0:
            slope = 0.5 * slope + 0.5 * (ahead - 0.25 / (0.25 + s_next**2) * ahead) / s_next
            ahead = x + (s_next - s) * slope
        x = ahead
    torch.testing.assert_close(out.x, x)


@pytest.mark.parametrize("process", [FLOW, VP, VE, EDM, GaussianProcess.bridge(0.5)], ids=repr)
def test_grids(process):
    for make in (uniform_grid, edm_grid, snr_grid):
        grid = make(process, 25)
        assert grid.shape == (25,) and grid[0] == 0 and (grid.diff() > 0).all()
        assert process.sigma(grid[-1]) > 0
    ratios = process.sigma(grid[1:]) / process.alpha(grid[1:])
    gaps = ratios.log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-6, atol=1e-6)
    assert ratios[-1] == pytest.approx(
        max(0.002, float(process.sigma(torch.ones(()).double()))), rel=1e-6
    )


def test_progress_seed_dtype_and_shapes():
    line, seen = Line(VP), []
    runs = [
        sample(
            line.denoise,
            VP,
            (2, 3, 5, 3),
            grid=snr_grid(VP, 6),
            stepper=Ancestral(),
            generator=torch.Generator().manual_seed(9),
            progress=lambda done, of: seen.append((done, of)),
        ).x
        for _ in range(2)
    ]
    assert torch.equal(*runs) and runs[0].shape == (2, 3, 5, 3) and runs[0].dtype == torch.float32
    assert seen[:6] == [(k, 6) for k in range(1, 7)]
    assert not runs[0].requires_grad


def test_errors_name_what_to_do():
    line, grid = Line(FLOW), uniform_grid(FLOW, 4)
    with pytest.raises(InputError, match="either shape"):
        sample(line.denoise, FLOW, grid=grid)
    with pytest.raises(InputError, match="increasing"):
        sample(line.denoise, FLOW, (1, 1, 1), grid=grid.flip(0))
    with pytest.raises(InputError, match="σ > 0"):
        sample(line.denoise, FLOW, (1, 1, 1), grid=torch.linspace(0, 1, 5))
    with pytest.raises(InputError, match="at least 2"):
        uniform_grid(FLOW, 1)
    with pytest.raises(InputError, match="stochasticity"):
        Ancestral(1.5)
