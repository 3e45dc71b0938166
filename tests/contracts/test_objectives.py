"""Every objective of the package, found by discovery, keeps the same promises.

An objective is called with ``(model, batch, generator)`` and answers a loss for every item. A new
one gives one line in ``CASES`` and inherits all tests here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discovery import classes
from orbitwise.crystals import CrystalDenoiser, CrystalDenoising, CrystalProcess, CSPNet
from orbitwise.crystals.crystal import CrystalBatch
from orbitwise.data.batch import PointBatch
from orbitwise.data.buffer import ReplayBuffer
from orbitwise.data.voxels import VoxelGrid
from orbitwise.energies import GaussianMixture
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3
from orbitwise.networks import EGNN, MLP, PairNetwork, UNet3D
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.objectives.denoising import Denoising
from orbitwise.objectives.grid_denoising import GridDenoiser, GridDenoising
from orbitwise.objectives.paths.adjoint_matching import AdjointMatching
from orbitwise.objectives.paths.augmented_flow import AugmentedFlow
from orbitwise.objectives.paths.detailed_balance import DetailedBalance
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.reverse_kl import ReverseKL
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Uniform
from orbitwise.objectives.paths.subtrajectory_balance import SubTrajectoryBalance
from orbitwise.objectives.paths.trajectory_balance import TrajectoryBalance, VarGrad
from orbitwise.objectives.regression import Regression
from orbitwise.objectives.widths import OverParts
from orbitwise.processes.gaussian import GaussianProcess

Objective = Callable[[Any, Any, torch.Generator], Tensor]
COUNT = 6  # items of a batch
PROCESS = GaussianProcess.flow(zero_com=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Case:
    """``objective`` and ``model`` are made anew for every test, as some keep a state; ``padded``:
    the same batch with one more padded point, where items have points that may be padded;
    ``solved``: a model that is the minimiser, for which the loss is ``least`` in every item."""

    objective: Callable[[], Objective]
    model: Callable[[], nn.Module]
    batch: Callable[[], Any]
    padded: Callable[[Any], Any] | None = None
    solved: Callable[[], Any] | None = None
    least: float = 0.0


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """In float64, with parameters away from their start, which may be zero."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn(p.shape)
    return model.double()


# -- points ----------------------------------------------------------------------------------------


