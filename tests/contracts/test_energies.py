"""Every energy of the package, found by discovery, keeps the same promises.

A new energy gives one line in ``CASES`` (an instance and points to try it at) and inherits all
tests here.
"""

import functools
import inspect
import math
from importlib.util import find_spec

import pytest
import torch

from orbitwise.energies.base import Energy


def discovered():
    from discovery import classes  # here: workers that unpickle this module do not have it

    found = [
        c
        for c in classes()
        if issubclass(c, Energy) and c is not Energy and not inspect.isabstract(c)
    ]
    return {c.__name__ for c in found}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scattered(energy, size, spread):
    """Points far enough from the origin and from each other to keep every energy smooth."""
    return spread * torch.randn(
        *size, *energy.event_shape, generator=generator(), dtype=torch.float64
    )


def mixture():
    from orbitwise.energies import GaussianMixture

    gen = generator(7)
    energy = GaussianMixture(
        torch.randn(3, 2, generator=gen),
        0.5 + torch.rand(3, 2, generator=gen),
        torch.rand(3, generator=gen),
    )
    return energy, lambda e, size: scattered(e, size, 2.0)


def many_well():
    from orbitwise.energies import ManyWell

    return ManyWell(4), lambda e, size: scattered(e, size, 1.5)


def double_well():
    from orbitwise.energies import DoubleWell

    return DoubleWell(), lambda e, size: scattered(e, size, 3.0)


def lennard_jones():
    from orbitwise.energies import LennardJones

    def points(energy, size):
        grid = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)[:5]
        return grid + scattered(energy, size, 0.1)

    return LennardJones(5), points


def counted():
    from orbitwise.energies import Counted

    energy, points = double_well()
    return Counted(energy), points


def tempered():
    from orbitwise.search import Tempered

    energy, points = double_well()
    return Tempered(energy, torch.tensor([0.3, 0.7, 1.0])), points


def gaussian_prior():
    from orbitwise.search import GaussianPrior

    return GaussianPrior((4, 2), 1.3, zero_com=True), lambda e, size: scattered(e, size, 1.0)


def annealing_path():
    from orbitwise.search import AnnealingPath

    energy, points = double_well()
    return AnnealingPath(energy, gaussian_prior()[0], 0.3), points


def novelty_energy():
    from orbitwise.search import Novelty, NoveltyEnergy, PairHistogram

    energy, points = double_well()
    novelty = Novelty(PairHistogram(4, 8.0, bins=8), hidden=32, generator=generator(1))
    novelty.fit(points(energy, (50,)).float(), 20, generator=generator(2))
    return NoveltyEnergy(energy, novelty, 2.0), points


def molecule(smiles="CC(=O)NC", seed=1):
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=seed)
    base = torch.from_numpy(mol.GetConformer().GetPositions())
    return mol, lambda e, size: base - base.mean(0) + scattered(e, size, 0.05)


def mmff94():
    from orbitwise.molecules import MMFF94

    mol, points = molecule()
    return MMFF94(mol), points


def aimnet2():
    if find_spec("Auto3D") is None:  # never imported: only its file of weights is read
        pytest.skip("needs orbitwise[dft]")
    from orbitwise.molecules import AIMNet2

    mol, points = molecule()
    return AIMNet2(mol), points


def ase_energy():
    from ase.calculators.morse import MorsePotential

    from orbitwise.energies import ASEEnergy

    def points(energy, size):
        grid = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)[:5]
        return grid + scattered(energy, size, 0.1)

    return ASEEnergy([18] * 5, MorsePotential(rcut1=20.0, rcut2=21.0)), points


def openmm_energy():
    pytest.importorskip("openmm", reason="needs OpenMM")
    from orbitwise.molecules import OpenMMEnergy, alanine_peptide

    peptide = alanine_peptide(1, "ff14SB", "gbn2")
    return OpenMMEnergy(
        peptide.system
    ), lambda e, size: peptide.positions[0] + scattered(e, size, 0.05)


@functools.cache  # one worker for all tests here
def ray_energy():
    pytest.importorskip("ray", reason="needs orbitwise[ray]")
    from orbitwise.energies import RayEnergy

    return RayEnergy(lambda: ase_energy()[0], 1), ase_energy()[1]


CASES = {
    "GaussianMixture": mixture,
    "ManyWell": many_well,
    "DoubleWell": double_well,
    "LennardJones": lennard_jones,
    "Counted": counted,
    "Tempered": tempered,
    "GaussianPrior": gaussian_prior,
    "AnnealingPath": annealing_path,
    "NoveltyEnergy": novelty_energy,
    "MMFF94": mmff94,
    "AIMNet2": aimnet2,
    "ASEEnergy": ase_energy,
    "RayEnergy": ray_energy,
    "OpenMMEnergy": openmm_energy,
}
# Energies whose value comes from another program: no autograd, no float32 arithmetic, few
# evaluations.
FOREIGN = {"ASEEnergy", "RayEnergy"}
EVERY = pytest.mark.parametrize("name", sorted(CASES))


def test_every_energy_has_a_case():
    assert discovered() == set(CASES), "give every energy a line in CASES (and remove stale ones)"


@EVERY
@pytest.mark.parametrize("size", [(3,), (2, 3), (4, 2, 3)])
def test_shapes(name, size):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, size)
    value, grad = energy.value_and_grad(x)
    assert energy(x).shape == value.shape == size
    assert grad.shape == x.shape == (*size, *energy.event_shape)
    assert not value.requires_grad and not grad.requires_grad


