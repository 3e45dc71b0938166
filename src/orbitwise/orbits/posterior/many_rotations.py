"""Normalisers and means of very many matrix Fisher laws, by a contour integral of elementary
functions.

The law ``∝ exp tr(Fᵀ R)`` is one of unit quaternions, ``∝ exp qᵀ K q`` (``matrix_fisher``). With
``χ(s) = det(s − K) = s⁴ + a₂ s² + a₃ s + a₄``,

    a₂ = −2|F|²,    a₃ = −8 det F,    a₄ = |F|⁴ − 4|cof F|²,

the normaliser relative to the uniform law is an inverse Laplace transform at time 1
(docs/theory.md, section 2):

    c(F) = (1/2πi) ∫ e^s χ(s)^(-1/2) ds,    E[R] = ∂ log c/∂F.

All singularities lie on the real axis, none right of the largest root, so Talbot's contour with the
constants of Dingfelder and Weideman (1304.2505) converges as ``exp(-1.36 nodes)``. There are no
eigenvalues and no Bessel functions; where their digits would be needed, near several largest roots
of a large F, ``sure`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

NODES = 28  # of the whole contour, half of which are conjugates of the others
STEPS = 9  # of Newton's method towards the largest root
EPS = 2.2e-16
TOLERANCE = 1e-12  # of log c and E[R]
CHUNK = 512  # laws at a time, whose nodes stay in the cache


@dataclass(frozen=True)
class Fishers:
    """Laws with parameters ``F: (9, S)``, row after row, float64.

    ``square``: |F|²; ``cofactors: (9, S)``; ``a3``, ``a4``: coefficients of χ. ``top: (S)``: an
    upper bound of the largest root, which is ``tr(Fᵀ R)`` at the mode, so one of ``log c(F)``;
    ``above``: at most by how much.
    """

    F: Tensor
    square: Tensor
    cofactors: Tensor
    a3: Tensor
    a4: Tensor
    top: Tensor
    above: Tensor

    @classmethod
    def of(cls, F: Tensor) -> Fishers:
        a, b, c, d, e, f, g, h, i = F
        first = [e * i - f * h, f * g - d * i, d * h - e * g]
        second = [c * h - b * i, a * i - c * g, b * g - a * h]
        third = [b * f - c * e, c * d - a * f, a * e - b * d]
        cofactors = torch.stack([*first, *second, *third])
        square = F.square().sum(0)
        a3 = -8 * (F[:3] * cofactors[:3]).sum(0)
        a4 = square.square() - 4 * cofactors.square().sum(0)

        # right of its largest root, which is at most √3 |F|, χ is convex: Newton's steps from there
        # stay above it, and are never shorter than a quarter of the way
        top, step = (3 * square).sqrt(), torch.zeros_like(a3)
        for _ in range(STEPS):
            half = top.square() - square
            value = half.square() - square.square() + top * a3 + a4
            step = (value / (4 * top * half + a3).clamp_min(1e-300)).clamp_min(0.0)
            top = top - step
        return cls(F, square, cofactors, a3, a4, top, 4 * step)

    def __getitem__(self, which: Tensor | slice) -> Fishers:
        return Fishers(
            F=self.F[:, which],
            square=self.square[which],
            cofactors=self.cofactors[:, which],
            a3=self.a3[which],
            a4=self.a4[which],
            top=self.top[which],
            above=self.above[which],
        )

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """``log c(F): (S)``, ``E[R]: (9, S)``, and ``sure: (S)`` bool, where both are right to
        ``TOLERANCE``."""
        parts = [self[k : k + CHUNK]._moments() for k in range(0, max(len(self.top), 1), CHUNK)]
        log_norm, mean, sure = zip(*parts, strict=True)
        return torch.cat(log_norm), torch.cat(mean, -1), torch.cat(sure)

    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        powers, constant, weights, slopes = _contour(self.F.device)
        top, square = self.top, self.square
        half = top.square() - square
        taylor = [4 * top, 6 * top.square() - 2 * square, 4 * top * half + self.a3]
        taylor.append(half.square() - square.square() + top * self.a3 + self.a4)
        chi = torch.addmm(constant, powers, torch.stack(taylor))
        re, im = chi.chunk(2)
        size = (re.square() + im.square()).sqrt()

        # χ^(1/2) by continuity from the first node, next to the positive axis
        long = (0.5 * (size + re.abs())).sqrt_()
        short = (0.5 * im.abs()).div_(long)
        x = torch.where(re < 0, short, long)
        y = long.add_(short).sub_(x).copysign_(im)
        turn = torch.ones_like(x)
        turn[1:].copysign_((x[1:] * x[:-1]).addcmul_(y[1:], y[:-1]))
        inverse = size.reciprocal()
        turn = turn.cumprod_(0).mul_(inverse)
        root = torch.empty_like(chi)  # χ^(-1/2)
        u, v = root.chunk(2)
        torch.mul(x, turn, out=u)
        torch.mul(y, turn.neg_(), out=v)
        scaled = (weights @ root)[0]

        inverse = inverse.square_()
        cube = torch.empty_like(chi)  # χ^(-3/2)
        torch.mul(u, re, out=cube[: len(re)]).addcmul_(v, im).mul_(inverse)
        torch.mul(v, re, out=cube[len(re) :]).addcmul_(u, im, value=-1).mul_(inverse)
        by_a4, first, second = slopes @ cube
        by_a3 = first + top * by_a4
        by_a2 = second + top * (first + by_a3)

        F = self.F.unflatten(0, (3, 3))
        gram = (F[:, None] * F).sum(2)
        cubic = (gram[:, :, None] * F).sum(1).flatten(0, 1)  # F Fᵀ F
        mean = 8 * by_a4 * cubic - 4 * (by_a2 + square * by_a4) * self.F
        mean = (mean - 8 * by_a3 * self.cofactors) / scaled
        sure = (EPS * top.square().square() < TOLERANCE * size[0]) & (self.above < 0.5)
        return top + torch.log(scaled), mean, sure & (scaled > 0)


@cache
def _contour(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For nodes ``z`` relative to ``top``, real parts before imaginary ones: ``(2K, 4)`` and ``(2K,
    1)`` of ``χ = z⁴ + taylor·(z³, z², z, 1)``; ``(1, 2K)`` of the integral of ``χ^(-1/2)``, and
    ``(3, 2K)`` of its derivative by a₄, and of that with factors z and z²."""
    theta = np.pi * (2 * np.arange(NODES // 2) + 1) / NODES
    cot, csc = 1 / np.tan(0.6407 * theta), 1 / np.sin(0.6407 * theta)
    z = NODES * (-0.6122 + 0.5017 * theta * cot + 0.2645j * theta)
    dz = NODES * (0.5017 * cot - 0.5017 * 0.6407 * theta * csc**2 + 0.2645j)
    w = 2 * np.exp(z) * dz / (1j * NODES)
    z_powers = np.stack([z**3, z**2, z, z**0], 1)
    slopes = -0.5 * w * np.stack([z**0, z, z**2])
    tables = (
        np.concatenate([z_powers.real, z_powers.imag]),
        np.concatenate([(z**4).real, (z**4).imag])[:, None],
        np.concatenate([w.real, -w.imag])[None],
        np.concatenate([slopes.real, -slopes.imag], 1),
    )
    return tuple(torch.tensor(table, device=device) for table in tables)  # type: ignore[return-value]
