"""The rotations' share of a motion: tangent spaces and mean curvature of the orbits of SO(D), with
or without translations.

At points ``x`` the orbit of the rotations has the tangent vectors ``E_k x_i``, ``E_k`` a basis of
the antisymmetric matrices (in three dimensions ``e_k × x_i``). With weights w their Gram matrix is
``G_kl = Σ_i w_i (E_k x_i)·(E_l x_i)``, in three dimensions the inertia tensor, and a motion v has
the generalised angular momentum ``L_k = Σ_i w_i (E_k x_i)·v_i``. Everything here is made of G and
L, in float64, and without a look at a value, for which an accelerator would have to wait.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orbitwise.groups.base import unrounded

# Of the mean of G's diagonal: where a direction of the orbit has less than this (points within
# 1e-6 of their size from a line), it fades away, smoothly, as in a pseudo-inverse.
FADE = 1e-12


def horizontal_part(
    x: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    translations: bool = False,
) -> Tensor:
    """``v − Σ_k ω_k E_k x`` with ``G ω = L``: what is left of ``v`` does not turn the points.

    ``x: (*B, N, D)``, ``v: (*L, *B, N, D)``, ``mask`` and ``weights: (*B, N)``; the dtype of ``v``
    and ``x`` together, 0 on padded rows.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, v.dtype), torch.float32)
    with unrounded(x):
        share = _share(x, mask, weights)
        x, v = _at_rest(x, mask, share, translations), _at_rest(v, mask, share, translations)
        E, G = _generators(x), _gram(x, share)
        lead = v.shape[:-2]
        scale, G = _scaled(G.expand(*lead, *G.shape[-2:]))
        momentum = torch.einsum("kab,...na,...nb->...k", E, v * share, x) / scale
        # the second solution takes the error of the first from FADE to its square
        omega = torch.linalg.solve_ex(_faded(G), momentum)[0]
        rest = momentum - (G @ omega[..., None]).squeeze(-1)
        omega = omega + torch.linalg.solve_ex(_faded(G), rest)[0]
        turning = torch.einsum("...k,kab->...ab", omega, E)
        found = v - x @ turning.mT
        return (found if mask is None else torch.where(mask[..., None], found, 0.0)).to(dtype)


def orbit_drift(
    x: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    translations: bool = False,
) -> Tensor:
    """``½ ∇ log det G``, the gradient of the logarithm of the orbit's volume in the metric of the
    weights, which is minus the orbit's mean curvature vector (docs/theory.md, section 10).

    In closed form ``−Σ_kl (G⁻¹)_kl E_k E_l x``: of one point at distance r in the plane ``x/r²``,
    in three dimensions ``tr(G⁻¹) x_i − G⁻¹ x_i``. Shapes as in ``horizontal_part``. It grows as 1/δ
    where the points come within δ of a line.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with unrounded(x):
        share = _share(x, mask, weights)
        x = _at_rest(x, mask, share, translations)
        return (x @ _stretch(x, share)).to(dtype)


def grown(
    x: Tensor, variance: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """``x (1 + variance M)^{1/2}`` with ``orbit_drift(x) = x M``: a step of ``½ variance`` along
    the drift, to first order, which is bounded where the drift is not, and which grows ``Σ_i w_i
    |x_i|²`` by ``variance`` for each direction in which noise of that variance does not turn the
    points, exactly.

    ``variance: (*B, 1, 1)``. About the origin; shapes as in ``horizontal_part``.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with unrounded(x):
        share = _share(x, mask, weights)
        x = _at_rest(x, mask, share, False)
        values, axes = torch.linalg.eigh(variance.double() * _stretch(x, share))
        found: Tensor = ((x @ axes) * (1 + values).sqrt()[..., None, :]) @ axes.mT
        return found.to(dtype)


def _stretch(x: Tensor, share: Tensor) -> Tensor:
    """``−Σ_kl (G⁻¹)_kl E_k E_l``, symmetric ``(*B, D, D)``; its eigenvalue of the principal axis a
    is ``Σ_b 1/(s_a + s_b)`` over the others, s the second moments."""
    E = _generators(x)
    scale, G = _scaled(_gram(x, share))
    inverse = torch.linalg.inv_ex(_faded(G))[0] / scale[..., None]
    return torch.einsum("...kl,kca,lcb->...ab", inverse, E, E)  # Eᵀ = −E


def _share(x: Tensor, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    """``(*B, N, 1)``: the weights, 0 on padded rows."""
    share = torch.ones_like(x[..., :1], dtype=torch.float64)
    if weights is not None:
        share = share * weights[..., None]
    return share if mask is None else torch.where(mask[..., None], share, 0.0)


def _at_rest(x: Tensor, mask: Tensor | None, share: Tensor, translations: bool) -> Tensor:
    """In float64, 0 on padded rows, with ``translations`` about the weighted centre."""
    x = x.double()
    if mask is not None:
        x = torch.where(mask[..., None], x, 0.0)
    if not translations:
        return x
    total = share.sum(-2, keepdim=True)
    centre = (x * share).sum(-2, keepdim=True) / torch.where(total > 0, total, 1.0)
    return x - centre if mask is None else torch.where(mask[..., None], x - centre, 0.0)


def _generators(x: Tensor) -> Tensor:
    """``(K, D, D)``, K = D(D−1)/2: ``e_i e_jᵀ − e_j e_iᵀ`` for i < j."""
    D = x.shape[-1]
    unit = torch.eye(D, dtype=x.dtype, device=x.device)
    i, j = torch.triu_indices(D, D, 1, device=x.device)
    return unit[i, :, None] * unit[j, None, :] - unit[j, :, None] * unit[i, None, :]


def _gram(x: Tensor, share: Tensor) -> Tensor:
    """``(*B, K, K)``."""
    E = _generators(x)
    second = (x * share).mT @ x
    return torch.einsum("kab,...bc,lac->...kl", E, second, E)


def _scaled(G: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the diagonal ``(*B, 1)`` (1 where all points coincide), and G over it."""
    scale = G.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) / max(G.shape[-1], 1)
    scale = torch.where(scale == 0, 1.0, scale)
    return scale, G / scale[..., None]


def _faded(G: Tensor) -> Tensor:
    return G + FADE * torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
