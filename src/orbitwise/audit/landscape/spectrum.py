"""Hessian spectra of the loss terms: extreme eigenpairs by Lanczos, the bulk by its moments."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.audit.landscape.loss_surface import LossTerms, Term
from orbitwise.audit.result import Estimate
from orbitwise.errors import InputError


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenvalues of one term's Hessian, in units of loss per squared parameter.

    ``values: (2k,)`` float64, rising: the k smallest, then the k largest; ``vectors: (P, 2k)`` in
    the same order, unit length. ``errors: (2k,)``: standard errors over batches, of ``vᵀ H v`` with
    the eigenvector held (first-order perturbation; NaN for one batch). ``residuals: (2k,)``: ``|H v
    - λ v|``, which bounds the numerical error of λ. ``trace`` and ``square``: of H and H², by
    Rademacher probes, errors over probes. ``products``: with vectors, in all.

    The largest eigenvalue of a Hessian on few items is above that on many, the smallest below: its
    noise spreads it.
    """

    term: Term
    values: Tensor
    errors: Tensor
    vectors: Tensor
    residuals: Tensor
    trace: Estimate
    square: Estimate
    dimension: int
    products: int

    @property
    def largest(self) -> Estimate:
        return Estimate(float(self.values[-1]), float(self.errors[-1]))

    @property
    def smallest(self) -> Estimate:
        return Estimate(float(self.values[0]), float(self.errors[0]))

    @property
    def effective_rank(self) -> float:
        """``tr(H)² / tr(H²)``: P for equal eigenvalues, 1 for a single one."""
        return self.trace.value**2 / self.square.value if self.square.value > 0 else math.nan

    @property
    def stretch(self) -> float:
        """Largest eigenvalue over the rms of all: 1 for equal ones, √P for a single one.
        λ_max/|λ_min| of a whole network is set by its null directions and is not a number that can
        be measured; this is."""
        rms = math.sqrt(max(self.square.value, 0) / self.dimension)
        return float(self.values[-1]) / rms if rms > 0 else math.nan

    @property
    def extreme_directions(self) -> Tensor:
        """Eigenvectors of the largest and the smallest eigenvalue, ``(P, 2)``: the axes of a
        landscape."""
        return self.vectors[:, [-1, 0]]


def hessian_spectrum(
    loss: LossTerms,
    term: Term = "total",
    k: int = 1,
    *,
    probes: int = 16,
    tolerance: float = 1e-3,
    iterations: int = 300,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """The ``k`` smallest and ``k`` largest eigenpairs by implicitly restarted Lanczos
    (``scipy.sparse.linalg.eigsh``, ARPACK) on Hessian-vector products, and the first two moments of
    the rest by ``probes`` (Hutchinson 1990).

    ``tolerance``: relative, of eigenvalues; ``iterations``: most restarts for each end;
    ``generator``: on the CPU, for the start and the probes. Cost: some tens of products for each
    end, each about eight passes over the batches.

    Raises ``InputError`` for ``k`` out of range or an end that did not converge.
    """
    import numpy as np
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    P = loss.dimension
    if not 1 <= 2 * k < P or probes < 2:
        raise InputError(
            f"k: between 1 and {(P - 1) // 2} for {P} parameters, got {k}; probes at least 2, got"
            f" {probes}"
        )
    generator = generator or torch.Generator().manual_seed(0)
    count = 0

    def times(v: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return loss.hessian_product(term, v).double().cpu()

    def operator(v) -> np.ndarray:
        return times(torch.as_tensor(np.ravel(v))).numpy()

    H = LinearOperator((P, P), matvec=operator, dtype=np.float64)
    start = torch.randn(P, generator=generator, dtype=torch.float64).numpy()
    basis = min(P, max(4 * k + 1, 24))
    ends = []
    for which in ("SA", "LA"):
        try:
            ends.append(
                eigsh(H, k, which=which, v0=start, ncv=basis, maxiter=iterations, tol=tolerance)
            )
        except ArpackNoConvergence as stopped:
            raise InputError(
                f"Lanczos found {len(stopped.eigenvalues)} of {k} eigenvalues at the {which} end in"
                f" {iterations} restarts: allow more iterations or a larger tolerance, ask for"
                " fewer, or use float64"
            ) from None
    values = torch.from_numpy(np.concatenate([end[0] for end in ends]))
    vectors = torch.from_numpy(np.concatenate([end[1] for end in ends], 1))
    order = values.argsort()
    values, vectors = values[order], vectors[:, order].contiguous()
    residuals = torch.stack(
        [(times(v) - w * v).norm() for w, v in zip(values, vectors.T, strict=True)]
    )
    count += len(values)
    batches = torch.stack([loss.curvature(term, v).cpu() for v in vectors.T])
    n = batches.shape[1]
    errors = batches.std(1) / math.sqrt(n) if n > 1 else torch.full_like(values, math.nan)
    signs = torch.randint(0, 2, (probes, P), generator=generator).double() * 2 - 1
    images = torch.stack([times(s) for s in signs])
    trace, square = (signs * images).sum(1), images.square().sum(1)
    return Spectrum(
        term=term,
        values=values,
        errors=errors,
        vectors=vectors.to(loss.point),
        residuals=residuals,
        trace=Estimate.mean(trace),
        square=Estimate.mean(square),
        dimension=P,
        products=count,
    )
