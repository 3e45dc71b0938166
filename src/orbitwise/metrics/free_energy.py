"""Free-energy differences of conformers with errors, from four kinds of evidence, and whether these
agree.

Everything is relative to conformer 0, ΔF_k = -ln(p_k/p_0) in kT, and rests on the variance of that
difference, so that what both populations share does not count twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orbitwise.metrics.mixing import effective_sample_size

ENOUGH = 10.0  # independent samples in both conformers for an error bar; an interval below
LEVEL = 0.95  # of intervals
DISAGREE = 0.01  # chance below which two sets are said not to agree


@dataclass(frozen=True)
class FreeEnergies:
    """Of C conformers: ``population: (C,)``, ``variance: (C,)`` of ΔF in kT² (0 for conformer 0,
    inf where nothing was seen), and how many ``independent`` samples there are in all."""

    population: Tensor
    variance: Tensor
    independent: float

    @property
    def value(self) -> Tensor:
        """ΔF in kT, ``(C,)``; inf where nothing was seen."""
        return self.population[0].log() - self.population.log()

    @property
    def samples(self) -> tuple[Tensor, Tensor]:
        """Independent samples of conformer k, and of conformer 0 beside it, ``(C,)`` each: those N
        p for which multinomial counts have this variance, 1/(N p_k) + 1/(N p_0)."""
        p, first = self.population, self.population[:1]
        total = (1 / p + 1 / first) / self.variance
        total = torch.where(torch.isfinite(total) & (p > 0), total, self.independent)
        return total * p, total * first

    @property
    def resolved(self) -> Tensor:
        """Where there are enough samples for an error bar, ``(C,)``; conformer 0 has none."""
        mine, first = self.samples
        enough = (mine >= ENOUGH) & (first >= ENOUGH) & torch.isfinite(self.variance)
        enough[0] = False
        return enough

    @property
    def error(self) -> Tensor:
        """One standard error in kT ``(C,)``, 0 for conformer 0; NaN where an error bar would be a
        false one."""
        error = torch.where(self.resolved, self.variance.sqrt(), torch.nan)
        error[0] = 0.0
        return error

    def interval(self) -> tuple[Tensor, Tensor]:
        """95 % of ΔF in kT, ``(C,)`` each: Gaussian where resolved, else that of the share k/(k +
        0) of a binomial count (Clopper and Pearson, Biometrika 26, 404, 1934); infinite on the side
        that nothing bounds."""
        from scipy.special import betaincinv

        mine, first = (v.cpu().numpy() for v in self.samples)
        tail = 0.5 * (1 - LEVEL)
        few = torch.as_tensor(betaincinv(mine.clip(1e-12), first + 1, tail)).to(self.variance)
        many = torch.as_tensor(betaincinv(mine + 1, first.clip(1e-12), 1 - tail)).to(self.variance)
        few = torch.where(self.population > 0, few, 0.0)
        many = torch.where(self.population[0] > 0, many, 1.0)
        width = 1.959964 * self.error
        low = torch.where(self.resolved, self.value - width, (1 - many).log() - many.log())
        high = torch.where(self.resolved, self.value + width, (1 - few).log() - few.log())
        low[0] = high[0] = 0.0
        return low, high

    def covariance(self) -> Tensor:
        """``(C, C)``: the variances with the correlations of multinomial counts, where all share
        conformer 0."""
        p, first = self.population, self.population[0]
        scale = (1 / p + 1 / first).rsqrt()
        correlation = ((1 / p).diag() + 1 / first) * scale[:, None] * scale
        return correlation * self.variance.sqrt()[:, None] * self.variance.sqrt()

    def with_share(self, other: FreeEnergies, share: Tensor) -> FreeEnergies:
        """The same with the error of ``other`` added as far as it was inherited, ``share: (C,)`` in
        [0, 1]; what the other has never seen cannot be inherited from it."""
        extra = torch.where(torch.isfinite(other.variance), share.square() * other.variance, 0.0)
        return replace(self, variance=self.variance + extra)


def from_samples(label: Tensor, count: int, log_weights: Tensor | None = None) -> FreeEnergies:
    """Of independent samples with ``label: (n,)`` in [0, count), importance-weighted or alike."""
    n = len(label)
    w = torch.full((n,), 1 / n, dtype=torch.float64, device=label.device)
    w = w if log_weights is None else log_weights.to(label.device).double().softmax(0)
    p = w.new_zeros(count).index_add_(0, label, w)
    square = w.new_zeros(count).index_add_(0, label, w.square())
    # influences 1[k]/p_k - 1[0]/p_0 of the samples on ln(p_k/p_0)
    relative = square / p.square()
    variance = (relative + relative[0]) * n / (n - 1)
    return _made(p, variance, float(1 / w.square().sum()))


def from_chains(label: Tensor, count: int) -> FreeEnergies:
    """Of C chains of S correlated frames, ``label: (S, C)``: the variance of each influence over
    its effective number of frames, autocorrelation and scatter between chains included, at least
    that of as many independent frames."""
    seen = torch.nn.functional.one_hot(label.T, count).double()  # (C, S, K)
    p = seen.mean((0, 1))
    frames = label.numel()
    influence = torch.nan_to_num(seen / p - seen[..., :1] / p[0], nan=0.0, posinf=0.0, neginf=0.0)
    effective = effective_sample_size(influence).nan_to_num(nan=1.0).clamp(1.0, frames)
    variance = influence.square().mean((0, 1)) / effective
    first = effective_sample_size(seen[..., :1]).nan_to_num(nan=1.0).clamp(1.0, frames)
    return _made(p, torch.maximum(variance, (1 / p + 1 / p[0]) / frames), float(first[0]))


def from_blocks(
    label: Tensor, count: int, blocks: Tensor, weight: Tensor | None = None
) -> FreeEnergies:
    """Of samples with ``label: (n,)`` and ``weight: (n,)`` (default alike) of which those of one
    block (``blocks: (n,)``, from 0) belong together: the variance of each influence is that of the
    scatter between blocks, at least that of as many independent samples."""
    n, size = len(label), int(blocks.max()) + 1
    w = torch.full((n,), 1 / n, dtype=torch.float64) if weight is None else weight.double()
    w = (w / w.sum()).to(label.device)
    share = w.new_zeros(size * count).index_add_(0, blocks.to(label.device) * count + label, w)
    share = share.view(size, count)
    p = share.sum(0)
    relative = torch.nan_to_num(share / p, nan=0.0)
    influence = relative - relative[:, :1]  # (B, C), of sum zero
    variance = influence.square().sum(0) * size / max(1, size - 1)

    own = share[:, 0] - share.sum(1) * p[0]
    error = (own.square().sum() * size / max(1, size - 1)).clamp_min(1e-30)
    independent = float((p[0] * (1 - p[0]) / error).clamp(1.0, n))
    return _made(p, torch.maximum(variance, (1 / p + 1 / p[0]) / n), independent)


def from_populations(population: Tensor, error: Tensor) -> FreeEnergies:
    """Of populations with standard errors ``(C,)``, correlated as multinomial counts are."""
    p = population.double()
    one = torch.where(p > 0, error.double() / p, torch.inf)
    odds = (p / (1 - p).clamp_min(1e-12)).sqrt()
    variance = one.square() + one[0].square() + 2 * one * one[0] * odds * odds[0]
    return _made(
        p, variance, float(p[0] * (1 - p[0]) / error[0].double().square().clamp_min(1e-30))
    )


def _made(p: Tensor, variance: Tensor, independent: float) -> FreeEnergies:
    variance = torch.where((p > 0) & (p[0] > 0), variance, torch.inf)
    variance[0] = 0.0
    return FreeEnergies(p, variance, independent)


def memory(start: Tensor, end: Tensor, count: int) -> Tensor:
    """How far the end of the relaxation is still its start: per conformer, the correlation of the
    influences of both labels ``(n,)``, in [0, 1]; starts without a conformer have the label -1."""

    def influence(label: Tensor) -> Tensor:
        seen = torch.nn.functional.one_hot(label + 1, count + 1)[:, 1:].double()
        z = torch.nan_to_num(seen / seen.mean(0), nan=0.0)
        z = z - z[:, :1]
        return z - z.mean(0)

    a, b = influence(start), influence(end)
    norm = (a.square().mean(0) * b.square().mean(0)).sqrt()
    return torch.where(norm > 0, (a * b).mean(0) / norm, 1.0).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Agreement:
    """Two sets of free energies over the ``dof`` conformers that both resolve: χ², the chance of a
    larger one if they are equal, and the largest deviation in standard errors with its conformer
    (from 0)."""

    chi2: float
    dof: int
    p_value: float
    largest_z: float
    conformer: int

    @property
    def within_errors(self) -> bool:
        return self.p_value >= DISAGREE

    def words(self) -> str:
        """``agree within errors (χ²/dof 0.8, 5 conformers, p = 0.52)``."""
        verdict = (
            "agree within errors" if self.within_errors else "differ by more than their errors"
        )
        some = f"{self.dof} difference{'s' if self.dof > 1 else ''}"
        far = (
            f", conformer {self.conformer + 1} by {self.largest_z:+.1f} errors"
            if not self.within_errors
            else ""
        )
        return f"{verdict} (χ²/dof {self.chi2 / self.dof:.2f}, {some}, p = {self.p_value:.2g}{far})"


def agreement(
    a: FreeEnergies, b: FreeEnergies, independent: Tensor | None = None
) -> Agreement | None:
    """χ² of ``a`` against ``b`` with full covariances; ``independent: (C,)`` in [0, 1] is the part
    of the error of ``b`` that ``a`` does not share (default all). None where no conformer is
    resolved by both."""
    both = (a.resolved & b.resolved).nonzero().flatten()
    if len(both) == 0:
        return None
    part = torch.ones_like(b.variance) if independent is None else independent
    d = (a.value - b.value)[both]
    part = part[both]
    covariance = (
        a.covariance()[both][:, both] + b.covariance()[both][:, both] * part[:, None] * part
    )
    chi2 = float(d @ torch.linalg.solve(covariance, d))
    z = d / covariance.diagonal().sqrt()
    worst = int(z.abs().argmax())
    chance = torch.special.gammaincc(*torch.tensor([0.5 * len(d), 0.5 * chi2], dtype=torch.float64))
    return Agreement(chi2, len(d), float(chance), float(z[worst]), int(both[worst]))


@dataclass(frozen=True)
class FreeEnergyVerdict:
    """``ensemble`` with the error that it has from the search as far as the relaxation remembers
    its start (``memory: (C,)``); ``weights`` and ``reference`` where there are any; agreements of
    the ensemble."""

    ensemble: FreeEnergies
    search: FreeEnergies
    weights: FreeEnergies | None
    reference: FreeEnergies | None
    memory: Tensor
    against_search: Agreement | None
    against_reference: Agreement | None

    @property
    def sources(self) -> dict[str, FreeEnergies]:
        names = ("ensemble", "search", "weights", "reference")
        return {name: got for name in names if (got := getattr(self, name)) is not None}


def judge_free_energies(
    label: Tensor,
    start: Tensor,
    search: FreeEnergies,
    count: int,
    *,
    weights: FreeEnergies | None = None,
    reference: FreeEnergies | None = None,
) -> FreeEnergyVerdict:
    """From the labels of the relaxed samples ``(n,)``, of where the first of them started ``(m,)``
    (-1: nowhere known), and what the search says. The learner has its populations from the
    search: what the relaxation has not forgotten carries the search's error, so it widens the
    ensemble's own and is left out of their difference."""
    own = from_samples(label, count)
    kept = memory(start, label[: len(start)], count)
    ensemble = own.with_share(search, kept)
    return FreeEnergyVerdict(
        ensemble=ensemble,
        search=search,
        weights=weights,
        reference=reference,
        memory=kept,
        against_search=agreement(own, search, 1 - kept),
        against_reference=None if reference is None else agreement(ensemble, reference),
    )


def told(found: FreeEnergies, k: int, kcal_per_kt: float) -> dict:
    """One conformer in one source for summary.json: kT and kcal/mol, None where unknown or
    unbounded."""
    low, high = found.interval()

    def plain(value: Tensor | float, unit: float = 1.0) -> float | None:
        value = float(value) * unit
        return value if math.isfinite(value) else None

    out = {"independent_samples": plain(found.samples[0][k])}
    for unit, name in ((1.0, "kT"), (kcal_per_kt, "kcal_mol")):
        out[name] = plain(found.value[k], unit)
        out[f"error_{name}"] = plain(found.error[k], unit)
        out[f"interval_{name}"] = [plain(low[k], unit), plain(high[k], unit)]
    return out


def compared(found: Agreement | None) -> dict | None:
    """An agreement for summary.json."""
    if found is None:
        return None
    return {
        "chi2": found.chi2,
        "dof": found.dof,
        "p_value": found.p_value,
        "largest_z": found.largest_z,
        "conformer": found.conformer + 1,
        "within_errors": found.within_errors,
    }
