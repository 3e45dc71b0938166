"""Molecules on grids: against the formula atom by atom, turned grids against turned atoms, files
that are broken."""

import math

import numpy as np
import pytest
import torch

import orbitwise as ow
from orbitwise.data import PointBatch, VoxelGrid, read_geometries
from orbitwise.errors import InputError
from orbitwise.groups.polyhedral import octahedral


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def molecules(count=4, size=6, scale=1.2, seed=0, dtype=torch.float64):
    g = rng(seed)
    mask = torch.arange(size) < torch.randint(2, size + 1, (count, 1), generator=g)
    x = scale * torch.randn(count, size, 3, generator=g, dtype=torch.float64)
    species = torch.tensor([1, 6, 8])[torch.randint(0, 3, (count, size), generator=g)]
    bonds = torch.zeros(count, size, size, dtype=torch.long)
    return PointBatch((x * mask[..., None]).to(dtype), species * mask, bonds, mask)


def test_densities_are_those_of_the_formula():
    """Voxel by voxel and atom by atom, from the definition."""
    batch, grid = (
        molecules(2),
        VoxelGrid(n=4, spacing_angstrom=0.9, radius_angstrom=0.8, elements=(8, 1, 6)),
    )
    density = grid.voxelise(batch)
    assert density.shape == (2, 3, 4, 4, 4)
    for b in range(2):
        for c, element in enumerate(grid.elements):
            for i, j, k in np.ndindex(4, 4, 4):
                voxel = np.array([i - 1.5, j - 1.5, k - 1.5]) * 0.9
                left = 1.0
                for a in range(6):
                    if batch.mask[b, a] and batch.species[b, a] == element:
                        d = np.linalg.norm(voxel - batch.x[b, a].numpy())
                        left *= 1 - math.exp(-((d / (0.93 * 0.8)) ** 2))
                assert abs(float(density[b, c, i, j, k]) - (1 - left)) < 1e-12


@pytest.mark.parametrize("n", [5, 8])
def test_densities_of_turned_atoms_are_turned_densities(n):
    """All 24 rotations of the cube, to rounding: positions times the matrices against the renamed
    voxels."""
    group, grid, batch = ow.VoxelRotations(), VoxelGrid(n=n), molecules()
    table, _ = group.enumerate()
    turned = torch.stack(
        [
            grid.voxelise(batch.with_x(batch.x @ rotation.mT))
            for rotation in group.matrices(table, torch.float64)
        ]
    )
    torch.testing.assert_close(
        group.act(table[:, None], grid.voxelise(batch)), turned, rtol=0, atol=1e-13
    )


def test_slopes_agree_with_differences_and_stay_finite_on_a_voxel():
    grid = VoxelGrid(n=4)
    batch = molecules(2, size=3)
    weight = torch.randn(2, 5, 4, 4, 4, generator=rng(1), dtype=torch.float64)
    free = batch.x[batch.mask].clone().requires_grad_()

    def value(moved):
        x = torch.zeros_like(batch.x)
        x[batch.mask] = moved
        return (weight * grid.voxelise(batch.with_x(x))).sum()

    assert torch.autograd.gradcheck(value, free, atol=1e-6)
    on_voxel = torch.full_like(free, -0.3).requires_grad_()  # every atom in the middle of one voxel
    (slope,) = torch.autograd.grad(value(on_voxel), on_voxel)
    assert slope.isfinite().all()


def test_the_norm_of_one_atom():
    """The sum of squares on the grid against the integral that ``atom_norm`` stands for, wherever
    the atom is."""
    for grid in (VoxelGrid(), VoxelGrid(32, 0.25, 0.5)):
        x = 0.5 * torch.rand(8, 1, 3, generator=rng(2), dtype=torch.float64)
        one = torch.ones(8, 1, dtype=torch.long)
        density = grid.voxelise(
            PointBatch(x, one, torch.zeros(8, 1, 1, dtype=torch.long), one.bool())
        )
        norms = density.square().flatten(1).sum(1).sqrt()
        torch.testing.assert_close(norms, torch.full_like(norms, grid.atom_norm), rtol=2e-3, atol=0)


