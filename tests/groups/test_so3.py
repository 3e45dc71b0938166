"""Rotations from quaternions against two other libraries, and uniform ones against the moments of
the uniform law."""

import pytest
import roma
import torch
from scipy.spatial.transform import Rotation

import orbitwise as ow
from orbitwise.groups.so3 import from_quaternion, uniform_quaternion


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rotations_are_those_of_scipy_and_roma():
    q = uniform_quaternion((200, 3), generator=rng(), dtype=torch.float64)
    R = from_quaternion(q)
    assert R.shape == (200, 3, 3, 3)
    by_scipy = Rotation.from_quat(q.reshape(-1, 4).numpy()).as_matrix()
    assert (R.reshape(-1, 3, 3) - torch.from_numpy(by_scipy)).abs().max() < 1e-14
    assert (R - roma.unitquat_to_rotmat(q)).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_seed_gives_the_rotations_it_always_gave(dtype):
    """Earlier versions drew by roma: numbers of old runs can be had again."""
    q = roma.random_unitquat((50,), dtype=dtype, generator=rng(4))
    assert torch.equal(ow.SO3().sample((50,), generator=rng(4), dtype=dtype), from_quaternion(q))


def test_uniform_quaternions_have_the_moments_of_the_sphere():
    """E q_i² = 1/4, E q_i² q_j² = (1 + 2 δ_ij)/24, all odd moments 0."""
    number = 400_000
    q = uniform_quaternion((number,), generator=rng(1), dtype=torch.float64)
    assert (q.norm(dim=-1) - 1).abs().max() < 1e-14

    eye, square = torch.eye(4, dtype=torch.float64), q.square()
    tolerance = 5 / number**0.5  # five standard errors of a number within [-1, 1]
    assert (q.mean(0)).abs().max() < tolerance
    assert (q.mT @ q / number - eye / 4).abs().max() < tolerance
    assert (square.mT @ square / number - (1 + 2 * eye) / 24).abs().max() < tolerance
