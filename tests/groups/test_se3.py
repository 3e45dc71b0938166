"""Rigid motions against scipy's rotations and against what they do to points."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from orbitwise.groups.se3 import SE3, rigid, rotation_of, rotation_vector


def vectors(angles):
    gen = torch.Generator().manual_seed(0)
    axes = torch.randn(len(angles), 3, generator=gen, dtype=torch.float64)
    return torch.nn.functional.normalize(axes, dim=-1) * angles[:, None]


ANGLES = torch.cat(
    [
        torch.linspace(0.01, 3.1, 50, dtype=torch.float64),
        torch.tensor([0.0, 1e-12, 1e-7, 1e-3, math.pi - 1e-5, math.pi - 1e-9], dtype=torch.float64),
    ]
)


def test_exponential_and_logarithm_are_scipys():
    v = vectors(ANGLES)
    matrix = torch.from_numpy(Rotation.from_rotvec(v.numpy()).as_matrix())
    torch.testing.assert_close(rotation_of(v), matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(rotation_vector(matrix), v, rtol=0, atol=1e-13)


def test_half_turns_have_one_of_their_two_logarithms():
    v = vectors(torch.full((20,), math.pi, dtype=torch.float64))
    back = rotation_vector(rotation_of(v))
    sign = (back * v).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(sign * back, v, rtol=0, atol=1e-13)
    axes = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]]))
    torch.testing.assert_close(rotation_vector(axes).abs(), math.pi * torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_frames_move_as_their_points_do(dtype):
    gen = torch.Generator().manual_seed(1)
    group = SE3()
    g = group.sample((4,), generator=gen, dtype=torch.float64)
    g[..., 3] = torch.randn(4, 3, generator=gen, dtype=torch.float64)
    frames = rigid(
        rotation_of(torch.randn(4, 7, 3, generator=gen, dtype=torch.float64)),
        torch.randn(4, 7, 3, generator=gen, dtype=torch.float64),
    )
    atom = torch.randn(3, generator=gen, dtype=torch.float64)
    inside = frames[..., :3] @ atom + frames[..., 3]
    expected = np.einsum("bij,bnj->bni", g[..., :3], inside) + g[:, None, :, 3].numpy()
    moved = group.act(g.to(dtype), frames.to(dtype))
    assert moved.dtype == dtype
    found = moved.double()[..., :3] @ atom + moved.double()[..., 3]
    tolerance = 20 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)
