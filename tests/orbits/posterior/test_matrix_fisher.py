"""The matrix Fisher law against high-precision quadrature, angle grids, Haar samples,
asymptotics."""

import math

import mpmath
import numpy as np
import pytest
import roma
import torch

import orbitwise as ow
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher, bingham, sample_bingham


def proper(s, seed=0):
    """F with proper singular values s, U and V (det 1)."""
    gen = torch.Generator().manual_seed(seed)
    U, V = roma.random_rotmat((2,), dtype=torch.float64, generator=gen)
    s = torch.as_tensor(s, dtype=torch.float64)
    return U @ torch.diag_embed(s) @ V.T, U, V


def lee(s1, s2, s3):
    """log ∫ exp tr(diag(s) R) dμ(R) - (s1+s2+s3): theorem 2.1 of Lee 1710.03746 in 25 digits (v =
    1-u)."""
    with mpmath.workdps(25):
        s1, s2, s3 = map(mpmath.mpf, (s1, s2, s3))

        def scaled(z):
            return mpmath.besseli(0, z) * mpmath.exp(-z)

        def f(v):
            return (
                scaled((s1 - s2) * v / 2)
                * scaled((s1 + s2) * (2 - v) / 2)
                * mpmath.exp(-(s2 + s3) * v)
                / 2
            )

        ends = [mpmath.mpf(10) ** k for k in range(-10, 0)]
        ends = sorted({mpmath.mpf(0), *ends, mpmath.mpf(1), *(2 - e for e in ends), mpmath.mpf(2)})
        return float(
            mpmath.log(mpmath.quad(f, [e for e in ends if (s2 + s3) * e < 200 or e < 1e-9]))
        )


@pytest.mark.parametrize(
    "s",
    [
        (0, 0, 0),
        (1e-9, 1e-10, -1e-10),
        (0.3, 0.2, -0.1),
        (3, 3, 3),
        (5, 0, 0),  # collinear
        (30, 30, 0),  # planar, s1 = s2
        (30, 20, -19.999),  # nearly a reflection
        (30, 30, -30),
        (1e3, 1, -1),
        (1e4, 1e4, -0.999e4),
        (1e6, 1, 0),
        (1e6, 1e6, -1e6 + 3),
        (1e8, 3e7, 1e7),
    ],
)
def test_normaliser_in_25_digits(s):
    s1, s2, s3 = s
    log_c, _ = bingham(torch.tensor([[s2 + s3, s1 + s3, s1 + s2]], dtype=torch.float64))
    assert log_c.item() == pytest.approx(lee(*s), abs=2e-13)


def test_quadrature_has_converged_everywhere():
    """Against twice to six times the nodes, over gaps from 1e-8 to 1e16 in all combinations."""
    from orbitwise.orbits.posterior.matrix_fisher import _quadrature

    gen = torch.Generator().manual_seed(0)
    gaps = 10 ** (24 * torch.rand(4000, 3, generator=gen, dtype=torch.float64) - 8)
    near = 10 ** (20 * torch.rand(4000, 1, generator=gen, dtype=torch.float64) - 8)
    near = near * 3 * torch.rand(4000, 3, generator=gen, dtype=torch.float64)
    gaps = torch.cat([gaps, near]).sort(-1)[0]
    (log_c, squares), (more, more_squares) = bingham(gaps), _quadrature(gaps, 160)
    assert (log_c - more).abs().max() < 2e-13
    assert (squares - more_squares).abs().max() < 1e-13
    assert (squares.sum(-1) - 1).abs().max() < 1e-14
    assert (squares.diff(dim=-1) > -1e-15).all()


def test_no_values_are_looked_at_off_the_processor():
    """The meta device has none to look at; all nodes are enough for every item."""
    from orbitwise.orbits.posterior.matrix_fisher import NODES, _quadrature

    gaps = torch.empty(7, 3, dtype=torch.float64, device="meta")
    assert [x.shape for x in bingham(gaps)] == [(7,), (7, 4)]

    x = torch.empty(7, 5, 3, dtype=torch.float64, device="meta")
    times = torch.empty(7, dtype=torch.float64, device="meta")
    for group in (ow.SO3(), ow.O3()):
        post = ow.orbit_posterior(group, ow.GaussianProcess.flow(), x, x, times, check=False)
        assert post.mean.shape == x.shape and post.mean.device.type == "meta"

    gen = torch.Generator().manual_seed(1)
    gaps = 10 ** (24 * torch.rand(4000, 3, generator=gen, dtype=torch.float64) - 8)
    gaps = gaps.sort(-1)[0]
    for have, want in zip(_quadrature(gaps, NODES[1]), _quadrature(gaps, 160), strict=True):
        assert (have - want).abs().max() < 2e-13


