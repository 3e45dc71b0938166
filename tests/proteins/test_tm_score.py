"""TM-score: closed cases, brute force, and the library's formula at the superposition found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import roma
import torch

from orbitwise.errors import InputError
from orbitwise.proteins.tm_score import nearest_chain, tm_d0, tm_score


def walk(batch: int, residues: int, seed: int, stiffness: float = 1.0) -> torch.Tensor:
    """Random chains with steps of 3.8 Å, as compact as proteins are."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(batch, residues, 3, generator=generator, dtype=torch.float64)
    for k in range(1, residues):
        steps[:, k] += stiffness * steps[:, k - 1] / steps[:, k - 1].norm(dim=-1, keepdim=True)
    x = (3.8 * steps / steps.norm(dim=-1, keepdim=True)).cumsum(1)
    return x - x.mean(1, keepdim=True)


def turned(x: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(
            torch.randn(len(x), 4, generator=generator, dtype=x.dtype), dim=-1
        )
    )
    return x @ turn.mT + 20 * torch.randn(len(x), 1, 3, generator=generator, dtype=x.dtype)


def test_a_moved_chain_scores_one_and_its_mirror_image_does_not():
    x = walk(6, 50, 0)
    assert torch.allclose(tm_score(x, turned(x, 1)), torch.ones(6, dtype=torch.float64), atol=1e-9)
    assert tm_score(x, -turned(x, 1)).max() < 0.7


def test_is_symmetric_and_does_not_see_padding():
    x, y = walk(5, 40, 2), walk(5, 40, 3)
    score = tm_score(x, y)
    assert torch.allclose(
        score, tm_score(y, turned(x, 4)), atol=2e-3
    )  # the search, not the score, depends on it
    pad = torch.full((5, 7, 3), torch.nan, dtype=torch.float64)
    mask = torch.arange(47) < 40
    padded = [torch.cat([v, pad], 1) for v in (x, y)]
    assert torch.allclose(tm_score(*padded, mask.expand(5, -1)), score, atol=1e-12)
    assert torch.all(tm_score(x, y, length=torch.full((5,), 80)) <= score)


def test_half_a_chain_that_fits_scores_half():
    """The second half is carried 200 Å away: the first superposes exactly, the rest adds
    nothing."""
    x = walk(4, 60, 5)
    y = turned(x, 6)
    y[:, 30:] += 200
    assert torch.allclose(tm_score(x, y), torch.full((4,), 0.5, dtype=torch.float64), atol=5e-3)


def brute_force(
    x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, starts: int = 5_000
) -> float:
    """The best of random rotations with random anchors, each refined by fixed-weight gradient
    ascent of the formula."""
    quat = torch.nn.functional.normalize(
        torch.randn(starts, 4, generator=generator, dtype=torch.float64), dim=-1
    )
    anchor = torch.randint(len(x), (starts,), generator=generator)
    d0 = float(tm_d0(torch.tensor(len(x))))

    def score(quat, shift):
        turn = roma.unitquat_to_rotmat(torch.nn.functional.normalize(quat, dim=-1))
        square = (x @ turn.mT + shift[:, None] - y).square().sum(-1)
        return (1 / (1 + square / d0**2)).mean(-1)

    turn = roma.unitquat_to_rotmat(quat)
    shift = y[anchor] - (turn @ x[anchor][..., None])[..., 0]
    top = score(quat, shift).topk(40).indices
    quat, shift = quat[top].clone().requires_grad_(), shift[top].clone().requires_grad_()
    ascent = torch.optim.Adam([{"params": [quat], "lr": 0.04}, {"params": [shift], "lr": 0.2}])
    best = 0.0
    for _ in range(120):
        value = score(quat, shift)
        best = max(best, float(value.detach().max()))
        ascent.zero_grad()
        (-value.sum()).backward()
        ascent.step()
    return best


def test_search_is_as_good_as_brute_force():
    x, y = walk(4, 30, 7, 2.0), walk(4, 30, 8, 2.0)
    y[:2, :18] = turned(x[:2, :18] + 0.7 * walk(2, 18, 9) / 10, 10)  # a common part
    found = tm_score(x, y)
    generator = torch.Generator().manual_seed(11)
    for k in (0, 2):  # with a common part and without
        assert float(found[k]) > brute_force(x[k], y[k], generator) - 0.004


def test_agrees_with_the_library_at_its_superposition():
    """biotite scores coordinates as they are: superposed here on all residues, it must not find
    more than the search, and for chains that differ by small noise, where that superposition is all
    but the best one, the same."""
    structure = pytest.importorskip("biotite.structure", reason="needs orbitwise[proteins]")
    x = walk(3, 45, 12)
    y = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(13), dtype=x.dtype)
    found = tm_score(x, turned(y, 14))
    every = np.arange(45)
    for k in range(3):
        fixed, moved = structure.AtomArray(45), structure.AtomArray(45)
        for array, ca in ((fixed, x[k]), (moved, y[k])):
            array.coord, array.res_id = ca.numpy().astype(np.float32), every
            array.res_name[:], array.atom_name[:] = "GLY", "CA"
        moved, _ = structure.superimpose(fixed, moved)
        theirs = structure.tm_score(fixed, moved, every, every, reference_length=45)
        assert theirs - 1e-5 < float(found[k]) < theirs + 2e-3


def test_scale():
    assert float(tm_d0(torch.tensor(100))) == pytest.approx(1.24 * 85 ** (1 / 3) - 1.8)
    assert tm_d0(torch.tensor([5, 15, 19])).tolist() == [0.5, 0.5, 0.5]


def test_nearest_chain_finds_a_shifted_fragment():
    library = torch.nn.functional.pad(walk(5, 44, 15), (0, 0, 0, 6))
    mask = (torch.arange(50) < 44).expand(5, -1)
    x = torch.cat([turned(library[3:4, 9:39], 16), walk(1, 30, 17)])
    found = nearest_chain(x, torch.ones(2, 30, dtype=torch.bool), library, mask)
    assert found.index[0] == 3 and found.shift[0] == 9
    assert float(found.score[0]) == pytest.approx(1, abs=1e-5) and found.score[1] < 0.6
    # an alignment that hangs over the end by a third
    x = torch.cat([turned(library[2:3, 24:44], 18), 100 + walk(1, 10, 19)], 1)
    found = nearest_chain(x, torch.ones(1, 30, dtype=torch.bool), library, mask)
    assert found.index[0] == 2 and found.shift[0] == 24
    assert float(found.score[0]) == pytest.approx(2 / 3, abs=0.01)


def test_nearest_chain_without_one_long_enough_scores_nothing():
    found = nearest_chain(
        walk(1, 40, 20),
        torch.ones(1, 40, dtype=torch.bool),
        walk(2, 12, 21),
        torch.ones(2, 12, dtype=torch.bool),
    )
    assert float(found.score) == 0


def test_bad_shapes():
    with pytest.raises(InputError, match="needs two"):
        tm_score(walk(1, 5, 0), walk(1, 6, 0))
    with pytest.raises(InputError, match="no matched residue"):
        tm_score(walk(1, 5, 0), walk(1, 5, 0), torch.zeros(1, 5, dtype=torch.bool))
    assert math.isfinite(float(tm_score(walk(1, 1, 0), walk(1, 1, 1))))
