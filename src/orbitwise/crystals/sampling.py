"""Samplers of crystals: coordinates and cell go from noise to data together, one network call for
both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from orbitwise.crystals.process import CrystalProcess
from orbitwise.errors import InputError
from orbitwise.groups.torus import wrap
from orbitwise.processes.gaussian import VE, beside, standard_normal
from orbitwise.processes.sampling import Ancestral, Stage


class CrystalEstimate(NamedTuple):
    """``shift: (B, N, 3)``, σ² times the score of the fractional coordinates, which leads from
    ``x_t`` to the posterior mean of the lifted ``x_1``; ``cell: (B, 1, 6)``, the posterior mean of
    the standardised cell vector."""

    shift: Tensor
    cell: Tensor


Estimator = Callable[[Tensor, Tensor, Tensor], CrystalEstimate]  # (frac, cell, t) -> estimate


@dataclass(frozen=True)
class CrystalSamples:
    """``frac: (B, N, 3)`` in [0, 1), ``cell: (B, 1, 6)`` standardised, network calls per sample."""

    frac: Tensor
    cell: Tensor
    evaluations: int


@dataclass(frozen=True)
class PredictorCorrector:
    """Reverse steps with ``stochasticity`` η (1 ancestral, 0 deterministic, as in Song 2010.02502,
    eq. 16), each followed by ``corrections`` Langevin steps on the coordinates at the new noise
    level (Song 2011.13456, algorithm 4; Jiao 2309.04475, algorithm 2).

    ``correction_size``: step in units of σ², 0.02 in the published sampler. Wrapped noise is that
    of ``VE`` on the lifted coordinates, so the reverse step is the Gaussian one, wrapped.
    """

    stochasticity: float = 1.0
    corrections: int = 0
    correction_size: float = 0.02

    def __post_init__(self):
        if self.corrections < 0 or not self.correction_size > 0:
            raise InputError("corrections must be at least 0 and correction_size positive")
        Ancestral(self.stochasticity)  # checks its range

    @torch.no_grad()
    def sample(
        self,
        estimate: Estimator,
        process: CrystalProcess,
        mask: Tensor,
        grid: Tensor,
        *,
        start: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> CrystalSamples:
        """From noise along the increasing times ``grid: (K,)`` to the estimate at the last one;
        ``mask: (B, N)``. ``start``: noisy coordinates and cells at the first time, instead of pure
        noise.

        ``K + corrections (K - 1)`` network calls. ``progress(done, K)`` after every step. Raises
        ``InputError`` for a grid that does not increase within [0, 1] or ends without noise.
        """
        inside = grid.ndim == 1 and len(grid) >= 2 and bool((grid.diff() > 0).all())
        if not inside or grid[0] < 0 or grid[-1] > 1 or not process.cell.sigma(grid[-1]) > 0:
            raise InputError(
                "grid must be at least two increasing times in [0, 1], and end where noise is left"
            )

        size = len(mask)
        if start is None:
            frac = process.frac.prior((*mask.shape, 3), generator=generator, mask=mask)
            cell = process.cell.prior((size, 1, 6), generator=generator, device=mask.device)
        else:
            frac, cell = start

        times = grid.to(frac)[:, None].expand(-1, size)
        lifted = VE(process.frac.sigma_min, process.frac.sigma_max)
        step = Ancestral(self.stochasticity).step
        for k, (t, s) in enumerate(pairwise(times)):
            now = estimate(frac, cell, t)
            mean = frac + now.shift
            frac = wrap(
                step(frac, Stage(lifted, lambda x, at, m=mean: m, t, s, False, mask, generator))
            )
            shape = Stage(process.cell, lambda x, at, c=now.cell: c, t, s, False, None, generator)
            cell = step(cell, shape)
            sigma = beside(process.frac.wrapped_sigma(s))
            for _ in range(self.corrections):
                pull = estimate(frac, cell, s).shift
                noise = (
                    standard_normal(frac.shape, generator, frac.device, frac.dtype)
                    * mask[..., None]
                )
                frac = (
                    frac
                    + self.correction_size * pull
                    + math.sqrt(2 * self.correction_size) * sigma * noise
                )
                frac = wrap(frac)
            if progress is not None:
                progress(k + 1, len(grid))

        last = estimate(frac, cell, times[-1])
        if progress is not None:
            progress(len(grid), len(grid))
        calls = len(grid) + self.corrections * (len(grid) - 1)
        return CrystalSamples(wrap(frac + last.shift) * mask[..., None], last.cell, calls)
