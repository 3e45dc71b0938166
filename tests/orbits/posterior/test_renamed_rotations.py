"""Rotations times permutations: the contour integral against quadrature, the sum against image by
image, and what is left out against the bound."""

from __future__ import annotations

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import SO3
from orbitwise.orbits.posterior import finite, renamed_rotations
from orbitwise.orbits.posterior.many_rotations import Fishers
from orbitwise.orbits.posterior.matrix_fisher import MatrixFisher

FLOW = ow.GaussianProcess.flow()
LABELS = torch.tensor(
    [[1, 1, 1, 1, 2, 2, 3], [1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 3, 4, 5, 5], [7, 1, 1, 2, 2, 3, 3]]
)
SHARED = ow.Permutation(7, labels=LABELS[0])
OWN = ow.ItemPermutations.within(LABELS)


def parameters(kind: str, scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    F = torch.randn(300, 3, 3, dtype=torch.float64, generator=generator)
    if kind != "generic":
        U, _, Vh = torch.linalg.svd(F)
        U[:, :, 2] *= (torch.linalg.det(U) * torch.linalg.det(Vh)).sign()[:, None]
        values = {"reflection": [1, 1, -1], "line": [1, 0, 0], "plane": [1, 0.7, 0]}[kind]
        noise = 10.0 ** (-16 * torch.rand(300, 3, dtype=torch.float64, generator=generator))
        F = (U * (torch.tensor(values, dtype=torch.float64) + noise)[:, None]) @ Vh
    return scale * F


@pytest.mark.parametrize("kind", ["generic", "reflection", "line", "plane"])
@pytest.mark.parametrize("scale", [0, 1e-6, 0.1, 1, 5, 30, 1e3, 1e5, 1e12])
def test_contour_against_quadrature(kind, scale):
    F = parameters(kind, scale)
    law = MatrixFisher.of(F)
    log_norm, mean = law.moments()
    laws = Fishers.of(F.permute(1, 2, 0).flatten(0, 1).contiguous())
    found, turns, sure = laws.moments()
    assert ((found - log_norm).abs() <= 1e-12 + 4e-15 * law.mode_value)[sure].all()
    assert ((turns.mT.unflatten(-1, (3, 3)) - mean).abs().amax((1, 2)) <= 2e-12)[sure].all()
    slack = 1 + renamed_rotations.SLACK
    assert (laws.top * slack >= law.mode_value).all() and (law.mode_value >= log_norm - 1e-13).all()
    if scale <= 1 or (kind == "generic" and scale <= 1e3):
        assert sure.double().mean() > 0.95


def image_by_image(group, *given, **options):
    """The sum over all images, nothing left out."""
    mine = finite.summed.dispatch(SO3)
    finite.summed.register(SO3, finite.summed.dispatch(Group))
    try:
        return ow.orbit_posterior(group, FLOW, *given, **options)
    finally:
        finite.summed.register(SO3, mine)


def assert_same(group, x1, xt, t, **options):
    new = ow.orbit_posterior(group, FLOW, x1, xt, t, **options)
    old = image_by_image(group, x1, xt, t, **options)
    for name in ("mean", "log_evidence", "ess"):  # the score is that of the mean
        a, b = getattr(new, name), getattr(old, name)
        assert ((a - b).abs() <= 1e-11 + 1e-11 * b.abs()).all(), name


@pytest.mark.parametrize("inside", [ow.SO3(), ow.O3()], ids=str)
@pytest.mark.parametrize("outside", [SHARED, OWN], ids=["shared", "own"])
def test_sum_over_images(inside, outside):
    generator = torch.Generator().manual_seed(1)
    for t in (0.0, 0.1, 0.5, 0.8, 0.97):
        x1 = torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)
        xt = FLOW.perturb(x1, torch.full((4,), t), generator=generator)
        assert_same(ow.Product(inside, outside), x1, xt, t)


@pytest.mark.parametrize("outside", [SHARED, OWN], ids=["shared", "own"])
def test_padding_conformers_and_other_points(outside):
    generator = torch.Generator().manual_seed(2)
    x1 = torch.randn(3, 4, 9, 3, dtype=torch.float64, generator=generator)
    xt = FLOW.perturb(x1[0], torch.full((4,), 0.4), generator=generator)
    group = ow.Product(outside, ow.SO3())
    assert_same(group, x1[1], xt, 0.4)
    assert_same(group, x1, xt, torch.tensor([0.2, 0.4, 0.6, 0.8]))
    mask = torch.arange(9) < torch.tensor([7, 8, 9, 7])[:, None]
    assert_same(group, x1[1], xt, 0.4, mask=mask)
    with pytest.raises(InputError, match="moves padded points among real ones"):
        wrong = mask.clone()
        wrong[:, 1] = False
        ow.orbit_posterior(group, FLOW, x1[1], xt, 0.4, wrong)


def test_draws_are_those_of_the_posterior():
    generator = torch.Generator().manual_seed(3)
    x1 = torch.randn(4, 7, 3, dtype=torch.float64, generator=generator)
    xt = FLOW.perturb(x1, torch.full((4,), 0.5), generator=generator)
    for inside in (ow.SO3(), ow.O3()):
        group = ow.Product(inside, OWN)
        post = ow.orbit_posterior(group, FLOW, x1, xt, 0.5)
        images = group.act(post.sample(20000, generator), x1)
        error = images.std(0) / 20000**0.5
        assert ((images.mean(0) - post.mean).abs() < 5 * error).all()


def test_what_is_left_out_cannot_matter():
    generator = torch.Generator().manual_seed(4)
    x1 = 2 * torch.randn(64, 7, 3, dtype=torch.float64, generator=generator)
    xt = FLOW.perturb(x1, torch.full((64,), 0.75), generator=generator)
    scale = 0.75 / 0.25**2
    clouds = x1[:, SHARED.enumerate()[0]]  # (B, M, N, 3)
    F = scale * torch.einsum("bni,bmnj->bmij", xt, clouds).flatten(0, 1)
    owner = torch.arange(64).repeat_interleave(clouds.shape[1])
    laws = Fishers.of(F.permute(1, 2, 0).flatten(0, 1).contiguous())
    kept = renamed_rotations._that_matter(laws, owner, torch.zeros(len(owner)), 64)
    assert 64 <= len(kept) < 0.7 * len(owner)
    weights = torch.softmax(MatrixFisher.of(F).moments()[0].view(64, -1), 1).flatten()
    weights[kept] = 0
    assert weights.view(64, -1).sum(1).max() < renamed_rotations.LEFT_OUT