def euler_grid(n_turn, n_tilt):
    """Product quadrature on SO(3): trapezoid in two angles, Gauss-Legendre in the cosine of the
    third."""
    turn = torch.arange(n_turn, dtype=torch.float64) * 2 * math.pi / n_turn
    cosine, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(n_tilt))
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    about_z = torch.stack(
        [turn.cos(), -turn.sin(), zero, turn.sin(), turn.cos(), zero, zero, zero, one], -1
    )
    sine, z, o = (1 - cosine**2).sqrt(), torch.zeros(n_tilt).double(), torch.ones(n_tilt).double()
    about_y = torch.stack([cosine, z, sine, z, o, z, -sine, z, cosine], -1).view(-1, 3, 3)
    about_z = about_z.view(-1, 3, 3)
    R = about_z[:, None, None] @ about_y[None, :, None] @ about_z[None, None]
    w = (weight / 2)[None, :, None].expand(n_turn, n_tilt, n_turn) / n_turn**2
    return R.reshape(-1, 9), w.reshape(-1)


def test_mean_and_normaliser_on_a_grid_of_rotations():
    R, w = euler_grid(96, 64)
    cases = [
        (0, 0, 0),
        (2, 1, 0.5),
        (4, 4, 4),
        (4, 4, -4),
        (6, 0, 0),
        (7, 7, 0),
        (9, 8.999999, -8.999),
        (12, 5, -1),
    ]
    for k, s in enumerate(cases):
        F, _, _ = proper(s, k)
        density = w * torch.exp(R @ F.flatten())
        c = density.sum()
        log_c, mean = MatrixFisher.of(F).moments()
        assert log_c.item() == pytest.approx(c.log().item(), abs=1e-12)
        assert (mean.flatten() - density @ R / c).abs().max() < 1e-12, s


@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 3.0, 10.0, 30.0])
def test_against_two_million_haar_samples(size):
    """Mean and evidence within 5 standard errors of self-normalised Monte Carlo (delta method)."""
    gen = torch.Generator().manual_seed(int(10 * size))
    R = roma.random_rotmat((2_000_000,), dtype=torch.float64, generator=gen).flatten(1)
    F, _, _ = proper((size, 0.6 * size, -0.3 * size), 5)
    log_c, mean = MatrixFisher.of(F).moments()
    weight = torch.exp(R @ F.flatten() - 1.3 * size)
    c = weight.mean()
    error_c = weight.std() / math.sqrt(len(R))
    assert (c - torch.exp(log_c - 1.3 * size)).abs() <= 5 * error_c + 1e-12
    estimate = (weight[:, None] * R).mean(0) / c
    error = ((weight[:, None] * (R - estimate)).square().mean(0) / len(R)).sqrt() / c
    assert error.max() < 0.02  # the test means something
    assert ((estimate - mean.flatten()).abs() <= 5 * error).all()


@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e8])
def test_mean_at_high_concentration(size):
    """d_i -> 1 - ½(1/(s_i+s_j) + 1/(s_i+s_k)), with a relative error of order 1/s."""
    s = torch.tensor([1.0, 0.7, 0.2], dtype=torch.float64) * size
    F, U, V = proper(s)
    _, mean = MatrixFisher.of(F).moments()
    lost = 1 - (U.T @ mean @ V).diagonal()
    pair = 1 / (s[:, None] + s)
    expected = 0.5 * (pair.sum(-1) - pair.diagonal())
    assert torch.allclose(lost, expected, rtol=5 / size, atol=3e-15)


def test_mean_at_a_reflection_of_high_concentration():
    """s = (k, k, -k): only r = s1+s2 binds. The quaternion is uniform on the sphere of the top
    three eigenvectors, so E[q_k²] = 1/3 there, and E[R] = U diag(1/3, 1/3, -1/3) Vᵀ."""
    F, U, V = proper((1e8, 1e8, -1e8))
    _, mean = MatrixFisher.of(F).moments()
    assert torch.allclose(
        U.T @ mean @ V, torch.diag(torch.tensor([1, 1, -1]) / 3).double(), atol=1e-7
    )


