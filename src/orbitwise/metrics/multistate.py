"""Samples of several temperatures as one weighted sample of the target (MBAR).

Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008), arXiv 0801.1426; equation numbers are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.errors import EnergyError, InputError

_ROUNDS = 200  # of Newton's method, which takes about ten


def multistate_log_weights(energies: Sequence[Tensor], betas: Tensor) -> list[Tensor]:
    """Log weights, which add up to one over all samples, of samples of ``exp(-β_r U)`` for the
    target ``exp(-β_0 U)``.

    ``energies``: for each of the T temperatures U of its samples, ``(n_r,)`` with any ``n_r >= 0``
    (the target's own may be missing); ``betas: (T,)``. The free energies of the temperatures solve
    eq. 11; they maximise a concave likelihood, found by Newton's method with halved steps. Weights
    are eq. 9. Raises ``InputError`` where there is no sample or shapes do not fit, ``EnergyError``
    for an energy that is not finite or temperatures that do not overlap.
    """
    if len(energies) != len(betas) or not sum(len(u) for u in energies):
        raise InputError(
            f"{len(betas)} temperatures need as many sets of samples and at least one sample, got"
            f" {[len(u) for u in energies]}"
        )
    u = torch.cat([v.detach().cpu().double() for v in energies])
    if not bool(torch.isfinite(u).all()):
        raise EnergyError("an energy of the samples to be reweighted is not finite")

    sizes = [len(v) for v in energies]
    beta = betas.detach().cpu().double()
    reduced = beta[:, None] * (u - u.min())
    free = _free_energies(reduced, torch.tensor(sizes, dtype=torch.float64))
    weights = -reduced[0] - _log_mixture(reduced, sizes, free)
    return list((weights - weights.logsumexp(0)).split(sizes))


def _log_mixture(reduced: Tensor, sizes: Sequence[float] | Tensor, free: Tensor) -> Tensor:
    """``ln Σ_k N_k exp(f_k - u_k(x_n))``, the denominator of eq. 9 and 11, ``(N,)``."""
    log_size = torch.as_tensor(sizes, dtype=torch.float64).log()
    return (log_size[:, None] + free[:, None] - reduced).logsumexp(0)


def _free_energies(reduced: Tensor, sizes: Tensor) -> Tensor:
    """Dimensionless free energies ``(T,)`` of the temperatures that have samples (0 for others,
    which do not enter), up to a constant."""
    own = (sizes > 0).nonzero().flatten()
    n, rows = sizes[own], reduced[own]
    free = _neighbours(rows, [int(k) for k in n])

    def likelihood(f: Tensor) -> Tensor:
        return (n * f).sum() - _log_mixture(rows, n, f).sum()

    value = likelihood(free)
    for _ in range(_ROUNDS):
        share = (n.log()[:, None] + free[:, None] - rows - _log_mixture(rows, n, free)).exp()
        slope = n - share.sum(1)
        if float(slope.abs().max()) < 1e-9 * float(n.sum()):
            break

        curve = share.sum(1).diag() - share @ share.T
        step = torch.zeros_like(free)  # the first is held: a common constant does not matter
        step[1:] = torch.linalg.lstsq(curve[1:, 1:], slope[1:, None]).solution[:, 0]
        for _ in range(30):
            new = likelihood(free + step)
            if bool(torch.isfinite(new)) and new >= value - 1e-12 * value.abs():
                break
            step = 0.5 * step
        else:
            break
        free, value = free + step, new
    else:
        raise EnergyError("the temperatures do not overlap: their samples cannot be put together")

    out = torch.zeros_like(sizes)
    out[own] = free
    return out


def _neighbours(rows: Tensor, sizes: list[int]) -> Tensor:
    """A first guess: exponential averages between neighbours, hotter to colder and back."""
    parts = rows.split(sizes, dim=1)
    free = [torch.zeros((), dtype=rows.dtype)]
    for k in range(1, len(sizes)):
        down = (parts[k][k] - parts[k][k - 1]).logsumexp(0) - torch.tensor(float(sizes[k])).log()
        free.append(free[-1] + down)
    return torch.stack(free)
