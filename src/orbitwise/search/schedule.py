"""From a prior to an energy in levels: the path, its inverse temperatures and step sizes, and the
pilot run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.search.base import Kernel, State
from orbitwise.search.clean import Clean, Overlaid, supported
from orbitwise.search.hmc import HMC
from orbitwise.search.mala import MALA
from orbitwise.search.metropolis import initial_step, per_chain
from orbitwise.search.prior import Prior
from orbitwise.search.weights import effective, normalised, systematic

# Kernels that leave exp(-U) exactly invariant from any state, with nothing carried over between
# energies.
EXACT = (MALA, HMC)


class AnnealingPath(Overlaid):
    """``U_β = (1-β) U_prior + β U`` (Neal 2001, eq. 3); ``beta`` may be replaced at any time.

    ``beta``: a number, or a tensor of the shape of the batch. ``prior`` is normalised or says its
    ``log_z``.
    """

    def __init__(self, energy: Energy, prior: Prior, beta: float | Tensor = 1.0):
        super().__init__(energy)
        self.prior, self.beta = prior, beta

    def forward(self, x: Tensor) -> Tensor:
        return (1.0 - self.beta) * self.prior(x) + self.beta * self.inner(x)

    def overlay(self, x: Tensor, clean: Clean) -> tuple[Tensor, Tensor]:
        value, grad = self.prior.value_and_grad(x)
        beta = torch.as_tensor(self.beta, dtype=value.dtype, device=value.device).expand_as(value)
        beta_x = per_chain(beta, x)
        # Not lerp, which makes inf - inf of an energy that is not finite.
        mixed = (1.0 - beta) * value + beta * clean.energy
        return mixed, (1.0 - beta_x) * grad + beta_x * clean.grad

    def state(self, x: Tensor, clean: Clean, step_size: Tensor) -> State:
        """A chain of MALA or HMC that goes on at ``x`` under the present β: no evaluation."""
        return State(x, *self.overlay(x, clean), step_size)


@dataclass(frozen=True, eq=False)
class Schedule:
    """``betas: (L,)`` ascending, the last 1 (the prior, β = 0, is not one of them), and the frozen
    ``step_size: (L,)`` of each level; float64. Raises ``InputError`` for anything else."""

    betas: Tensor
    step_size: Tensor

    def __post_init__(self):
        check_betas(self.betas)
        if self.step_size.shape != self.betas.shape or not (self.step_size > 0).all():
            raise InputError("a schedule needs one positive step size for each level")

    def __len__(self) -> int:
        return len(self.betas)

    def with_levels(self, levels: int) -> Schedule:
        """The same path in ``levels`` levels: equal shares of the old levels, geometric within
        each.

        Levels placed at equal effective sizes stay at equal ones. Step sizes are interpolated.
        """
        old = len(self.betas)
        at = torch.arange(1, levels + 1, dtype=torch.float64) * old / levels
        low = (at.ceil().long() - 1).clamp(0, old - 1)
        share = at - low
        log_beta, log_step = self.betas.log(), self.step_size.log()
        previous = (low - 1).clamp_min(0)
        betas = torch.exp(log_beta[previous] + share * (log_beta[low] - log_beta[previous]))
        # Nothing is geometric between 0 and the first level.
        betas = torch.where(low == 0, share * self.betas[0], betas)
        betas[-1] = 1.0
        step = torch.exp(log_step[previous] + share * (log_step[low] - log_step[previous]))
        return Schedule(betas, step)


def check_betas(betas: Tensor) -> None:
    if (
        betas.ndim != 1
        or not len(betas)
        or betas[0] <= 0
        or (betas.diff() <= 0).any()
        or betas[-1] != 1
    ):
        raise InputError(
            "annealing needs inverse temperatures (L,) that ascend from above 0 to exactly 1"
        )


def pilot(
    energy: Energy,
    prior: Prior,
    kernel: Kernel,
    *,
    chains: int = 64,
    steps: int = 4,
    betas: Tensor | None = None,
    cess: float = 0.8,
    max_levels: int = 2000,
    generator: torch.Generator | None = None,
) -> Schedule:
    """A trial run over all levels that finds step sizes, and levels where ``betas`` is None.

    Each next level is where the conditional effective sample size (Zhou, Johansen and Aston 2016,
    arXiv 1303.3123, eq. 14) falls to ``cess`` of the chains; they are resampled at once and make
    ``steps`` steps there (four times as many at the first level), in which log h follows the
    acceptance (Robbins-Monro). Costs ``chains · (1 + steps · (levels + 3))`` evaluations for MALA,
    for HMC times its leapfrog steps. Nothing of it enters an estimate. Raises ``EnergyError`` where
    no start has a finite energy and ``InputError`` for more than ``max_levels`` levels.
    """
    if not 0 < cess < 1:
        raise InputError(f"the conditional effective size must lie between 0 and 1, got {cess}")
    check_path(energy, prior, kernel)
    x = prior.sample((chains,), generator=generator)
    clean = supported(Clean(*energy.value_and_grad(x)))
    if not torch.isfinite(clean.energy).any():
        raise EnergyError(
            "no sample of the prior has a finite energy; choose another prior (wider, or nearer)"
        )

    path = AnnealingPath(energy, prior)
    log_step = torch.tensor(float(kernel.step_size), dtype=torch.float64).log()
    beta, found, sizes = 0.0, [], []
    while beta < 1.0:
        delta = drop(prior, x, clean)
        if betas is not None:
            following = betas[len(found)].item()
        else:
            following = min(1.0, beta + widest(delta, cess, 1.0 - beta))
        log_weight = -(following - beta) * delta
        beta = following
        if effective(log_weight) > 0:
            index = systematic(normalised(log_weight), chains, generator)
            x, clean = x[index], Clean(clean.energy[index], clean.grad[index])
        path.beta = beta
        state = path.state(x, clean, initial_step(1.0, clean.energy))
        log_step, average, state, clean = _adapt(
            kernel,
            path,
            state=state,
            clean=clean,
            log_step=log_step,
            steps=steps if found else 4 * steps,
            generator=generator,
        )
        x = state.x
        found.append(beta)
        sizes.append(average)
        if len(found) > max_levels:
            raise InputError(
                f"more than {max_levels} levels and only at β = {beta:.3g}; choose a prior nearer"
                " to the target, or a lower cess"
            )
    return Schedule(torch.tensor(found, dtype=torch.float64), torch.stack(sizes).exp())


def check_path(energy: Energy, prior: Prior, kernel: Kernel) -> None:
    """Raises ``InputError`` where kernel, prior and energy do not fit together."""
    if not isinstance(kernel, EXACT):
        raise InputError(
            "annealing needs a kernel with a Metropolis test and no memory, MALA or HMC; got "
            f"{type(kernel).__name__}, which would leave log Z biased"
        )
    if not isinstance(prior, Prior) or prior.log_z is None:
        raise InputError(
            "the prior needs samples and a known normaliser: GaussianPrior, GaussianMixture, ..."
        )
    if tuple(prior.event_shape) != tuple(energy.event_shape):
        raise InputError(
            f"a prior over {prior.event_shape} does not fit an energy over {energy.event_shape}"
        )
    if getattr(prior, "zero_com", False) != energy.zero_com:
        raise InputError(
            f"the energy {'ignores' if energy.zero_com else 'sees'} a common shift of all points: "
            f"the prior needs zero_com={energy.zero_com}"
        )


def drop(prior: Prior, x: Tensor, clean: Clean) -> Tensor:
    """``U - U_prior``, ``(C,)`` float64: what a step in β is weighted by."""
    return clean.energy.double() - prior.value_and_grad(x)[0].double()


def widest(delta: Tensor, cess: float, room: float, weight: Tensor | None = None) -> float:
    """The widest step in β ≤ ``room`` that keeps the conditional effective size at ``cess``, by
    bisection; ``weight: (C,)`` that the chains have already, in any unit."""
    finite = torch.isfinite(delta)
    weight = torch.ones_like(delta) if weight is None else weight
    delta, log_share = delta[finite], (weight / weight[finite].sum())[finite].log()
    delta = delta - delta.min()

    def kept(step: float) -> float:
        first = (log_share - step * delta).logsumexp(0)
        second = (log_share - 2 * step * delta).logsumexp(0)
        return (2 * first - second).exp().item()

    if kept(room) >= cess:
        return room
    low, high = -80.0, torch.tensor(room, dtype=torch.float64).log().item()
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high) if kept(torch.tensor(middle).exp().item()) >= cess else (low, middle)
        )
    return torch.tensor(low, dtype=torch.float64).exp().item()


def _adapt(
    kernel: Kernel,
    path: AnnealingPath,
    state: State,
    clean: Clean,
    log_step: Tensor,
    steps: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, State, Clean]:
    """``steps`` steps at one level: the last log h, its average over the second half, and where the
    chains are."""
    target = kernel.target_acceptance
    gain, total, counted = (target * (1 - target)) ** -0.5, torch.zeros_like(log_step), 0
    for n in range(1, steps + 1):
        h = torch.full_like(state.step_size, log_step.exp().item())
        state, info = kernel.step(replace(state, step_size=h), path, generator)
        clean = clean.update(info.accepted, path.last)
        acceptance = info.log_accept.double().exp().mean()
        log_step = log_step + (gain * n**-0.6 * (acceptance - target)).clamp(-1, 1).to(log_step)
        if 2 * n > steps:
            total, counted = total + log_step, counted + 1
    return log_step, total / counted, state, clean