def test_equal_and_nearly_equal_singular_values_are_continuous():
    for s in [
        (5.0, 5.0, 5.0),
        (5.0, 5.0, -5.0),
        (5.0, 5.0, 1.0),
        (5.0, 2.0, 2.0),
        (5.0, 2.0, -2.0),
        (5.0, 0.0, 0.0),
    ]:
        F, _, _ = proper(s, 3)
        _, mean = MatrixFisher.of(F).moments()
        for step in (1e-15, 1e-12, 1e-9, 1e-6):
            nudge = torch.randn(
                20, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
            )
            _, near = MatrixFisher.of(F + step * nudge).moments()
            assert (near - mean).abs().max() < 5 * step + 2e-15


def test_opposite_parameter():
    F, _, _ = proper((4, 2, -1))
    law, other = MatrixFisher.of(F).opposite(), MatrixFisher.of(-F)
    assert law.moments()[0].item() == pytest.approx(other.moments()[0].item(), abs=1e-13)
    assert torch.allclose(law.moments()[1], other.moments()[1], atol=1e-14)
    assert torch.allclose(law.mode, other.mode, atol=1e-14)


def test_mode_is_the_procrustes_solution():
    F = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = MatrixFisher.of(F)
    best = roma.special_procrustes(F)
    assert torch.allclose(law.mode, best, atol=1e-10)
    assert torch.allclose(law.mode_value, (F * best).sum((-2, -1)), atol=1e-12)


@pytest.mark.parametrize(
    "gaps",
    [
        (0, 0, 0),
        (0.5, 1, 2),
        (0, 3, 40),
        (0, 0, 1e4),
        (5, 5, 5),
        (1e-3, 30, 30),
        (30, 1e3, 1e6),
        (1e6, 2e6, 1e7),
    ],
)
def test_sampler_moments(gaps):
    """Second moments to 5 standard errors; fourth moments through the derivative of the second
    ones."""
    gaps = torch.tensor(gaps, dtype=torch.float64)
    count = 100_000
    x = sample_bingham(gaps.expand(count, 3), torch.Generator().manual_seed(0))
    assert torch.allclose(x.norm(dim=-1), torch.ones(count).double())
    _, squares = bingham(gaps[None])
    error = x.square().std(0) / math.sqrt(count)
    assert ((x.square().mean(0) - squares[0]).abs() <= 5 * error + 1e-15).all()
    cross = (x[:, :, None] * x[:, None]).triu(1)
    assert (cross.mean(0).abs() <= 5 * cross.std(0) / math.sqrt(count) + 1e-15).all()
    step = 1e-4 * torch.tensor([1.0]).double() * (1 + gaps[0])
    up, down = gaps.clone(), gaps.clone()
    up[0] += step.item()
    down[0] -= step.item()
    if gaps[0] > 0 and up[0] <= gaps[1]:  # Cov(x1², x_k²) = -½ ∂E[x_k²]/∂p
        slope = (bingham(up[None])[1] - bingham(down[None])[1])[0] / (2 * step)
        centred = x.square() - squares
        product = centred * centred[:, 2:3]
        error = product.std(0) / math.sqrt(count)
        assert ((product.mean(0) + 0.5 * slope).abs() <= 5 * error + 1e-5 * slope.abs()).all()


def test_sampled_rotations_have_the_right_mean():
    F = torch.stack(
        [proper(s, k)[0] for k, s in enumerate([(3, 2, 1), (10, 10, -10), (1e4, 1, 0)])]
    )
    law = MatrixFisher.of(F)
    R = law.sample(100_000, torch.Generator().manual_seed(0))
    assert R.shape == (100_000, 3, 3, 3)
    assert torch.allclose(R @ R.mT, torch.eye(3).double().expand_as(R), atol=1e-12)
    assert torch.allclose(torch.linalg.det(R), torch.ones(()).double())
    assert ((R.mean(0) - law.moments()[1]).abs() <= 5 * R.std(0) / math.sqrt(len(R)) + 1e-15).all()
