"""The matrix Fisher law on rotations, ``p(R) ∝ exp tr(Fᵀ R)``: normaliser, mean, mode, draws.

In unit quaternions ``tr(Fᵀ R(q)) = qᵀ K q`` with a traceless symmetric 4×4 matrix K, so q has a
Bingham law. With the proper singular values s of F, K has the eigenvalues ``s1+s2+s3 ≥ s1-s2-s3 ≥
-s1+s2-s3 ≥ -s1-s2+s3``; what matters are half their distances from the first, ``p = s2+s3 ≤ q =
s1+s3 ≤ r = s1+s2``. A reflected, degenerate or vanishing F is no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from orbitwise.groups.so3 import from_quaternion

NODES = (28, 80)  # Gauss-Legendre nodes where (1+r)/(1+q) < 3, and elsewhere (always enough)
CUT = 19.0  # the integrand's tail beyond 2qw = 38 is below float64


@dataclass(frozen=True)
class MatrixFisher:
    """``values: (*B, 4)`` ascending eigenvalues of K, ``vectors: (*B, 4, 4)`` its eigenvectors in
    columns (quaternions x, y, z, w). All float64."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> MatrixFisher:
        """From ``F: (*B, 3, 3)``."""
        K = parameter.flatten(-2) @ _rotation_form(parameter.device).mT
        return cls(*torch.linalg.eigh(K.unflatten(-1, (4, 4))))

    def opposite(self) -> MatrixFisher:
        """The law with parameter ``-F`` (what O(3) needs for its other coset)."""
        return MatrixFisher(-self.values.flip(-1), self.vectors.flip(-1))

    @property
    def mode(self) -> Tensor:
        """The most probable rotation ``(*B, 3, 3)`` (Kabsch; any of them where there are
        several)."""
        return from_quaternion(self.vectors[..., 3])

    @property
    def mode_value(self) -> Tensor:
        """``tr(Fᵀ mode)``, ``(*B)``."""
        return self.values[..., 3]

    @property
    def gaps(self) -> Tensor:
        """``(*B, 3)``: p, q, r."""
        return 0.5 * (self.values[..., 3:] - self.values[..., :3]).flip(-1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """``log ∫ exp tr(Fᵀ R) dμ(R)``, ``(*B)``, and the mean ``E[R]``, ``(*B, 3, 3)``."""
        log_scaled, squares = bingham(self.gaps.reshape(-1, 3))
        batch = self.values.shape[:-1]
        second = (self.vectors * squares.reshape(*batch, 1, 4)) @ self.vectors.mT  # E[q qᵀ]
        mean = (second.flatten(-2) @ _rotation_form(second.device)).unflatten(-1, (3, 3))
        return self.mode_value + log_scaled.reshape(batch), mean

    def sample(self, K: int, generator: torch.Generator | None = None) -> Tensor:
        """``K`` independent rotations per item, ``(K, *B, 3, 3)``, exactly distributed."""
        gaps = self.gaps.expand(K, *self.gaps.shape)
        coordinates = sample_bingham(gaps.reshape(-1, 3), generator).reshape(*gaps.shape[:-1], 4)
        return from_quaternion((self.vectors @ coordinates[..., None])[..., 0])


@cache
def _rotation_form(device: torch.device) -> Tensor:
    """``(16, 9)``: rotation matrices are linear in ``q qᵀ`` (x, y, z, w); found from ten
    rotations."""
    eye = torch.eye(4, dtype=torch.float64)
    between = from_quaternion(torch.nn.functional.normalize(eye[:, None] + eye, dim=-1))
    own = from_quaternion(eye)
    form = between - 0.5 * (own[:, None] + own) + eye[..., None, None] * own
    return form.reshape(16, 9).round().to(device)  # whole numbers


@cache
def _legendre(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (
        torch.tensor((nodes + 1) / 2, dtype=torch.float64, device=device),
        torch.tensor(weights / 2, dtype=torch.float64, device=device),
    )


def bingham(gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of the law ``∝ exp(-2(p x1² + q x2² + r x3²))`` of a unit 4-vector ``(x3, x2, x1,
    x0)``.

    ``gaps: (B, 3)`` with ``0 ≤ p ≤ q ≤ r``. Returns the log of the normaliser relative to the
    uniform law, ``(B)``, and the mean squares in ascending order of probability (those of x3, x2,
    x1, x0), ``(B, 4)``. Relative error below 1e-13 from gaps of 0 to 1e16 (tests).

    Only on the CPU is it looked which items need all nodes; an accelerator would have to wait for
    the answer, and takes all of them always.
    """
    if gaps.device.type != "cpu":
        return _quadrature(gaps, NODES[1])
    hard = 1 + gaps[:, 2] > 3 * (1 + gaps[:, 1])
    log_norm, squares = _quadrature(gaps, NODES[0])
    if hard.any():  # a best fit by a reflection: r much larger than q
        index = hard.nonzero()[:, 0]
        fine = _quadrature(gaps[index], NODES[1])
        log_norm, squares = (
            log_norm.index_copy(0, index, fine[0]),
            squares.index_copy(0, index, fine[1]),
        )
    return log_norm, squares


def _quadrature(gaps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    # Pair the coordinates (x0, x1), (x2, x3). The weight w = x2² + x3² of a uniform unit 4-vector
    # is uniform on [0, 1], and given w both angles are uniform and independent. Averaging them (as
    # in Lee 1710.03746, theorem 2.1, which pairs (x0, x3), (x1, x2)) leaves
    #     c = ∫_0^1 I0e(p(1-w)) · e^{-2qw} I0e((r-q)w) dw,   I0e(z) = e^{-z} I0(z).
    # As p ≤ q, the only sharp feature is at w = 0, where sqrt(w) has the two widths r^-1/2 and
    # q^-1/2. The substitution sqrt(w) = sinh(z)/sqrt(1+r) puts the nodes evenly on all scales
    # between them.
    p, q, r = gaps[:, 0:1], gaps[:, 1:2], gaps[:, 2:3]
    nodes, weights = _legendre(count, gaps.device)
    end = torch.asinh(torch.sqrt((1 + r) * (CUT / q.clamp_min(CUT))))
    grow = torch.exp(end * nodes)
    sinh, cosh = 0.5 * (grow - 1 / grow), 0.5 * (grow + 1 / grow)
    w = (sinh.square() / (1 + r)).clamp_max(1.0)
    a, b = p * (1 - w), (r - q) * w
    a0, b0 = torch.special.i0e(a), torch.special.i0e(b)
    common = weights * sinh * cosh * torch.exp(-2 * q * w)
    density = common * a0 * b0
    total = density.sum(-1)
    heavy = (density * w).sum(-1)  # E[x2² + x3²], not yet normalised
    x2_minus_x3 = (common * a0 * torch.special.i1e(b) * w).sum(-1)
    x0_minus_x1 = (common * b0 * torch.special.i1e(a) * (1 - w)).sum(-1)
    pairs = [heavy - x2_minus_x3, heavy + x2_minus_x3]
    pairs += [total - heavy - x0_minus_x1, total - heavy + x0_minus_x1]
    norm = torch.log(2 * end[:, 0] * total / (1 + r[:, 0]))
    return norm, torch.stack(pairs, -1) / (2 * total[:, None])


def sample_bingham(gaps: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Unit 4-vectors ``(x3, x2, x1, x0)`` from the law of ``bingham``, ``(B, 4)``; ``gaps: (B,
    3)``.

    Rejection from an angular central Gaussian envelope (Kent, Ganeiber and Mardia 1310.8110).
    """
    exponents = torch.cat(
        [2 * gaps.flip(-1), torch.zeros_like(gaps[:, :1])], -1
    )  # density ∝ exp(-Σ λ x²)
    b = torch.ones_like(gaps[:, 0])
    for _ in range(
        12
    ):  # Newton for Σ 1/(b + 2λ) = 1, from below: convex and decreasing, so monotone
        inverse = 1 / (b[:, None] + 2 * exponents)
        b = b + (inverse.sum(-1) - 1) / inverse.square().sum(-1)

    omega = 1 + 2 * exponents / b[:, None]
    log_bound = -0.5 * (4 - b) + 2 * torch.log(4 / b)
    where = gaps.device if generator is None else generator.device
    out = torch.empty_like(exponents)
    left = torch.arange(len(gaps), device=gaps.device)
    while len(left):
        normal = torch.randn(len(left), 4, generator=generator, device=where, dtype=gaps.dtype).to(
            gaps
        )
        uniform = torch.rand(len(left), generator=generator, device=where, dtype=gaps.dtype).to(
            gaps
        )
        x = torch.nn.functional.normalize(normal / omega[left].sqrt(), dim=-1)
        log_target = -(exponents[left] * x.square()).sum(-1)
        log_envelope = log_bound[left] - 2 * torch.log((omega[left] * x.square()).sum(-1))
        taken = torch.log(uniform) < log_target - log_envelope
        out[left[taken]] = x[taken]
        left = left[~taken]
    return out
