"""Every kernel of the package, found by discovery, keeps the same promises.

A new kernel gives one line in ``CASES`` and inherits all tests here.
"""

from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch

from discovery import classes
from orbitwise.energies import Counted, GaussianMixture
from orbitwise.energies.base import Energy
from orbitwise.molecules import KeepStereo, MixtureMove, Rotors, Stereo, TorsionMove
from orbitwise.molecules.search.mixture_move import TorsionProposal
from orbitwise.processes import ProductMixture
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    ApproximateOrbitMove,
    Cycle,
    Langevin,
    OrbitMove,
    ReplicaExchange,
    geometric_ladder,
)

SCALES = torch.tensor([0.5, 1.0, 1.5, 2.0, 0.8], dtype=torch.float64)
LADDER = geometric_ladder(1.0, 4.0, 3)


def rotations():
    from orbitwise.groups.so3 import SO3

    return SO3()


def gaussian():
    """Five points, each isotropic around the origin with its own width: rotations are a
    symmetry."""
    return GaussianMixture(
        torch.zeros(1, 5, 3, dtype=torch.float64), SCALES.view(1, 5, 1).expand(1, 5, 3)
    )


def torsions():
    axes = torch.tensor([[0, 1], [1, 2]])
    moving = torch.tensor([[False, False, True, True, True], [False, False, False, True, True]])
    return TorsionMove(axes, moving)


def mixtures():
    axes, atoms = torch.tensor([[1, 2], [2, 3]]), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    moving = torch.tensor([[False, False, False, True, True], [False, False, False, False, True]])
    means = torch.tensor([[[0.5, -1.0], [2.0, 2.5]]])
    law = ProductMixture(torch.zeros(1, 2), means, torch.full_like(means, 0.8))
    both = TorsionProposal(torch.tensor([[0, 1]]), law)
    return MixtureMove(Rotors(axes, moving, atoms), (both,))


def right_handed():
    return Stereo(torch.tensor([[1, 2, 3, 4]]), torch.zeros(0, 4, dtype=torch.long), torch.ones(1))


@dataclass(frozen=True)
class Case:
    """``kernel``; ``steps`` that show a broken kernel; gradients per step and chain; whether a step
    can meet a point that is not finite."""

    kernel: object
    steps: int
    gradients: int
    proposes: bool = True


CASES = {
    "MALA": lambda: Case(MALA(0.6), 40, 1),
    "HMC": lambda: Case(HMC(0.4, 4, mass=torch.tensor([1.0, 2, 3, 1, 0.5]).view(5, 1)), 20, 4),
    # Chains of these two start at rest: enough steps to forget it.
    "Langevin": lambda: Case(Langevin(0.3, friction=1.0), 80, 1),
    "AdjustedLangevin": lambda: Case(AdjustedLangevin(0.5, friction=1.0), 60, 1),
    "OrbitMove": lambda: Case(OrbitMove(rotations()), 3, 0, proposes=False),
    "ApproximateOrbitMove": lambda: Case(ApproximateOrbitMove(rotations()), 3, 1),
    "TorsionMove": lambda: Case(torsions(), 10, 1),
    "MixtureMove": lambda: Case(mixtures(), 10, 1),
    "Cycle": lambda: Case(Cycle((HMC(0.4, 3), torsions()), (1, 2)), 10, 5),
    "KeepStereo": lambda: Case(KeepStereo(HMC(0.4, 3), right_handed()), 15, 3),
    "ReplicaExchange": lambda: Case(ReplicaExchange(HMC(0.4, 3), LADDER), 15, 3),
}
EVERY = pytest.mark.parametrize("name", sorted(CASES))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_kernel_has_a_case():
    found = {
        item.__name__
        for item in classes()
        if not getattr(item, "_is_protocol", False)
        and callable(getattr(item, "init", None))
        and callable(getattr(item, "step", None))
    }
    assert found == set(CASES), "give every kernel a line in CASES (and remove stale ones)"


def exact(name, chains, gen):
    """Exact samples of what the kernel leaves invariant."""
    x = gaussian().sample((chains,), generator=gen)
    if name == "KeepStereo":  # half of the Gaussian
        return torch.where(right_handed().keeps(x)[:, None, None], x, -x)
    if name == "ReplicaExchange":
        x = gaussian().sample((len(LADDER), chains), generator=gen)
        return x / LADDER.sqrt().view(-1, 1, 1, 1)
    return x


