"""Rotations of grids against ``torch.rot90``, against turned positions, and the loss that
interpolation brings."""

import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.groups.polyhedral import octahedral
from orbitwise.groups.so3 import SO3
from orbitwise.groups.voxels import VoxelRotations, rotate_grid

GROUP = VoxelRotations()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def grids(*batch, n=5, dtype=torch.float64):
    return torch.randn((*batch, n, n, n), generator=rng(1), dtype=dtype)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize(("plane", "axis"), [((-2, -1), 0), ((-1, -3), 1), ((-3, -2), 2)])
def test_quarter_turns_are_those_of_rot90(n, plane, axis):
    """A right-handed quarter turn about x takes y to z, about y takes z to x, about z takes x to
    y."""
    table, _ = GROUP.enumerate()
    turn = torch.zeros(3, 3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[axis, axis], turn[b, a], turn[a, b] = 1, 1, -1
    (g,) = ((GROUP.matrices(table) - turn).abs().sum((1, 2)) == 0).nonzero()
    x = grids(2, 3, n=n)
    assert torch.equal(GROUP.act(g, x), torch.rot90(x, 1, plane))


def test_all_24_come_from_quarter_turns_and_are_different():
    x = grids(1)
    seen = [
        torch.rot90(torch.rot90(torch.rot90(x, i, (-2, -1)), j, (-1, -3)), k, (-3, -2))
        for i in range(4)
        for j in range(4)
        for k in range(4)
    ]
    expected = torch.unique(torch.stack(seen).flatten(1), dim=0)
    table, _ = GROUP.enumerate()
    found = torch.unique(GROUP.act(table, x).flatten(1), dim=0)
    assert len(table) == 24 and torch.equal(found, expected)
    assert torch.equal(GROUP.matrices(table, torch.float64), octahedral().matrices)


def test_values_are_renamed_bit_by_bit_and_gradients_go_back():
    x = grids(2, 3, dtype=torch.float32).requires_grad_()
    g = GROUP.sample((7, 2), generator=rng())
    y = GROUP.act(g, x)
    assert torch.equal(
        y.flatten(-3).sort(-1).values, x.flatten(-3).sort(-1).values.expand(7, 2, 3, 125)
    )
    weight = torch.randn(y.shape, generator=rng(3))
    (slope,) = torch.autograd.grad((y * weight).sum(), x)
    torch.testing.assert_close(
        slope, GROUP.act(GROUP.inverse(g), weight).sum(0), rtol=1e-5, atol=1e-5
    )


def test_a_vector_of_slopes_turns_with_the_matrices():
    """The centre of mass of a positive field is a vector: it turns by ``matrices``."""
    x = grids(9, 1).exp()
    line = torch.arange(5.0, dtype=torch.float64) - 2

    def centre(f):
        parts = [f.sum(axes) @ line for axes in ((-2, -1), (-3, -1), (-3, -2))]
        return torch.cat(parts, -1) / f.sum((-3, -2, -1))

    g = GROUP.sample((9,), generator=rng(2))
    turned = (GROUP.matrices(g, torch.float64) @ centre(x)[..., None])[..., 0]
    torch.testing.assert_close(centre(GROUP.act(g, x)), turned, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [4, 5])
def test_interpolation_is_exact_for_the_24(n):
    table, _ = GROUP.enumerate()
    x = grids(2, 3, n=n)
    rotations = GROUP.matrices(table, torch.float64)
    torch.testing.assert_close(
        rotate_grid(rotations[:, None], x), GROUP.act(table[:, None], x), rtol=0, atol=1e-12
    )


def test_interpolation_of_a_smooth_field_is_of_second_order_in_the_spacing():
    """Against the turned formula; halving the spacing takes the error to a quarter."""
    rotation = SO3().sample((6,), generator=rng(4), dtype=torch.float64)
    centre = torch.tensor([0.15, -0.1, 0.2], dtype=torch.float64)

    def error(n):
        line = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
        r = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)

        def field(c):
            return torch.exp(-8 * (r - c).square().sum(-1))

        exact = torch.stack([field(c)[None] for c in rotation @ centre])
        return float((rotate_grid(rotation, field(centre)[None]) - exact).square().mean().sqrt())

    assert error(16) < 0.02
    assert 3.3 < error(16) / error(32) < 4.7


def test_interpolation_keeps_three_tenths_of_the_variance_of_noise():
    """(2/3)³ on average over places in the cell, in the part of the grid that turns onto itself."""
    noise = torch.randn(300, 1, 14, 14, 14, generator=rng(5))
    turned = rotate_grid(SO3().sample((300,), generator=rng(6)), noise)[..., 4:10, 4:10, 4:10]
    assert abs(float(turned.var()) - (2 / 3) ** 3) < 0.02


def test_interpolation_broadcasts_as_act_does():
    x, rotation = grids(2, 3), SO3().sample((4, 2), generator=rng(), dtype=torch.float64)
    y = rotate_grid(rotation, x)
    assert y.shape == (4, 2, 3, 5, 5, 5)
    torch.testing.assert_close(rotate_grid(rotation[1, 1], x[1]), y[1, 1])


def test_what_is_no_grid_is_refused():
    with pytest.raises(InputError, match="n, n, n"):
        GROUP.act(GROUP.identity(), torch.zeros(2, 3, 4, 4, 5))
    with pytest.raises(InputError, match="n, n, n"):
        rotate_grid(torch.eye(3), torch.zeros(4, 4, 4))
    with pytest.raises(InputError, match="3, 3"):
        rotate_grid(torch.eye(2), torch.zeros(1, 4, 4, 4))
