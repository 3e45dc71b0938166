"""Posteriors over large symmetric groups, where the normaliser is a permanent: assignment, Gibbs
sampling.

With L_ij = log p_t(x_t,i | x_1,j) the posterior of a permutation is exp(Σ_i L_{i,g(i)}) / perm(exp
L), and mean and score need only its marginals P_ij = P(g(i) = j): mean_i = Σ_j P_ij x_1,j. Groups
small enough to enumerate have ``method="exact"``; here are ``"mode"``, ``"gibbs"`` and ``"snis"``,
under Gaussian and wrapped-normal noise. With a mask only real points are permuted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.torus import wrapped_normal
from orbitwise.orbits.posterior import dispatch
from orbitwise.orbits.posterior.noise import Gaussian, Wrapped
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import Draw, Method, OrbitPosterior
from orbitwise.orbits.posterior.snis import snis_by_images

CHAINS = 8


@dispatch.mode.register
def mode_permutation(group: Permutation, question: Question) -> OrbitPosterior:
    """The most probable permutation, by the Hungarian algorithm (exact; SciPy, one item after the
    other, on the CPU: it does not batch).

    As a stand-in for the posterior it is biased at every noise level: ``mean`` is the aligned
    sample, not the average over permutations, and ``log_evidence`` is the log density at the mode.
    """
    pairs = _pairs(group, question)
    table = assign(pairs.logits)
    marginals = torch.nn.functional.one_hot(table, table.shape[-1]).double()
    element = table[..., : group.n]
    at_mode = pairs.logits.gather(-1, table.unsqueeze(-1)).sum((-2, -1)) + pairs.constant
    return pairs.result(
        marginals, at_mode, "mode", lambda K, gen: element.expand(K, *element.shape).clone()
    )


@dispatch.gibbs.register
def gibbs_permutation(group: Permutation, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Gibbs sampling over transpositions: 8 chains from the mode, ``proposals`` kept states in all.

    A sweep visits every pair of points once, in rounds of disjoint pairs that are updated together
    (given the pairing their swaps are independent). Marginals are Rao-Blackwellised: each update
    adds its probabilities, not its outcome. A quarter of the kept number of sweeps is thrown away
    first.

    Biased: towards the mode by what the chains have not forgotten (small where the noise is either
    well below or above the distance of neighbouring points; cycles of three and more are the slow
    moves), with the usual Monte-Carlo error of 8 chains. ``log_evidence`` is a lower bound whatever
    the error of the marginals: the Bethe functional Σ P(L - log P) + (1-P) log(1-P) <= log perm(exp
    L) (Gurvits 1106.2844, Schrijver 1998), tight when P is near a permutation and at most N/2 log 2
    low at its maximum (Anari and Rezaei 1811.02933).
    """
    pairs = _pairs(group, question)
    sweeps = -(-sampling.proposals // CHAINS)
    chain = Transpositions(
        pairs.logits[None],
        assign(pairs.logits).expand(CHAINS, *pairs.logits.shape[:-1]),
        sampling.generator,
    )
    for _ in range(sweeps // 4 + 1):
        chain.sweep()
    chain.marginals.zero_()
    states = []
    for _ in range(sweeps):
        chain.sweep()
        states.append(chain.state[..., : group.n].to(torch.int32))
    kept = torch.cat(states)  # (sweeps·chains, *batch, n)
    marginals = chain.marginals.sum(0)
    marginals = marginals / marginals.sum(-1, keepdim=True)
    bound = matching_bound(marginals, pairs.logits, pairs.allowed)

    def draw(K: int, gen: torch.Generator | None) -> Tensor:
        where = kept.device if gen is None else gen.device
        pick = torch.randint(len(kept), (K, *kept.shape[1:-1], 1), generator=gen, device=where)
        return kept.gather(0, pick.to(kept.device).expand(K, *kept.shape[1:])).long()

    return pairs.result(marginals, bound + pairs.constant, "gibbs", draw)


@dispatch.snis.register
def snis_permutation(group: Permutation, question: Question, sampling: Sampling) -> OrbitPosterior:
    """Importance sampling from uniform permutations of the real points; biased, O(1/proposals), and
    of little use where the posterior is much narrower than the group: ``ess`` near 1 says so."""
    mask = question.mask
    return snis_by_images(group if mask is None else group.restricted(mask), question, sampling)


@dataclass(frozen=True)
class _Pairs:
    """``logits: (*L, *B, N, N)`` log density of point i given point j up to ``constant: (*L, *B)``;
    -inf where the group cannot bring j to i (``allowed``). ``lifted: (*L, *B, N, N, D)``: i's mean
    given j."""

    noise: Gaussian | Wrapped
    xt: Tensor
    logits: Tensor
    lifted: Tensor
    constant: Tensor
    allowed: Tensor

    def result(
        self, marginals: Tensor, log_evidence: Tensor, method: Method, draw: Draw
    ) -> OrbitPosterior:
        mean = (marginals.unsqueeze(-2) @ self.lifted).squeeze(-2)
        return OrbitPosterior(
            mean=mean,
            log_evidence=log_evidence,
            score=self.noise.score(mean, self.xt),
            method=method,
            exact=False,
            draw=draw,
        )


def _pairs(group: Permutation, question: Question) -> _Pairs:
    noise, x1, xt, mask = question.noise, question.x1, question.xt, question.mask
    a, b = xt.unsqueeze(-2), x1.unsqueeze(-3)
    if isinstance(noise, Wrapped):
        sigma = noise.sigma[..., None, None, None]
        kernel = wrapped_normal(a - b, sigma)
        logits, lifted = kernel.log_density.sum(-1), a + sigma**2 * kernel.score
    else:
        residual = a - noise.alpha[..., None, None, None] * b
        logits = -0.5 * residual.square().sum(-1) / noise.variance[..., None, None]
        lifted = b.expand(residual.shape)
    # The log density of the whole at the identity fixes what the pairs leave out: normalisation,
    # centring.
    itself = logits.diagonal(dim1=-2, dim2=-1)
    itself = itself if mask is None else torch.where(mask, itself, 0.0)
    constant = noise.log_density(xt, x1) - itself.sum(-1)
    if mask is not None:  # padded points stand for themselves and count for nothing
        logits = torch.where(mask.unsqueeze(-1), logits, 0.0)
    allowed = allowed_pairs(group, mask, xt).expand(logits.shape)
    return _Pairs(
        noise=noise,
        xt=xt,
        logits=logits.masked_fill(~allowed, -torch.inf),
        lifted=lifted,
        constant=constant,
        allowed=allowed,
    )


def allowed_pairs(group: Permutation, mask: Tensor | None, xt: Tensor) -> Tensor:
    """Which point may come to which place, ``(*B, N, N)``: equal labels, both real; each to its
    own."""
    points, device = xt.shape[-2], xt.device
    if points < group.n:
        raise InputError(f"Permutation({group.n}) on {points} points")
    labels = torch.full((*group.labels.shape[:-1], points), -1, device=device)
    labels[..., : group.n] = group.labels
    fixed = labels < 0 if mask is None else (labels < 0) | ~mask
    labels = torch.where(fixed, -1 - torch.arange(points, device=device), labels)
    return labels.unsqueeze(-1) == labels.unsqueeze(-2)


def matching_bound(marginals: Tensor, logits: Tensor, allowed: Tensor) -> Tensor:
    """A lower bound of ``log (perm(exp logits) / number of permutations)``, ``(*S)``: the Bethe
    functional of doubly stochastic ``marginals (*S, N, N)``; ``logits`` are -inf where not
    ``allowed``."""
    p = marginals.clamp(0, 1)
    bound = torch.where(p > 0, p * logits, 0.0) - torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)
    return bound.sum((-2, -1)) - log_order(allowed)


def log_order(allowed: Tensor) -> Tensor:
    """log of the number of permutations within the classes of ``allowed: (*S, N, N)``, ``(*S)``."""
    size = allowed.sum(-1).double()
    return (torch.lgamma(size + 1) / size).sum(-1)


def assign(logits: Tensor) -> Tensor:
    """The permutation ``(*S, N)`` with the largest ``Σ_i logits[i, g(i)]``."""
    from scipy.optimize import (
        linear_sum_assignment,
    )  # at first use: half of the package's import time

    n = logits.shape[-1]
    items = logits.reshape(-1, n, n).cpu().numpy()
    tables = np.stack([linear_sum_assignment(item, maximize=True)[1] for item in items])
    return torch.from_numpy(tables).to(logits.device).reshape(logits.shape[:-1])


class Transpositions:
    """Gibbs sampling of permutations by swaps: ``state (chains, *batch, N)``, changed in place by
    sweeps towards ``exp Σ_i logits[i, state_i]``. ``logits: (chains or 1, *batch, N, N)``;
    ``marginals: (chains, *batch, N, N)`` adds up the probabilities of the swaps, not their
    outcomes."""

    def __init__(self, logits: Tensor, state: Tensor, generator: torch.Generator | None):
        self.logits, self.generator = logits, generator
        self.state = state.clone()
        self.marginals = logits.new_zeros((*state.shape, state.shape[-1]))
        self.rounds = _round_robin(logits.shape[-1]).to(logits.device)

    def sweep(self) -> None:
        """Every pair once."""
        for pairs in self.rounds:
            self._update(pairs[:, 0], pairs[:, 1])

    def _update(self, i: Tensor, k: Tensor) -> None:
        """Swap what stands at i and at k with its conditional probability, for disjoint pairs (i,
        k)."""
        at_i, at_k = self.state[..., i], self.state[..., k]
        gain = (
            self._value(i, at_k)
            + self._value(k, at_i)
            - self._value(i, at_i)
            - self._value(k, at_k)
        )
        alone = i == k  # the point without a partner when N is odd
        q = torch.where(alone, 0.0, gain.sigmoid())
        where = q.device if self.generator is None else self.generator.device
        u = torch.rand(q.shape, generator=self.generator, device=where, dtype=q.dtype).to(q.device)
        for place, own, other, weight in (
            (i, at_i, at_k, q),
            (k, at_k, at_i, torch.where(alone, 1.0, q)),
        ):
            self._count(place, own, 1 - weight)
            self._count(place, other, torch.where(alone, 0.0, q))
            self.state[..., place] = torch.where(u < q, other, own)

    def _value(self, place: Tensor, point: Tensor) -> Tensor:
        rows = self.logits[..., place, :].expand(*point.shape, self.logits.shape[-1])
        return rows.gather(-1, point.unsqueeze(-1)).squeeze(-1)

    def _count(self, place: Tensor, point: Tensor, weight: Tensor) -> None:
        n = self.logits.shape[-1]
        self.marginals.flatten(-2).scatter_add_(-1, place * n + point, weight)


def _round_robin(n: int) -> Tensor:
    """Rounds ``(R, ceil(n/2), 2)`` in which every pair meets once (the circle method); a point
    paired with itself sits out."""
    even = n + n % 2
    ring = torch.arange(1, even)
    rounds = []
    for r in range(max(even - 1, 1)):
        order = torch.cat([torch.zeros(1, dtype=torch.long), ring.roll(r)])
        left, right = order[: even // 2], order.flip(0)[: even // 2]
        rounds.append(
            torch.stack(
                [torch.where(left < n, left, right), torch.where(right < n, right, left)], -1
            )
        )
    return torch.stack(rounds)