@EVERY
def test_a_batch_is_the_same_as_its_members(name):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (2, 3))
    value, grad = energy.value_and_grad(x)
    if name == "Tempered":  # its inverse temperatures belong to the last axis
        rows = [energy.value_and_grad(row) for row in x]
        values, grads = torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])
    else:
        rows = [energy.value_and_grad(point) for point in x.flatten(0, 1)]
        values = torch.stack([r[0] for r in rows]).view(2, 3)
        grads = torch.stack([r[1] for r in rows]).view_as(x)
    torch.testing.assert_close(value, values, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(grad, grads, rtol=1e-10, atol=1e-9)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_points(name, dtype):
    energy, points = CASES[name]()
    energy = energy.to(dtype)
    x = points(energy, (3,))
    value, grad = energy.value_and_grad(x.to(dtype))
    assert value.dtype == grad.dtype == energy(x.to(dtype)).dtype == dtype
    exact, slope = energy.double().value_and_grad(x)
    if name not in FOREIGN:
        assert ((value - exact).abs() / (1 + exact.abs())).max() < 1e-4
        assert ((grad - slope).abs() / (1 + slope.abs().max())).max() < 1e-4


@EVERY
def test_gradient_is_that_of_autograd(name):
    if name in FOREIGN:
        pytest.skip("computed outside of torch")
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (2, 3)).requires_grad_()
    before = x.detach().clone()
    value = energy(x)
    (expected,) = torch.autograd.grad(value.sum(), x)
    got_value, got = energy.value_and_grad(x)
    torch.testing.assert_close(got_value, value.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(x.detach(), before) and x.grad is None


@EVERY
def test_gradient_is_that_of_finite_differences(name):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (3,))
    _, grad = energy.value_and_grad(x)
    h = 1e-4
    for seed in range(3):
        way = torch.randn(x.shape, generator=generator(seed), dtype=torch.float64)
        far = [energy(x + k * h * way) for k in (-2, -1, 1, 2)]
        slope = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * h)  # error of order h⁴
        expected = (grad * way).flatten(1).sum(1)
        assert ((slope - expected).abs() < 1e-6 * (1 + grad.flatten(1).norm(dim=1))).all()


@EVERY
def test_zero_com_says_whether_a_common_shift_matters(name):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (3,))
    if len(energy.event_shape) == 1:
        assert not energy.zero_com  # no points that could be shifted together
        return
    shift = torch.randn(3, 1, energy.event_shape[-1], generator=generator(5), dtype=torch.float64)
    change = (energy(x + shift) - energy(x)).abs().max()
    assert energy.zero_com == (change < 1e-7)
    if energy.zero_com:
        assert energy.value_and_grad(x)[1].sum(-2).abs().max() < 1e-7


@EVERY
def test_points_that_are_not_finite_give_values_that_are_not_finite(name):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (3,))
    clean = energy(x)
    x[1] = math.nan
    value, grad = energy.value_and_grad(x)
    assert not torch.isfinite(value[1])
    # ... and do not reach their neighbours in the batch
    torch.testing.assert_close(value[[0, 2]], clean[[0, 2]])
    assert torch.isfinite(grad[[0, 2]]).all()


def kernel_density(samples, width, size, gen):
    """Points from Gaussians around ``samples: (M, D)`` and their log densities under that
    mixture."""
    m, d = samples.shape
    x = samples[torch.randint(m, (size,), generator=gen)]
    x = x + width * torch.randn(size, d, generator=gen, dtype=samples.dtype)
    square = torch.cdist(x, samples).square() / width**2
    log_q = (
        torch.logsumexp(-0.5 * square, 1)
        - math.log(m)
        - d * math.log(width * math.sqrt(2 * math.pi))
    )
    return x, log_q


@pytest.mark.parametrize("name", ["GaussianMixture", "ManyWell"])
def test_log_z_by_importance_sampling(name):
    """Oracle: the samples only shape the proposal; the estimate is unbiased wherever they come
    from."""
    energy, _ = CASES[name]()
    energy = energy.double()
    gen = generator(11)
    x, log_q = kernel_density(energy.sample((400,), generator=gen), 0.5, 10_000, gen)
    log_w = -energy(x) - log_q
    w = (log_w - log_w.max()).exp()
    estimate = (w.mean().log() + log_w.max()).item()
    error = (w.std() / w.mean() / len(w) ** 0.5).item()
    assert error < 0.03, "the proposal is too poor for the test to mean anything"
    assert abs(estimate - energy.log_z) < 4 * error


def test_every_known_log_z_is_tested():
    known = {name for name, case in CASES.items() if case()[0].log_z is not None} - {"Counted"}
    # The last two in test_double_well.py and test_annealing.py
    assert known == {"GaussianMixture", "ManyWell", "DoubleWell", "GaussianPrior"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_a_gpu_gives_the_same_numbers(name):
    energy, points = CASES[name]()
    energy = energy.double()
    x = points(energy, (3,))
    value, grad = energy.value_and_grad(x)
    energy = energy.cuda()
    there, slope = energy.value_and_grad(x.cuda())
    assert there.is_cuda and slope.is_cuda
    torch.testing.assert_close(there.cpu(), value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope.cpu(), grad, rtol=1e-9, atol=1e-8)
    if hasattr(energy, "sample"):
        drawn = energy.sample((5,), generator=torch.Generator(device="cuda").manual_seed(0))
        assert drawn.is_cuda and drawn.shape == (5, *energy.event_shape)
