"""Have the chains mixed, how many independent samples are they worth, and what error does a mean
have?

Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis 16, 667 (2021), arXiv 1903.08008;
equation numbers are theirs. ``chains: (C, T, *D)``: C chains of T draws; everything is batched over
``*D``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.errors import InputError


@dataclass(frozen=True)
class BlockAverage:
    """``mean: (*D)`` and its standard error ``error: (*D)`` from the scatter of block means."""

    mean: Tensor
    error: Tensor


def split_rhat(chains: Tensor) -> Tensor:
    """Rank-normalised split-R̂, the larger of bulk and folded, ``(*D)``. Mixed chains: below 1.01.

    Constant draws give NaN: nothing can be said about them.
    """
    halves = _split(chains)
    folded = (halves - halves.flatten(0, 1).median(0).values).abs()
    return torch.maximum(_rhat(_rank_normal(halves)), _rhat(_rank_normal(folded)))


def effective_sample_size(chains: Tensor) -> Tensor:
    """Effective number of independent draws for the mean, ``(*D)``, at most ``C T log10(C T)``.

    Split chains, autocorrelations by FFT (eq. 10), Geyer's initial monotone positive sequence (eq.
    11-13).
    """
    return _ess(_split(chains))


def rank_effective_sample_size(chains: Tensor) -> Tensor:
    """Bulk-ESS, ``(*D)``: that of the rank-normalised draws, which exists for heavy tails too
    (section 4.3)."""
    return _ess(_rank_normal(_split(chains)))


def statistical_inefficiency(chains: Tensor) -> Tensor:
    """``C T / ESS`` (*D): how many correlated draws make one independent draw."""
    return chains.shape[0] * chains.shape[1] / effective_sample_size(chains)


def block_average(chains: Tensor, blocks: int = 20) -> BlockAverage:
    """Mean over all draws with a standard error from ``blocks`` blocks per chain (Flyvbjerg and
    Petersen, J. Chem. Phys. 91, 461, 1989). Honest once a block is several autocorrelation times
    long; the draws that do not fill a block are left out at the start of each chain."""
    c, t = chains.shape[:2]
    if t < blocks or blocks * c < 2:
        raise InputError(
            f"{c} chains of {t} draws cannot be cut into {blocks} blocks each; ask for fewer blocks"
        )
    size = t // blocks
    means = chains[:, t - size * blocks :].double().reshape(c * blocks, size, *chains.shape[2:])
    means = means.transpose(0, 1).mean(0)
    return BlockAverage(means.mean(0), means.std(0) / (c * blocks) ** 0.5)


def _split(chains: Tensor) -> Tensor:
    """``(C, T, *D)`` -> ``(2C, T//2, *D)`` float64; the middle draw of an odd chain is dropped."""
    if chains.ndim < 2 or chains.shape[0] < 1 or chains.shape[1] < 8:
        raise InputError(
            "chains must be (C, T, ...), at least one, with at least 8 draws each, got shape"
            f" {tuple(chains.shape)}"
        )
    half = chains.shape[1] // 2
    return torch.cat([chains[:, :half], chains[:, -half:]]).double()


def _rank_normal(chains: Tensor) -> Tensor:
    """Replace draws by normal scores of their pooled ranks, ties averaged (eq. 14)."""
    flat = chains.reshape(chains.shape[0] * chains.shape[1], -1)
    ordered = flat.sort(0).values.T.contiguous()
    values = flat.T.contiguous()
    low = torch.searchsorted(ordered, values, right=False)
    high = torch.searchsorted(ordered, values, right=True)
    rank = (low + high + 1).double() / 2
    score = torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25))
    return score.T.reshape(chains.shape)


def _rhat(chains: Tensor) -> Tensor:
    """sqrt(var⁺/W) (eq. 1-4)."""
    n = chains.shape[1]
    within = chains.var(1).mean(0)
    between = chains.mean(1).var(0)
    return (((n - 1) / n * within + between) / within).sqrt()


def _ess(chains: Tensor) -> Tensor:
    c, n = chains.shape[:2]
    centred = chains - chains.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=1)
    covariance = (
        torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=1)[:, :n] / n
    )  # biased, lag 0 .. n-1
    within = chains.var(1).mean(0)
    var_plus = (n - 1) / n * within + chains.mean(1).var(0)
    rho = 1 - (within - covariance.mean(0) * n / (n - 1)) / var_plus  # eq. 10
    rho[0] = 1.0
    pairs = rho[: n - n % 2].unflatten(0, (-1, 2)).sum(1)  # Geyer: ρ_2k + ρ_2k+1 > 0 and decreasing
    alive = (pairs > 0).long().cumprod(0)
    pairs = pairs.cummin(0).values * alive
    tau = (2 * pairs.sum(0) - 1).clamp_min(1 / math.log10(c * n))
    return c * n / tau
