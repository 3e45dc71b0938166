"""The preconditioned denoiser against Gaussian data, for which the best linear estimate is
exact."""

import pytest
import torch

from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.objectives.denoiser import Denoiser, Preconditioning, coordinate_scale
from orbitwise.processes.gaussian import PROCESSES, GaussianProcess

SCALE = 1.7


class Recorder(torch.nn.Module):
    """A network that answers ``value`` and keeps what it was given."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value

    def forward(self, x, t, batch):
        self.x, self.t = x, t
        return torch.full_like(x, self.value)


def labels(number, atoms, real):
    mask = (torch.arange(atoms) < real).expand(number, atoms)
    x, zeros = torch.zeros(number, atoms, 3), torch.zeros(number, atoms, atoms, dtype=torch.long)
    return PointBatch(x, mask.long(), zeros, mask)


@pytest.mark.parametrize("zero_com", [False, True])
@pytest.mark.parametrize("name", PROCESSES)
def test_a_silent_network_gives_the_linear_estimate_and_unit_scales(name, zero_com):
    process = GaussianProcess.named(name, zero_com=zero_com)
    gen = torch.Generator().manual_seed(0)
    batch = labels(20_000, 5, 4)
    x1 = SCALE * torch.randn(20_000, 5, 3, generator=gen) * batch.mask[..., None]
    x1 = process.project(x1, batch.mask)
    network = Recorder()
    denoiser = Denoiser(network, process, SCALE)
    free = 3 * (4 - zero_com) * 20_000
    for time in (0.1, 0.5, 0.9):
        t = torch.full((20_000,), time)
        xt = process.perturb(x1, t, generator=gen, mask=batch.mask)
        d = denoiser(xt, t, batch)
        # E[x1 | x_t] for Gaussian data: the residual is uncorrelated with x_t
        a, s = process.alpha(t[:1]), process.sigma(t[:1])
        gain = a * SCALE**2 / (a**2 * SCALE**2 + s**2)
        torch.testing.assert_close(d, gain * xt, rtol=1e-4, atol=1e-5)
        c = Preconditioning.of(process, t, SCALE)
        assert abs(network.x.square().sum() / free - 1) < 5 * (2 / free) ** 0.5
        left = (x1 - d) / c.out[:, None, None]
        assert abs(left.square().sum() / free - 1) < 5 * (2 / free) ** 0.5 + 1e-4
        assert abs((left * network.x).sum() / free) < 5 / free**0.5 + 1e-3
        torch.testing.assert_close(c.weight, c.out**-2)
        assert ((network.t >= 0) & (network.t <= 1)).all()


def test_fraction_is_time_for_the_matched_flow_and_ends_are_finite():
    t = torch.linspace(0, 1, 11)
    c = Preconditioning.of(GaussianProcess.flow(SCALE), t, SCALE)
    torch.testing.assert_close(c.fraction, t)
    for name in PROCESSES:
        denoiser = Denoiser(Recorder(1.0), GaussianProcess.named(name), SCALE)
        for time in (0.0, 1.0):
            d = denoiser(torch.zeros(2, 3, 3), torch.full((2,), time), labels(2, 3, 3))
            assert torch.isfinite(d).all(), (name, time)


def test_output_is_projected_and_masked():
    process = GaussianProcess.flow(zero_com=True)
    gen = torch.Generator().manual_seed(1)
    network = torch.nn.Linear(3, 3)
    denoiser = Denoiser(lambda x, t, batch: network(x), process, 1.0)
    d = denoiser(torch.randn(4, 6, 3, generator=gen), torch.full((4,), 0.5), labels(4, 6, 5))
    assert (d[:, 5] == 0).all() and d.sum(1).abs().max() < 1e-5


def test_scale_is_saved_and_checked():
    denoiser = Denoiser(Recorder(), GaussianProcess.flow(), SCALE)
    assert denoiser.state_dict()["data_scale"] == pytest.approx(SCALE)
    with pytest.raises(InputError, match="coordinate_scale"):
        Denoiser(Recorder(), GaussianProcess.flow(), 0.0)
    x = torch.tensor([[[1.0, 1, 1], [3.0, 3, 3], [9, 9, 9]]])
    assert coordinate_scale(x, torch.tensor([[True, True, False]])) == pytest.approx(1.0)
