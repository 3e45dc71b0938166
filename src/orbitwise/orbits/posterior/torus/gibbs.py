"""Periodic translations times all permutations within species, where these are too many to
enumerate: Gibbs sampling and the mode, on the nodes of ``torus.exact``.

Given a permutation the posterior of the shift is a sum over N nodes per axis, and the nodes τ_j are
the same for all permutations (``torus.permutations``). So the permutations of the posterior
are those of the finite law

    P(π, j) ∝ Π_axes exp F_π(j),      F_π(j) = Σ_i T_iπ(i)(j),      T_ik(j) = log WN(x_t,i - x_1,k -
    τ_j; σ),

whose two conditionals are simple: the nodes given π are independent, one softmax per axis; π given
the nodes has the law of a matching. Everything is looked up in the table T, made once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from orbitwise.errors import NoClosedFormError
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.torus import PeriodicTranslation, wrapped_normal
from orbitwise.orbits.posterior import dispatch
from orbitwise.orbits.posterior.permutations import (
    CHAINS,
    Transpositions,
    allowed_pairs,
    assign,
    log_order,
    matching_bound,
)
from orbitwise.orbits.posterior.question import Question, Sampling
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.orbits.posterior.sums import MEMORY, categorical
from orbitwise.orbits.posterior.torus.exact import Axes

_STARTS = 32  # alignments of one atom with another that a search begins with,
_KEPT = 8  # how many of them it goes on with,
_ROUNDS = 4  # and how often it takes assignment and nodes in turn
_BURNT = 4  # sweeps before the kept ones whose states are listed


@dispatch.gibbs.register
def gibbs_torus(group: Product, question: Question, sampling: Sampling) -> OrbitPosterior:
    """8 chains that alternate an exact draw of the nodes given the permutation with a sweep over
    all transpositions given the nodes; ``proposals`` kept states in all, after a quarter of that
    number thrown away. What the search (as for the mode) and the discarded sweeps have found makes
    a list; a state on the list is drawn anew from the list, by exact evidence. So chains jump
    between assignments that are far apart.

    The score is Rao-Blackwellised twice: over the shift, by the exact torus posterior of every kept
    permutation; and for a permutation on the list, over the list. Where the list holds all that
    matters (small noise) it is exact.

    Biased by what is neither on the list nor reached by transpositions: most where the noise is
    near half the distance of equal atoms. Draws: one of the kept permutations, then the exact
    posterior of the shift. ``log_evidence`` is a lower bound, the highest of: the exact evidence of
    the list; and for each chain, with q the mean law of its nodes and P its marginals, H(q) + the
    Bethe functional of P at E_q T (Jensen's inequality, then as for ``gibbs_permutation``).
    """
    torus, permutations = _factors(group, "gibbs")
    axes, sweeps = Axes(torus, question), -(-sampling.proposals // CHAINS)
    tables = _tables(axes, permutations, question)
    parts = [_run(table, sweeps, sampling.generator) for table in tables]
    score, kept, bound = (torch.cat(part) for part in zip(*parts, strict=True))
    kept = kept.movedim(0, 1)
    kept = kept.reshape(len(kept), *axes.batch, kept.shape[-1])

    def draw(K: int, gen: torch.Generator | None) -> tuple[Tensor, ...]:
        where = kept.device if gen is None else gen.device
        pick = torch.randint(len(kept), (K, *axes.batch, 1), generator=gen, device=where).to(
            kept.device
        )
        chosen = kept.gather(0, pick.expand(*pick.shape[:-1], kept.shape[-1])).long()
        given = dispatch.exact(torus, question.about(permutations.act(chosen, question.x1)))
        return _element(group, given.sample(1, gen)[0], chosen[..., : permutations.n])

    log_evidence = bound - question.x1.shape[-1] * axes.log_nodes().squeeze(-1)
    return axes.result(log_evidence, axes.without_mean(score.mT), "gibbs", draw)


def mode_torus_permutations(group: Product, question: Question) -> OrbitPosterior:
    """The best permutation and shift that a search finds: 32 alignments of an atom with an equal
    one (the rarest species first), each with its Hungarian assignment; of the best 8 assignment and
    nodes in turn; the best one's shift then climbs to its mode. A local optimum, most likely the
    mode where σ is well below the distance of atoms.
    """
    torus, permutations = _factors(group, "mode")
    axes, parts = Axes(torus, question), []
    for table in _tables(axes, permutations, question):
        found, nodes = table.search()
        best = table.height(found).argmax(0)[None, :, None]
        parts.append([v.gather(0, best.expand(1, *v.shape[1:]))[0] for v in (found, nodes)])
    found, nodes = (torch.cat(part) for part in zip(*parts, strict=True))
    found = found.reshape(*axes.batch, found.shape[-1])
    given = Axes(torus, question.about(permutations.act(found, question.x1)))
    shift = given.climb(axes.nodes().gather(-1, nodes.unsqueeze(-1)).squeeze(-1))
    log_density, score = given.at(shift)
    element = _element(group, given.element(shift), found[..., : permutations.n])

    def draw(K: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        return tuple(part.expand(K, *part.shape).clone() for part in element)

    return given.result(log_density, score, "mode", draw)


def _run(
    table: _Table, sweeps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Score ``(R, N, D)`` before its mean is taken away, kept states ``(R, S, N)``, lower bound
    ``(R)``."""
    known = _List(table, table.search()[0])
    state, seen = known.draw(CHAINS, generator), []
    for _ in range(sweeps // 4 + 1):
        state = _sweep(table, state, generator).state
        seen.append(state)
    known = _List(table, torch.cat([known.members, *seen[-_BURNT:]]))
    score, law = torch.zeros_like(known.score), torch.zeros_like(table.law(state))
    marginals, kept = torch.zeros(()).to(score), []
    for _ in range(sweeps):
        listed = known.holds(state).unsqueeze(-1)
        state = torch.where(listed, known.draw(CHAINS, generator), state)
        chain = _sweep(table, state, generator)
        state = chain.state
        own = torch.where(known.holds(state)[..., None, None], known.score, table.score(state))
        kept.append(state.to(torch.int16))
        score, law = score + own.mean(0), law + table.law(state)
        marginals = marginals + chain.marginals
    law, marginals = law / sweeps, marginals / marginals.sum(-1, keepdim=True)
    mean_logits = torch.einsum("krdj,rdjp->krp", law, table.log).view(marginals.shape)
    bound = matching_bound(
        marginals, mean_logits.masked_fill(~table.allowed, -math.inf), table.allowed
    )
    bound = (bound - torch.xlogy(law, law).sum((-2, -1))).amax(0)
    return score / sweeps, torch.cat(kept).movedim(1, 0), bound.maximum(known.log_evidence)


def _sweep(table: _Table, state: Tensor, generator: torch.Generator | None) -> Transpositions:
    """Nodes given the permutation, then a sweep of transpositions given the nodes."""
    law = table.law(state)
    nodes = categorical(law.flatten(0, -2).mT, 1, generator).view(law.shape[:-1])
    chain = Transpositions(table.logits(nodes), state, generator)
    chain.sweep()
    return chain


class _List:
    """Distinct permutations ``members: (S, R, N)`` (repeats weigh nothing), their weights among
    each other, evidence ``(R)`` and mean score ``(R, N, D)``."""

    def __init__(self, table: _Table, members: Tensor):
        self.members, self._keys = members, _keys(members)
        again = (self._keys.unsqueeze(1) == self._keys).movedim(-1, 0).tril(-1).any(-1).mT
        value = table.log_evidence(members).masked_fill(again, -math.inf)
        self.log_evidence, self.weights = torch.logsumexp(value, 0), torch.softmax(value, 0)
        parts = zip(self.weights.split(CHAINS), members.split(CHAINS), strict=True)
        self.score = reduce(
            torch.add,
            (torch.einsum("sr,srnd->rnd", weight, table.score(part)) for weight, part in parts),
        )

    def draw(self, K: int, generator: torch.Generator | None) -> Tensor:
        pick = categorical(self.weights, K, generator).unsqueeze(-1)
        return self.members.gather(0, pick.expand(*pick.shape[:-1], self.members.shape[-1]))

    def holds(self, state: Tensor) -> Tensor:
        """Whether states ``(K, R, N)`` are on the list, ``(K, R)``."""
        return (_keys(state).unsqueeze(1) == self._keys).any(1)


def _keys(state: Tensor) -> Tensor:
    """A number for each permutation, equal for equal ones (and for others by a chance of 2⁻⁶⁴)."""
    gen = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (state.shape[-1],), generator=gen)
    return (state * factors.to(state.device)).sum(-1)


class _Table:
    """The table T of some items, ``log: (R, D, J, N²)``, 0 on padded rows, and its derivative.

    States are permutations ``(S, R, N)``, nodes ``(S, R, D)``, for any number S at once.
    """

    def __init__(self, axes: Axes, rows: Tensor, allowed: Tensor, difference: Tensor):
        points, nodes = axes.r.shape[-1], axes.nodes()[rows]
        self.allowed, self.real, self.n = allowed, axes.real[rows, 0], axes.n[rows]
        self.spare = torch.arange(points, device=rows.device) >= self.n.unsqueeze(-1)  # (R, 1, J)
        u = difference.flatten(1, 2).mT.unsqueeze(-2) - nodes.unsqueeze(-1)  # (R, D, J, N²)
        real = self.real.repeat_interleave(points, -1)[:, None, None]
        pieces = torch.arange(len(rows)).split(max(1, axes.chunk // u[0].numel()))
        kernels = [
            wrapped_normal(u[piece], axes.sigma[rows[piece], :, None, None]) for piece in pieces
        ]
        log_density, score = (torch.cat(part) for part in zip(*kernels, strict=True))
        self.log = torch.where(real, log_density, 0.0)
        by_pair = (len(rows) * points**2, u.shape[1] * points)
        self.log_of_pair = self.log.flatten(1, 2).mT.reshape(by_pair)
        self.score_of_pair = torch.where(real, score, 0.0).flatten(1, 2).mT.reshape(by_pair)
        steps = (difference - axes.start[rows, None, None]) * self.n.unsqueeze(-1)[..., None]
        self.nearest = (
            steps.round().remainder(self.n.unsqueeze(-1)[..., None]).long()
        )  # τ = difference: its node
        self.log_order = log_order(allowed)

    def log_f(self, state: Tensor) -> Tensor:
        """``F: (S, R, D, J)``, -inf where there is no such node."""
        total = torch.nn.functional.embedding_bag(
            self._pairs(state).flatten(0, 1), self.log_of_pair, mode="sum"
        )
        points = state.shape[-1]
        return total.view(*state.shape[:2], -1, points).masked_fill(self.spare, -math.inf)

    def law(self, state: Tensor) -> Tensor:
        """P(j | π), ``(S, R, D, J)``."""
        return torch.softmax(self.log_f(state), -1)

    def score(self, state: Tensor) -> Tensor:
        """Of the exact torus posterior given the permutation, ``(S, R, N, D)``, before its mean is
        taken away."""
        law = self.law(state)
        found = self.score_of_pair[self._pairs(state)].unflatten(-1, law.shape[-2:])
        return torch.einsum("srdj,srndj->srnd", law, found)

    def _pairs(self, state: Tensor) -> Tensor:
        rows, points = state.shape[1:]
        return torch.arange(rows * points, device=state.device).view(rows, points) * points + state

    def log_evidence(self, state: Tensor) -> Tensor:
        """Of one permutation each, with its Haar weight, ``(S, R)``; up to ``D log_nodes``."""
        return torch.logsumexp(self.log_f(state), -1).sum(-1) - self.log_order

    def height(self, state: Tensor) -> Tensor:
        """log P of the best nodes, ``(S, R)``."""
        return self.log_f(state).amax(-1).sum(-1)

    def logits(self, nodes: Tensor) -> Tensor:
        """The law of the permutation given the nodes, ``(S, R, N, N)``."""
        rows, axes = (torch.arange(size, device=nodes.device) for size in nodes.shape[1:])
        total = self.log[rows.unsqueeze(-1), axes, nodes].sum(2)
        total = total.reshape(*total.shape[:-1], *self.allowed.shape[1:])
        return total.masked_fill(~self.allowed, -math.inf)

    def search(self) -> tuple[Tensor, Tensor]:
        """Good permutations ``(S, R, N)`` and their best nodes ``(S, R, D)``, some of them
        equal."""
        points = self.real.shape[-1]
        classes = self.allowed.sum(-1, keepdim=True).expand_as(self.allowed)
        useful = self.allowed & self.real.unsqueeze(-1)
        order = torch.where(useful, classes, points + 1).flatten(1).sort(dim=1, stable=True)
        pairs = torch.where(order.values <= points, order.indices, order.indices[:, :1])[
            :, :_STARTS
        ]
        nodes = self.nearest.flatten(1, 2).gather(
            1, pairs.unsqueeze(-1).expand(-1, -1, self.nearest.shape[-1])
        )
        first = assign(self.logits(nodes.movedim(1, 0)))
        top = self.height(first).topk(min(_KEPT, len(first)), 0).indices.unsqueeze(-1)
        state = first.gather(0, top.expand(*top.shape[:-1], points))
        for _ in range(_ROUNDS - 1):
            state = assign(self.logits(self.log_f(state).argmax(-1)))
        found = torch.cat([state, first])
        return found, self.log_f(found).argmax(-1)


def _tables(axes: Axes, permutations: Permutation, question: Question) -> Iterator[_Table]:
    """The tables of all items, as many at a time as ``MEMORY`` holds."""
    x1, xt = question.x1, question.xt
    points, dim = x1.shape[-2:]
    allowed = (
        allowed_pairs(permutations, question.mask, xt)
        .expand(*axes.batch, points, points)
        .reshape(-1, points, points)
    )
    difference = (xt.unsqueeze(-2) - x1.unsqueeze(-3)).reshape(-1, points, points, dim)
    step = max(1, MEMORY // (8 * dim * points**2 * (4 * points + 4 * _STARTS)))
    for rows in torch.arange(len(difference), device=x1.device).split(step):
        yield _Table(axes, rows, allowed[rows], difference[rows])


def _factors(group: Product, method: str) -> tuple[PeriodicTranslation, Permutation]:
    """The two factors, whatever their order; ``NoClosedFormError`` for other groups."""
    by_axis = {factor.axis: factor for factor in group.factors}
    torus, permutations = by_axis.get("space"), by_axis.get("points")
    if not isinstance(torus, PeriodicTranslation) or not isinstance(permutations, Permutation):
        raise NoClosedFormError(
            f"method={method!r} over a product is for PeriodicTranslation × Permutation (any number"
            f" of them, labels per item too), not for {group!r}; use method='exact' where a factor"
            " can be enumerated, or 'snis'"
        )
    return torus, permutations


def _element(group: Product, shift: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    return tuple(shift if isinstance(f, PeriodicTranslation) else table for f in group.factors)