def tensors(item):
    if isinstance(item, torch.Tensor):
        return [item]
    if isinstance(item, tuple):
        return [t for part in item for t in tensors(part)]
    if is_dataclass(item):
        return [t for f in fields(item) for t in tensors(getattr(item, f.name))]
    return []


@EVERY
def test_the_target_is_invariant(name):
    """Second and fourth moments of every coordinate, and the energy, after steps from exact
    samples."""
    case, gen, energy, chains = CASES[name](), generator(1), gaussian(), 2000
    state = case.kernel.init(exact(name, chains, gen), energy)
    accepted = 0.0
    for _ in range(case.steps):
        state, info = case.kernel.step(state, energy, gen)
        accepted += info.accepted.double().mean() / case.steps
    assert accepted > 0.1
    x = state.x / SCALES.view(5, 1)
    if name == "ReplicaExchange":
        x = x * LADDER.sqrt().view(-1, 1, 1, 1)
    for power, moment in ((2, 1.0), (4, 3.0)):
        value = x**power
        error = value.std(-3) / chains**0.5
        assert ((value.mean(-3) - moment).abs() < 4.5 * error).all()
    if name != "KeepStereo":
        assert (x.mean(-3).abs() < 4.5 * x.std(-3) / chains**0.5).all()
        cross = x[..., 0, 0] * x[..., 1, 0]  # independent coordinates
        assert (cross.mean(-1).abs() < 4.5 * cross.std(-1) / chains**0.5).all()


@EVERY
def test_shapes_and_signs_of_the_report(name):
    case, gen, energy = CASES[name](), generator(2), gaussian()
    x = exact(name, 6, gen)
    lead = x.shape[:-2]
    state = case.kernel.init(x, energy)
    for _ in range(4):
        state, info = case.kernel.step(state, energy, gen)
        assert state.x.shape == state.grad.shape == x.shape
        assert state.energy.shape == state.step_size.shape == lead
        assert (
            info.accepted.shape == info.log_accept.shape == lead
            and info.accepted.dtype == torch.bool
        )
        assert (info.log_accept <= 0).all()


@EVERY
def test_batches_of_any_shape(name):
    case, gen, energy = CASES[name](), generator(2), gaussian()
    x = exact(name, 6, gen)
    lead = (*x.shape[:-3], 2, 3)
    state = case.kernel.init(x.view(*lead, 5, 3), energy)
    for _ in range(3):
        state, info = case.kernel.step(state, energy, gen)
    assert state.x.shape == (*lead, 5, 3) and info.accepted.shape == lead


@EVERY
def test_cached_energy_and_gradient_are_those_of_the_position(name):
    case, gen, energy = CASES[name](), generator(3), gaussian()
    state = case.kernel.init(exact(name, 20, gen), energy)
    for _ in range(6):
        state, _ = case.kernel.step(state, energy, gen)
    value, grad = energy.value_and_grad(state.x)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.grad, grad)


@EVERY
def test_same_generator_same_chain(name):
    case, energy = CASES[name](), gaussian()
    start = exact(name, 8, generator(4))

    def play(seed):
        gen, state = generator(seed), case.kernel.init(start, energy)
        for _ in range(4):
            state, _ = case.kernel.step(state, energy, gen)
        return state.x

    before = torch.random.get_rng_state()
    assert torch.equal(play(5), play(5))
    assert not torch.equal(play(5), play(6))
    assert torch.equal(
        torch.random.get_rng_state(), before
    )  # nothing was drawn from the global stream


@EVERY
def test_states_are_never_changed_in_place(name):
    case, gen, energy = CASES[name](), generator(6), gaussian()
    x = exact(name, 8, gen)
    copy = x.clone()
    state = case.kernel.init(x, energy)
    for _ in range(4):
        kept = [t.clone() for t in tensors(state)]
        new, _ = case.kernel.step(state, energy, gen)
        assert all(torch.equal(a, b) for a, b in zip(tensors(state), kept, strict=True))
        state = new
    assert torch.equal(x, copy)


@pytest.mark.parametrize(
    "name", sorted(set(CASES) - {"Cycle", "ReplicaExchange"})
)  # they report on a part
def test_a_rejected_chain_stays_where_it_was(name):
    case, gen, energy = CASES[name](), generator(7), gaussian()
    state = case.kernel.init(exact(name, 200, gen), energy)
    for _ in range(3):
        new, info = case.kernel.step(state, energy, gen)
        moved = (new.x != state.x).flatten(1).any(1)
        assert torch.equal(moved, info.accepted)
        state = new


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name, dtype):
    case, gen, energy = CASES[name](), generator(8), gaussian().to(dtype)
    state = case.kernel.init(exact(name, 5, gen).to(dtype), energy)
    for _ in range(2):
        state, info = case.kernel.step(state, energy, gen)
    assert {state.x.dtype, state.energy.dtype, state.grad.dtype, state.step_size.dtype} == {dtype}
    assert info.log_accept.dtype == dtype


