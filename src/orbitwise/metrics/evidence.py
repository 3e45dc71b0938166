"""How good a sampler's paths are: ELBO, EUBO, log Z, effective sample size, from log importance
weights.

With ``log w = -U(x_1) + log P_B(path | x_1) - log P_F(path)`` for a path drawn forwards (from the
sampler) or backwards (from a reference sample): ``E_F[w] = Z``, ``E_F[log w] = ELBO ≤ log Z ≤ EUBO
= E_B[log w]`` (Blessing et al., arXiv 2406.07423). A zero-centre-of-mass sampler counts every term
in 3(N-1) dimensions; nothing here can see whether that was done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError

_BLOCKS, _RESAMPLES = 1000, 400


@dataclass(frozen=True)
class Evidence:
    """Bounds and estimates of log Z in nats, each with one standard error; None where nothing is
    known.

    ``paths``, ``reference_paths``: how many; ``elbo``, ``eubo`` and ``gap = eubo - elbo``: lower
    and upper bound; ``log_z = log mean w`` over forward paths; ``log_z_bridge``: Bennett's estimate
    from both sets, with their ``overlap`` (0 disjoint .. 1 equal). ``ess``: Kish's effective sample
    size over n, from forward paths; ``ess_backward``: the same quantity from paths that start at
    reference samples, which sees the modes that the sampler misses. ``largest_share``: largest
    weight over the sum; ``pareto_k``: tail index of the weights (None below 25 paths);
    ``zero_weights``: paths that ended at infinite energy. ``cautions``: in words, why a number is
    not to be trusted; empty when nothing speaks against it.
    """

    paths: int
    elbo: float
    elbo_error: float
    log_z: float
    log_z_error: float
    ess: float
    ess_error: float
    largest_share: float
    pareto_k: float | None
    zero_weights: int
    reference_paths: int = 0
    eubo: float | None = None
    eubo_error: float | None = None
    gap: float | None = None
    gap_error: float | None = None
    log_z_bridge: float | None = None
    log_z_bridge_error: float | None = None
    overlap: float | None = None
    ess_backward: float | None = None
    log_z_true: float | None = None
    cautions: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """No caution applies to the importance-weighted log Z and ESS."""
        return not self.cautions

    def lines(self) -> list[str]:
        """The same in a few lines of text, for a terminal."""
        out = [f"ELBO {_pm(self.elbo, self.elbo_error)} ({self.paths:,} paths)"]
        if self.eubo is not None:
            out.append(
                f"EUBO {_pm(self.eubo, self.eubo_error)} ({self.reference_paths:,} reference paths)"
            )
            out.append(f"gap EUBO - ELBO {_pm(self.gap, self.gap_error)}")
        out.append(f"log Z, importance-weighted {_pm(self.log_z, self.log_z_error)}")
        if self.log_z_bridge is not None:
            out.append(
                f"log Z, bridge of both sets {_pm(self.log_z_bridge, self.log_z_bridge_error)} "
                f"(overlap {self.overlap:.3g})"
            )
        if self.log_z_true is not None:
            out.append(f"log Z, exact {self.log_z_true:.3f}")
        back = (
            ""
            if self.ess_backward is None
            else f"; from reference paths {100 * self.ess_backward:.3g} %"
        )
        out.append(
            f"ESS {100 * self.ess:.3g} ± {100 * self.ess_error:.1g} % of the paths, largest weight "
            f"{100 * self.largest_share:.2g} %{back}"
        )
        return out + [f"caution: {text}" for text in self.cautions]


def evidence(
    forward: Tensor,
    backward: Tensor | None = None,
    log_z_true: float | None = None,
    *,
    independent: int | None = None,
    generator: torch.Generator | None = None,
) -> Evidence:
    """Judge a sampler by the log weights of its paths.

    ``forward: (n,)`` log weights of paths that the sampler drew, -inf allowed (infinite energy);
    ``backward: (m,)`` log weights of paths drawn backwards from reference samples; ``independent``:
    how many independent samples the m are worth (default m), which widens the errors of EUBO and
    bridge.

    Errors: of means, the scatter over paths; of ``log_z`` and ``ess``, a bootstrap over at most
    1000 contiguous blocks (``generator``; by default one of its own, so that the result is
    reproducible); of the bridge, Bennett's ``(1/n + 1/m)(1/overlap - 1)`` (J. Comput. Phys. 22,
    245, 1976).

    Raises ``InputError`` for NaN or +inf weights, for fewer than two paths, when every weight is
    zero, and when a reference sample has infinite energy.
    """
    forward = _checked(forward, "forward")
    n = len(forward)
    dead = int(torch.isneginf(forward).sum())
    if dead == n:
        raise InputError(
            f"all {n} paths end at infinite energy, so nothing can be estimated from their weights;"
            " train longer, or look at the samples"
        )

    weight = (forward - forward.max()).exp()
    share = weight / weight.sum()
    log_z = _log_mean_exp(forward)
    ess = 1.0 / (n * float(share.square().sum()))
    log_z_error, ess_error = _bootstrap(weight, generator)
    elbo = float(forward.mean())
    elbo_error = _error_of_mean(forward) if dead == 0 else math.inf
    found = {}
    if backward is not None:
        backward = _checked(backward.to(forward.device), "backward")
        if torch.isneginf(backward).any():
            raise InputError(
                f"{int(torch.isneginf(backward).sum())} of {len(backward)} reference samples have"
                " infinite energy, so they are not samples of this target; check units, order of"
                " the points and energy"
            )
        m = min(len(backward), independent or len(backward))
        eubo = float(backward.mean())
        eubo_error = _error_of_mean(backward) * math.sqrt(len(backward) / m)
        bridge, overlap = _bridge(forward, backward)
        found = {
            "reference_paths": len(backward),
            "eubo": eubo,
            "eubo_error": eubo_error,
            "gap": eubo - elbo,
            "gap_error": math.hypot(elbo_error, eubo_error),
            "log_z_bridge": bridge,
            "log_z_bridge_error": (
                math.sqrt((1 / n + 1 / m) * max(1 / overlap - 1, 0.0)) if overlap > 0 else math.inf
            ),
            "overlap": overlap,
            # E_B[w] E_B[1/w] = E_F[w²] / Z², the inverse of the fraction
            "ess_backward": math.exp(-_log_mean_exp(backward) - _log_mean_exp(-backward)),
        }

    largest, k = float(share.max()), pareto_k(forward)
    told = _cautions(forward, ess, largest, k, log_z, log_z_error, dead, elbo, found)
    return Evidence(
        paths=n,
        elbo=elbo,
        elbo_error=elbo_error,
        log_z=log_z,
        log_z_error=log_z_error,
        ess=ess,
        ess_error=ess_error,
        largest_share=largest,
        pareto_k=k,
        zero_weights=dead,
        log_z_true=log_z_true,
        cautions=told,
        **found,
    )


def pareto_k(log_weights: Tensor) -> float | None:
    """Shape of the generalised Pareto distribution fitted to the largest weights; None below 25 of
    them.

    The mean of the weights has a finite variance below 1/2, is practically usable up to 0.7, and an
    importance-sampling estimate means little above (Vehtari et al., arXiv 1507.02646). Tail of
    min(n/5, 3√n); fit of Zhang and Stephens (Technometrics 51, 316, 2009) with a weak prior, worth
    ten observations of k = 1/2, as there.
    """
    n = len(log_weights)
    size = int(min(0.2 * n, 3 * math.sqrt(n)))
    if size < 5:
        return None
    top = log_weights.double().topk(size + 1).values
    weight = (top - top[0]).exp()
    y = (weight[:-1] - weight[-1]).flip(0)  # exceedances, ascending
    y = y[y > 0]
    if len(y) < 5 or float(y[-1] - y[0]) < 1e-12:
        return -math.inf  # all the same: no tail
    size = len(y)
    grid = 30 + int(math.sqrt(size))
    j = torch.arange(1, grid + 1, dtype=torch.float64, device=y.device)
    quartile = y[int(size / 4 + 0.5) - 1]
    theta = 1 / y[-1] + (1 - (grid / (j - 0.5)).sqrt()) / (3 * quartile)
    shape = torch.log1p(-theta[:, None] * y).mean(1)
    profile = size * ((-theta / shape).log() - shape - 1)  # log-likelihood at the best scale
    best = (theta * profile.softmax(0)).sum()
    k = float(torch.log1p(-best * y).mean())
    return (size * k + 10 * 0.5) / (size + 10)


def _checked(log_weights: Tensor, which: str) -> Tensor:
    if log_weights.ndim != 1 or len(log_weights) < 2:
        raise InputError(
            f"{which} log weights must be (n,) with n of at least 2, got shape"
            f" {tuple(log_weights.shape)}"
        )
    log_weights = log_weights.detach().double()
    bad = int((log_weights.isnan() | log_weights.isposinf()).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(log_weights)} {which} log weights are NaN or +inf; an energy or a"
            " transition density is not defined there, and leaving them out would bias every"
            " estimate"
        )
    return log_weights


def _log_mean_exp(v: Tensor) -> float:
    return float(v.logsumexp(0)) - math.log(len(v))


def _error_of_mean(v: Tensor) -> float:
    return float(v.std()) / math.sqrt(len(v))


def _bootstrap(weight: Tensor, generator: torch.Generator | None) -> tuple[float, float]:
    """Standard errors of log mean w and of the ESS fraction, blocks of contiguous paths drawn with
    replacement."""
    n, blocks = len(weight), min(len(weight), _BLOCKS)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    block = torch.arange(n, device=weight.device) * blocks // n
    sums = torch.stack([torch.ones_like(weight), weight, weight.square()], -1)
    sums = sums.new_zeros(blocks, 3).index_add_(0, block, sums)
    pick = torch.randint(blocks, (_RESAMPLES, blocks), generator=generator, device=generator.device)
    size, first, second = sums[pick.to(sums.device)].sum(1).unbind(-1)
    alive = first > 0  # a resample may miss the only weights that count
    if int(alive.sum()) < 2:
        return math.inf, math.inf
    size, first, second = size[alive], first[alive], second[alive]
    return float((first / size).log().std()), float((first.square() / (size * second)).std())


def _bridge(forward: Tensor, backward: Tensor) -> tuple[float, float]:
    """Bennett's acceptance ratio: the root c = log Z of ``Σ_F s(v) = Σ_B s(-v)``, s the logistic
    function, ``v = log w - c + log(m/n)``; and the overlap ``∫ p q / (a p + b q)`` of the two path
    measures."""
    n, m = len(forward), len(backward)
    v, u = forward + math.log(m / n), backward + math.log(m / n)
    finite = torch.cat([v[v.isfinite()], u])
    low, high = float(finite.min()) - 50.0, float(finite.max()) + 50.0
    for _ in range(200):  # bisection of a monotone function: cannot fail
        c = 0.5 * (low + high)
        if c in (low, high):
            break
        above = float((v - c).sigmoid().sum() - (c - u).sigmoid().sum())
        low, high = (c, high) if above > 0 else (low, c)
    return c, float((v - c).sigmoid().sum()) * (n + m) / (n * m)


def _cautions(forward, ess, largest, k, log_z, log_z_error, dead, elbo, found) -> tuple[str, ...]:
    n = len(forward)
    told = []
    if dead:
        told.append(
            f"{dead} of {n} paths end at infinite energy: the ELBO is -inf, and they count as"
            " weight zero in log Z and ESS"
        )

    if n * ess < 20 or largest > 0.2:
        told.append(
            f"few weights dominate (the largest is {100 * largest:.0f} % of the sum, {n * ess:.1f}"
            " effective paths): the importance-weighted log Z is little more than its largest"
            " weight, its error and the ESS are too optimistic"
        )
    elif k is not None and k > min(0.7, 1 - 1 / math.log10(n)):
        told.append(
            f"the weights have a heavy tail (Pareto k = {k:.2f}): log Z and ESS change with every"
            " new rare path, and their errors are too small"
        )

    if dead == 0:
        square = (forward - elbo).square()
        if float(square.sum()) > 0 and float(square.max() / square.sum()) > 0.3:
            told.append(
                f"one path makes {100 * float(square.max() / square.sum()):.0f} % of the variance"
                " of the ELBO: its error is rough"
            )

    if found:
        spread = math.hypot(log_z_error, found["eubo_error"])
        if log_z > found["eubo"] + 3 * spread:
            told.append(
                "the importance-weighted log Z lies above the EUBO: the reference samples do not"
                " belong to this target, or the weights count different dimensions"
            )
        if found["overlap"] * min(n, found["reference_paths"]) < 20:
            told.append(
                f"forward and reference paths hardly overlap ({found['overlap']:.1e}): the bridge"
                " estimate rests on a few paths"
            )
        if found["ess_backward"] < 0.2 * ess:
            told.append(
                f"reference paths give an ESS of {100 * found['ess_backward']:.2g} %, the sampler's"
                f" own {100 * ess:.2g} %: the sampler misses a part of the target that its own"
                " weights cannot show"
            )
    return tuple(told)


def _pm(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.2g}"