def test_what_fits_stays_inside_wherever_it_is_placed():
    grid, batch = VoxelGrid(n=8, spacing_angstrom=1.0), molecules(200, scale=1.0)
    fits = grid.fits(batch)
    assert 20 < fits.sum() < 180
    inside = batch[fits]
    for seed in range(20):
        placed = grid.place(inside, ow.SO3(), rng(seed))
        far = torch.where(inside.mask, placed.x.abs().amax(-1), 0)
        assert far.max() + grid.radius_angstrom <= grid.half_angstrom
        assert torch.equal(placed.x[~inside.mask], inside.x[~inside.mask])


@pytest.mark.parametrize(
    "group", [None, octahedral(), ow.SO3()], ids=["none", "octahedral", "rotations"]
)
def test_placing_keeps_distances_and_shifts_evenly(group):
    grid, batch = VoxelGrid(), molecules(500, size=2, seed=3)
    batch = PointBatch(batch.x, batch.species, batch.bonds, torch.ones_like(batch.mask))
    placed = grid.place(batch, group, rng(4))
    torch.testing.assert_close(
        (placed.x[:, 0] - placed.x[:, 1]).norm(dim=-1), (batch.x[:, 0] - batch.x[:, 1]).norm(dim=-1)
    )
    if group is None:
        shift = placed.x[:, 0] - batch.x[:, 0]
        assert shift.abs().max() <= 0.3
        assert abs(float(shift.var()) - 0.6**2 / 12) < 0.003  # of a uniform density over one voxel
    assert torch.equal(grid.place(batch, group, rng(4)).x, placed.x)


def test_elements_and_sizes_are_checked():
    with pytest.raises(InputError, match="no channel"):
        VoxelGrid(n=4, elements=(1, 6)).voxelise(molecules())
    with pytest.raises(InputError, match="above 0"):
        VoxelGrid(n=0)
    with pytest.raises(InputError, match="once"):
        VoxelGrid(elements=(1, 1))


def test_geometries_of_a_file(tmp_path):
    path = tmp_path / "two.npz"
    positions = 2 * np.random.default_rng(0).normal(size=(5, 3))
    good = {"offsets": [0, 2, 5], "atomic_numbers": [1, 8, 6, 1, 9], "positions": positions}
    np.savez(path, **good)
    batch = read_geometries(path)
    assert batch.species.tolist() == [[1, 8, 0], [6, 1, 9]] and batch.mask.sum() == 5
    assert batch.x.sum(1).abs().max() < 1e-6
    np.testing.assert_allclose(batch.x[1], positions[2:] - positions[2:].mean(0), atol=1e-6)
    with pytest.raises(InputError, match="no such file"):
        read_geometries(tmp_path / "none.npz")
    for key, value, message in [
        ("offsets", [0, 2, 6], "offsets"),
        ("positions", np.full((5, 3), np.nan), "finite"),
        ("positions", positions[:4], "shape"),
        ("positions", np.where(np.arange(15).reshape(5, 3) == 7, 1e6, positions), "molecule 2"),
        ("positions", np.zeros((5, 3)), "apart"),
        ("atomic_numbers", [1, 8, 6, 0, 9], "atomic_numbers"),
        ("atomic_numbers", [1, 8, 6, 1, 9, 9], "shape"),
    ]:
        np.savez(path, **{**good, key: value})
        with pytest.raises(InputError, match=message):
            read_geometries(path)
    path.write_text("text")
    with pytest.raises(InputError, match="not an"):
        read_geometries(path)
    np.savez(path, offsets=[0, 1])
    with pytest.raises(InputError, match="has no atomic_numbers, positions"):
        read_geometries(path)


def test_qm9_fits_into_the_small_grid(shared_data):
    batch, grid = read_geometries(shared_data("qm9_small/qm9_small.npz")), VoxelGrid()
    kept = batch[grid.fits(batch)]
    assert len(batch) == 4015 and 1500 < len(kept) < 4015
    assert set(kept.species.unique().tolist()) <= {0, *grid.elements}
    some = kept[torch.arange(0, len(kept), 100)]
    density = grid.voxelise(grid.place(some, ow.SO3(), rng()))
    assert density.min() >= 0 and density.max() <= 1
    # the norm of a molecule does not depend on where its atoms fall between the voxels: the grid
    # resolves them
    again = grid.voxelise(grid.place(some, ow.SO3(), rng(1)))
    norms = [d.square().flatten(1).sum(1).sqrt() for d in (density, again)]
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=0)
