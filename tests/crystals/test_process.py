"""Noise on crystals: cell vectors, the scale of the score, and samplers against a closed-form
score."""

from __future__ import annotations

import math

import pytest
import torch

from orbitwise import PeriodicTranslation, orbit_posterior
from orbitwise.crystals.process import CrystalProcess, cell_lattice, cell_vector
from orbitwise.crystals.sampling import CrystalEstimate, PredictorCorrector
from orbitwise.errors import InputError
from orbitwise.groups.torus import nearest_image
from orbitwise.processes.gaussian import beside

PROCESS = CrystalProcess()


def test_cell_vectors_stand_for_cells_whatever_their_orientation():
    g = torch.Generator().manual_seed(0)
    lattice = 5 * torch.eye(3).double() + torch.randn(50, 3, 3, generator=g, dtype=torch.float64)
    atoms = torch.randint(1, 20, (50,), generator=g).double()
    vector = cell_vector(lattice, atoms)
    back = cell_lattice(vector, atoms)
    torch.testing.assert_close(back @ back.mT, lattice @ lattice.mT, rtol=1e-10, atol=1e-10)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    torch.testing.assert_close(cell_vector(lattice @ turn, atoms), vector, rtol=1e-9, atol=1e-10)
    volume = torch.linalg.det(lattice).abs()
    torch.testing.assert_close(vector[:, :3].sum(-1).exp(), volume / atoms, rtol=1e-10, atol=1e-10)
    cube = cell_vector(4 * torch.eye(3).double()[None], torch.tensor([1.0]).double())
    torch.testing.assert_close(cube[0], torch.tensor([math.log(4)] * 3 + [0.0] * 3).double())


@pytest.mark.parametrize("t", [0.0, 0.08, 0.2, 0.35, 0.6, 1.0])
def test_scale_of_the_score_against_samples(t):
    g = torch.Generator().manual_seed(1)
    zero = torch.zeros(200_000, 1, 1, dtype=torch.float64)
    time = torch.full((200_000,), t, dtype=torch.float64)
    x = PROCESS.frac.perturb(zero, time, generator=g)
    square = (
        (PROCESS.frac.score(x, zero, time) * beside(PROCESS.frac.wrapped_sigma(time)))
        .square()
        .flatten()
    )
    error = square.std() / math.sqrt(len(square))
    scale = PROCESS.score_scale(torch.tensor([t], dtype=torch.float64))
    assert (square.mean() - scale**2).abs() < 4 * error + 1e-12


class OneCrystal:
    """The exact estimate where the data are one crystal at any place in its cell, and one cell."""

    def __init__(self, frac, cell):
        self.frac, self.cell, self.calls = frac, cell, 0

    def __call__(self, frac, cell, t):
        self.calls += 1
        post = orbit_posterior(
            PeriodicTranslation(), PROCESS.frac, self.frac.expand_as(frac), frac, t
        )
        return CrystalEstimate(post.mean - frac, self.cell.expand_as(cell))


@pytest.mark.parametrize(
    "sampler", [PredictorCorrector(1.0), PredictorCorrector(0.0), PredictorCorrector(0.5, 2, 0.05)]
)
def test_the_exact_score_leads_back_to_the_crystal(sampler):
    g = torch.Generator().manual_seed(2)
    frac = torch.tensor([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.1], [0.3, 0.5, 0.5]])
    estimate = OneCrystal(frac, torch.linspace(-1, 1, 6))
    mask = torch.ones(400, 4, dtype=torch.bool)
    done = sampler.sample(estimate, PROCESS, mask, torch.linspace(0, 0.999, 40), generator=g)
    assert done.evaluations == estimate.calls == 40 + 39 * sampler.corrections
    torch.testing.assert_close(done.cell, torch.linspace(-1, 1, 6).expand(400, 1, 6))
    assert done.frac.min() >= 0 and done.frac.max() < 1
    off = nearest_image(done.frac - frac)
    off = nearest_image(off - off[:, :1])
    off = off - off.mean(1, keepdim=True)
    # the last estimate removes what noise is left; deterministic steps may end between two images a
    # little more often
    assert off.abs().amax((1, 2)).median() < 0.006
    assert (off.abs().amax((1, 2)) < 0.03).double().mean() > 0.9
    # every place in the cell alike: the first Fourier coefficients of the shifts vanish
    shifts = (done.frac - frac)[:, 0]
    waves = torch.polar(torch.ones_like(shifts), 2 * math.pi * shifts).mean(0).abs()
    assert waves.max() < 4 / math.sqrt(400)


def test_padded_atoms_stay_and_generators_decide():
    frac = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])

    def estimate(x, cell, t):
        return CrystalEstimate(0.1 * torch.sin(x), torch.zeros_like(cell))

    runs = [
        PredictorCorrector(corrections=1).sample(
            estimate,
            PROCESS,
            mask,
            torch.linspace(0, 0.9, 5),
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0].frac, runs[1].frac) and not torch.equal(runs[0].frac, runs[2].frac)
    assert runs[0].frac[1, 2:].abs().max() == 0 and frac.shape == (4, 3)


def test_bad_settings_are_refused():
    mask = torch.ones(1, 2, dtype=torch.bool)
    for grid in (
        torch.tensor([0.5]),
        torch.tensor([0.5, 0.1]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([-0.1, 0.5]),
    ):
        with pytest.raises(InputError, match="grid"):
            PredictorCorrector().sample(lambda *_: None, PROCESS, mask, grid)
    with pytest.raises(InputError, match="stochasticity"):
        PredictorCorrector(stochasticity=1.5)
    with pytest.raises(InputError, match="corrections"):
        PredictorCorrector(corrections=-1)