def points() -> PointBatch:
    x = torch.randn(COUNT, 4, 3, generator=generator(), dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    species = torch.tensor([6, 8, 1, 1]).expand(COUNT, 4)
    return PointBatch(
        x,
        species,
        torch.zeros(COUNT, 4, 4, dtype=torch.long),
        torch.ones(COUNT, 4, dtype=torch.bool),
    )


def with_padding(batch: PointBatch) -> PointBatch:
    grow = nn.functional.pad
    return PointBatch(
        grow(batch.x, (0, 0, 0, 1), value=7.0),
        grow(batch.species, (0, 1)),
        grow(batch.bonds, (0, 1, 0, 1)),
        grow(batch.mask, (0, 1)),
    )


def denoiser(network: type[nn.Module] = PairNetwork) -> Denoiser:
    return Denoiser(network(hidden=16, layers=1, radial=8, times=8), PROCESS, 1.0)


def same_point() -> PointBatch:
    """All points at the origin: the clean data is 0, whatever is drawn."""
    return replace(points(), x=torch.zeros(COUNT, 4, 3, dtype=torch.float64))


class Answer(nn.Module):
    """A model that answers its constant, whatever it is asked."""

    data_scale = torch.tensor(1.0, dtype=torch.float64)

    def forward(self, x: Tensor, *_) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Parts:
    """Two parts of a batch, as ``Buckets`` makes them."""

    parts: tuple[PointBatch, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class Forces:
    """Of springs: the force is minus the position."""

    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)


class Springs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return -self.stiffness * x


def springs() -> Forces:
    x = points().x
    return Forces(x, -x)


class Minus(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


# -- crystals and grids ----------------------------------------------------------------------------


def crystals() -> CrystalBatch:
    g = generator(2)
    frac = torch.rand(COUNT, 3, 3, generator=g, dtype=torch.float64)
    lattice = 4 * torch.eye(3) + 0.3 * torch.randn(COUNT, 3, 3, generator=g, dtype=torch.float64)
    species = torch.tensor([8, 8, 22]).expand(COUNT, 3)
    return CrystalBatch(frac, lattice, species, torch.ones(COUNT, 3, dtype=torch.bool))


def more_atoms(batch: CrystalBatch) -> CrystalBatch:
    grow = nn.functional.pad
    return CrystalBatch(
        grow(batch.frac, (0, 0, 0, 1)),
        batch.lattice,
        grow(batch.species, (0, 1)),
        grow(batch.mask, (0, 1)),
    )


def crystal_denoiser() -> CrystalDenoiser:
    return CrystalDenoiser.fitted(CSPNet(16, 1, 8), CrystalProcess(), crystals())


def grid_denoiser() -> GridDenoiser:
    return GridDenoiser(UNet3D(channels=5, width=4, times=8), 0.7, 0.1)


def small_molecules() -> PointBatch:
    return replace(points(), species=torch.tensor([6, 8, 1, 7]).expand(COUNT, 4))


# -- paths -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """A batch of nothing but a number of paths."""

    size: int = COUNT

    def __len__(self) -> int:
        return self.size


def energy() -> GaussianMixture:
    means = torch.tensor([[-0.6, -0.6], [0.9, 0.9]], dtype=torch.float64)
    return GaussianMixture(means, 0.5, torch.tensor([0.3, 0.7], dtype=torch.float64))


def memory() -> ReplayBuffer:
    x = energy().sample((200,), generator=generator(5))
    made = ReplayBuffer(200, (2,), dtype=torch.float64)
    made.add(x, *energy().value_and_grad(x))
    return made


def sampler(flows: bool = False) -> DiffusionSampler:
    flow = MLP((2,), 8, 1, out_shape=()) if flows else None
    return DiffusionSampler(
        MLP((2,), 8, 1), (2,), Uniform(5), noise=1.5, data_scale=0.75, flow=flow
    )


def on_paths(make: Callable[[], Objective], flows: bool = False) -> Case:
    return Case(make, lambda: sampler(flows), Count)


CASES = {
    **{
        f"Denoising-{target}": Case(
            lambda target=target: Denoising(PROCESS, SO3(), target, proposals=16),
            denoiser,
            points,
            with_padding,
        )
        for target in ("augmentation", "aligned", "snis", "exact")
    },
    "Denoising-product": Case(
        lambda: Denoising(PROCESS, Product(SO3(), Permutation(4, [0, 1, 2, 2]))),
        denoiser,
        points,
    ),
    "Denoising-of-zero": Case(
        lambda: Denoising(PROCESS, SO3()), denoiser, same_point, with_padding, Answer
    ),
    "OverParts": Case(
        lambda: OverParts(Denoising(PROCESS, SO3())),
        lambda: denoiser(EGNN_SMALL),
        lambda: Parts((points()[:4], points()[4:])),
        lambda whole: Parts(tuple(map(with_padding, whole.parts))),
    ),
    "Regression": Case(lambda: Regression(SO3(), 2), Springs, springs, None, Minus),
    "GridDenoising": Case(
        lambda: GridDenoising(VoxelGrid(n=8), SO3()), grid_denoiser, small_molecules, with_padding
    ),
    **{
        f"CrystalDenoising-{target}": Case(
            lambda target=target: CrystalDenoising(CrystalProcess(), target, proposals=16),
            crystal_denoiser,
            crystals,
            more_atoms,
        )
        for target in ("augmentation", "snis_wrapped", "translations", "exact")
    },
    "TrajectoryBalance": on_paths(lambda: TrajectoryBalance(energy(), memory())),
    "VarGrad": on_paths(lambda: VarGrad(energy(), memory(), time_steps=2)),
    "AugmentedFlow": on_paths(lambda: AugmentedFlow(energy(), memory()).double()),
    "DetailedBalance": on_paths(lambda: DetailedBalance(energy(), memory()), flows=True),
    "SubTrajectoryBalance": on_paths(lambda: SubTrajectoryBalance(energy(), memory()), flows=True),
    "ReverseKL": on_paths(lambda: ReverseKL(energy())),
    "MaximumLikelihood": on_paths(lambda: MaximumLikelihood(energy(), memory())),
    "AdjointMatching": on_paths(lambda: AdjointMatching(energy(), memory(), endpoints=16)),
}
EVERY = pytest.mark.parametrize("name", CASES)


def EGNN_SMALL(**_) -> EGNN:
    return EGNN(hidden=16, layers=1, pair=12, vectors=8, heads=4, radial=8, times=8)


def found() -> Iterator[str]:
    """Classes of objects that are called with a model, a batch and a generator."""
    for cls in classes():
        if issubclass(cls, type) or "__call__" not in dir(cls) or inspect.isabstract(cls):
            continue
        call = cls.__call__
        asked = list(inspect.signature(call).parameters) if inspect.isfunction(call) else []
        if len(asked) == 4 and asked[2:] == ["batch", "generator"] and not base(cls):
            yield cls.__name__


def base(cls: type) -> bool:
    """Made only to be derived from: it leaves ``losses`` to its subclasses."""
    losses = getattr(cls, "losses", None)
    return losses is not None and "NotImplementedError" in losses.__code__.co_names


def test_every_objective_has_a_case():
    assert set(found()) == {name.split("-")[0] for name in CASES}


def losses(case: Case, model: Any, batch: Any, seed: int = 3) -> Tensor:
    return case.objective()(model, batch, generator(seed))


@EVERY
def test_one_finite_loss_for_every_item(name):
    case = CASES[name]
    found = losses(case, built(case.model), case.batch())
    assert found.shape == (COUNT,) and found.dtype == torch.float64
    assert found.isfinite().all()
    if name != "Denoising-of-zero":
        assert found.std() > 0


@EVERY
def test_gradients_are_finite_and_not_all_zero(name):
    case, model = CASES[name], built(CASES[name].model)
    losses(case, model, case.batch()).mean().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    assert max(g.abs().max() for g in grads) > 1e-6


@EVERY
def test_the_generator_decides_and_no_other_number_is_drawn(name):
    case, model = CASES[name], built(CASES[name].model)
    before = torch.random.get_rng_state()
    a, b, c = (losses(case, model, case.batch(), seed) for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), before)


@EVERY
def test_the_batch_is_left_as_it_was(name):
    case, batch = CASES[name], CASES[name].batch()
    first = getattr(batch, "x", getattr(batch, "frac", None))
    before = None if first is None else first.clone()
    losses(case, built(case.model), batch)
    assert before is None or torch.equal(first, before)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.padded])
def test_padding_counts_nothing(name):
    """In the mean: other noise is drawn where there are more rows. Five standard errors of the
    difference, over many seeds."""
    case, model = CASES[name], built(CASES[name].model)
    plain, padded = case.batch(), case.padded(case.batch())
    with torch.no_grad():
        a, b = (
            torch.stack([losses(case, model, batch, seed).mean() for seed in range(24)])
            for batch in (plain, padded)
        )
    error = ((a.var() + b.var()) / 24).sqrt()
    assert (a.mean() - b.mean()).abs() < 5 * error


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.solved])
def test_the_minimiser_has_the_least_loss(name):
    case = CASES[name]
    best = losses(case, case.solved(), case.batch())
    torch.testing.assert_close(best, torch.full_like(best, case.least), rtol=0, atol=1e-12)
    assert losses(case, built(case.model), case.batch()).min() > case.least + 1e-6