@EVERY
def test_evaluations_per_step(name):
    case, gen = CASES[name](), generator(9)
    energy = Counted(gaussian())
    x = exact(name, 8, gen)
    state = case.kernel.init(x, energy)
    before = energy.counts["other"].gradient
    for _ in range(3):
        state, _ = case.kernel.step(state, energy, gen)
    made = energy.counts["other"].gradient - before
    assert made == 3 * case.gradients * x.shape[:-2].numel()


class Poisoned(Energy):
    """A Gaussian that is not finite where the first point is far out: NaN, infinite, or NaN in the
    gradient."""

    event_shape = (5, 3)

    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = gaussian(), kind

    def forward(self, x):
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x):
        value, grad = self.inner.value_and_grad(x)
        out = ~(x[..., 0, :].square().sum(-1) < 0.6)
        if self.kind != "gradient":
            value = value.masked_fill(out, {"nan": torch.nan, "inf": torch.inf}[self.kind])
        return value, grad.masked_fill(out[..., None, None], torch.nan)


@EVERY
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_what_is_not_finite_is_rejected_and_stays_out(name, kind):
    case, gen, energy = CASES[name](), generator(10), Poisoned(kind)
    x = exact(name, 300, gen)
    x[..., 0, :] *= 0.1
    state = case.kernel.init(x, energy)
    rejected = 0
    for _ in range(10):
        state, info = case.kernel.step(state, energy, gen)
        assert all(torch.isfinite(t).all() for t in tensors(state) if t.is_floating_point())
        assert (state.x[..., 0, :].square().sum(-1) < 0.6).all()
        never = info.log_accept == -torch.inf
        assert not (info.accepted & never).any()
        rejected += int(never.sum())
    if case.proposes and name not in (
        "ApproximateOrbitMove",
        "TorsionMove",
        "MixtureMove",
    ):  # those keep point 0 near
        assert rejected > 0


class Springs(Energy):
    """``½ Σ|x_i - x̄|²``: a Gaussian in the 3(N-1) dimensions of zero centre of mass."""

    event_shape, zero_com = (5, 3), True

    def value_and_grad(self, x):
        centred = x - x.mean(-2, keepdim=True)
        return 0.5 * centred.square().sum((-1, -2)), centred

    def forward(self, x):
        return self.value_and_grad(x)[0]


@EVERY
def test_the_centroid_stays_where_the_energy_ignores_it(name):
    case, gen, energy = CASES[name](), generator(11), Springs()
    x = exact(name, 1000, gen) if name == "KeepStereo" else exact(name, 1000, gen).sign() * 0.5
    x = (
        x
        - x.mean(-2, keepdim=True)
        + (0.0 if name in ("OrbitMove", "ApproximateOrbitMove") else 2.0)
    )
    state = case.kernel.init(x, energy)
    for _ in range(2 * case.steps):
        state, _ = case.kernel.step(state, energy, gen)
    assert (state.x.mean(-2) - x.mean(-2)).abs().max() < 1e-10
    if hasattr(state, "momentum"):
        assert state.momentum.sum(-2).abs().max() < 1e-10
    if name in ("OrbitMove", "ApproximateOrbitMove", "TorsionMove", "MixtureMove"):
        return  # these alone reach only a part of the space
    # Equipartition in 3(N-1) = 12 dimensions, from a start that is not in equilibrium.
    value = (state.energy * LADDER[:, None]).mean(0) if name == "ReplicaExchange" else state.energy
    assert (value.mean() - 6.0).abs() < 4 * 6**0.5 / len(value) ** 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("where", ["cuda", "cpu"])
@EVERY
def test_on_a_gpu_with_a_generator_of_either_device(name, where):
    case, energy = CASES[name](), gaussian().cuda()
    gen = torch.Generator(device=where).manual_seed(0)
    state = case.kernel.init(exact(name, 50, generator(12)).cuda(), energy)
    for _ in range(5):
        state, info = case.kernel.step(state, energy, gen)
    assert all(t.is_cuda for t in tensors(state) + tensors(info))
    value, grad = energy.value_and_grad(state.x)
    torch.testing.assert_close(state.energy, value)
    torch.testing.assert_close(state.grad, grad)
