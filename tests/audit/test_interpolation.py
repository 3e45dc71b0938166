"""Grids under all rotations: maps that are equivariant are charged with interpolation alone, and
that is measured."""

import pytest
import torch

from orbitwise.audit import Enumerate, Haar, audit_equivariance
from orbitwise.audit.interpolation import TurnedGrids, interpolation_audit
from orbitwise.data import PointBatch, VoxelGrid
from orbitwise.groups.polyhedral import octahedral
from orbitwise.groups.so3 import SO3
from orbitwise.groups.voxels import rotate_grid


class Octahedral:
    """The 24 rotations as nodes on SO(3): those that need no interpolation."""

    blocks = 2

    def size(self, group):
        return 24

    def draw(self, group, count, generator, like):
        turns = octahedral().matrices.to(like)
        return turns.repeat(2, 1, 1)[:, None].expand(48, count, 3, 3)


def molecules(count=3, size=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, size, 3, generator=g, dtype=torch.float64).to(dtype)
    mask = torch.ones(count, size, dtype=torch.bool)
    species = torch.tensor([1, 6])[torch.randint(0, 2, (count, size), generator=g)]
    return PointBatch(x, species, torch.zeros(count, size, size, dtype=torch.long), mask)


GRID = VoxelGrid(n=12, spacing_angstrom=0.7, radius_angstrom=1.2, elements=(1, 6))


def test_equivariant_maps_audit_to_rounding_where_nothing_is_interpolated():
    """At the 24 rotations of the cube, where ``rotate_grid`` is exact."""
    found = interpolation_audit(
        lambda y: y.tanh(), TurnedGrids(GRID, molecules(), 0.5, nodes=Octahedral(), seed=1)
    )
    for audit in (found.model, found.identity, found.smoothing, found.perfect):
        assert audit.rounding and abs(audit.equivariance.value) < 1e-14 * (audit.total.value + 1)
    assert abs(found.identity.total.value / 0.25 - _inside_share()) < 0.02  # the noise itself
    assert found.round_trip_clean > 0.01  # its own rotations are others


def _inside_share():
    line = torch.arange(12) - 5.5
    return float(((line[:, None, None] ** 2 + line[:, None] ** 2 + line**2) <= 16).double().mean())


def test_apparent_errors_are_those_of_rotations_by_hand():
    """The identity, with two rotations per item: turned there and back, and the spread about the
    mean of both."""
    turned = TurnedGrids(GRID, molecules(), 0.5, nodes=Haar(2), seed=3)
    g = SO3().sample((2, 3), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    side = slice(turned.margin, turned.margin + 12)
    answers = []
    for rotation in g:
        x = (rotation[:, None] @ turned.placed.x[..., None])[..., 0]
        noise = rotate_grid(rotation, turned.noise)[..., side, side, side]
        noisy = GRID.voxelise(turned.placed.with_x(x)) + noise
        answers.append(turned.inside * rotate_grid(rotation.mT, noisy))
    a, b = answers
    by_hand = float((a - b).square().mean() / 2)  # unbiased variance of two
    assert abs(turned.identity.equivariance.value - by_hand) < 1e-10 * by_hand
    total = torch.stack(answers) - turned.inside * turned.clean
    assert abs(turned.identity.total.value - float(total.square().mean())) < 1e-10


def test_what_interpolation_takes():
    found = interpolation_audit(lambda y: 0 * y, TurnedGrids(GRID, molecules(), 0.5, seed=5))
    assert found.model.equivariance.value == pytest.approx(
        0, abs=1e-15
    )  # a constant has nothing to turn
    assert 0.25 < found.noise_kept < 0.35  # (2/3)³ within what three grids can say
    assert found.round_trip_clean < found.round_trip_noisy < 1
    assert found.smoothing.percent.value < 1 < found.identity.percent.value
    assert any("all rotations" in line for line in found.lines())


def test_the_error_of_a_perfect_answer_falls_with_the_spacing():
    fine = VoxelGrid(n=24, spacing_angstrom=0.35, radius_angstrom=1.2, elements=(1, 6))
    coarse_error, fine_error = (
        TurnedGrids(grid, molecules(), 0.5, nodes=Haar(4), seed=6).perfect.equivariance.value
        for grid in (GRID, fine)
    )
    assert (
        6 < coarse_error / fine_error < 40
    )  # the error falls with the square of the spacing, its square with h⁴


def test_rotations_of_the_grid_and_of_positions_agree_for_a_map_that_is_not_equivariant():
    """A position-dependent map at the 24: through turned positions, and through the exact action on
    grids."""
    turned = TurnedGrids(GRID, molecules(), 0.5, nodes=Octahedral(), seed=7)
    weight = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]  # varies along y only
    through_positions = turned.audit(lambda y: weight * y)

    from orbitwise.audit import AuditBatch
    from orbitwise.groups.voxels import VoxelRotations

    inside = turned.inside
    batch = AuditBatch(turned.noisy, inside * turned.clean)
    exact = audit_equivariance(
        lambda y: inside * weight * y, VoxelRotations(), batch, outputs="field", nodes=Enumerate()
    ).row()
    assert exact.percent.value > 5
    assert through_positions.total.value == pytest.approx(exact.total.value, rel=1e-9)
    assert through_positions.equivariance.value == pytest.approx(exact.equivariance.value, rel=1e-6)
