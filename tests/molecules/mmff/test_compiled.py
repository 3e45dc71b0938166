"""The machine code against the torch operations, which have RDKit as their judge, and what it does
where it cannot work."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import orbitwise as ow
from molecules.mmff.test_energy import MOLECULES, distorted, embedded, errors
from orbitwise.molecules.mmff import energy as mmff

pytest.importorskip("llvmlite")


@pytest.fixture
def without_cache():
    mmff._kernel.cache_clear()
    yield
    mmff._kernel.cache_clear()


def batch(name, size, scale=0.1):
    mol, positions = embedded(MOLECULES[name])
    gen = torch.Generator().manual_seed(2)
    noise = torch.randn(size, *positions.shape, generator=gen, dtype=torch.float64)
    return ow.molecules.MMFF94(mol), positions + scale * noise


def test_it_is_what_runs_on_a_cpu(monkeypatch):
    energy, x = batch("water", 2)
    monkeypatch.setattr(energy, "_by_torch", None)
    energy.value_and_grad(x)
    energy.value_and_grad(x.float())


@pytest.mark.parametrize("name", MOLECULES)
def test_equals_torch(name):
    energy, x = batch(name, 5)
    expected, slope = energy._by_torch(x)
    size = 1 + expected.abs()
    steep = slope.flatten(1).norm(dim=1)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        value, grad = energy.value_and_grad(x.to(dtype))
        assert value.dtype == grad.dtype == dtype
        assert ((value.double() - expected).abs() / size).max() < tolerance
        gap = (grad.double() - slope).flatten(1).norm(dim=1)
        assert (gap / steep).max() < tolerance


@pytest.mark.parametrize("name", ["alanine dipeptide", "diyne", "nitro", "guanidinium"])
def test_torch_without_it_equals_rdkit(name, monkeypatch):
    monkeypatch.setattr(mmff, "_kernel", lambda dtype: None)
    mol, positions = embedded(MOLECULES[name])
    assert max(errors(mol, distorted(positions))) < 1e-4


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 40])
def test_every_geometry_of_any_batch(size):
    energy, x = batch("epoxide", 40)
    for dtype in (torch.float32, torch.float64):
        whole, slopes = energy.value_and_grad(x.to(dtype))
        part, slope = energy.value_and_grad(x[-size:].to(dtype))
        assert torch.equal(part, whole[-size:]) and torch.equal(slope, slopes[-size:])


def test_strided_and_many_dimensions():
    energy, x = batch("epoxide", 12)
    value, grad = energy.value_and_grad(x)
    turned = x.view(3, 4, *x.shape[1:]).transpose(0, 1)
    there, slope = energy.value_and_grad(turned)
    assert torch.equal(there, value.view(3, 4).T)
    assert torch.equal(slope, grad.view(3, 4, *x.shape[1:]).transpose(0, 1))
    fortran = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(energy.value_and_grad(fortran)[1], grad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_geometry_spoils_no_other(bad):
    energy, x = batch("nitro", 32)
    for dtype in (torch.float32, torch.float64):
        expected, slope = energy.value_and_grad(x.to(dtype))
        for atom in range(x.shape[1]):
            y = x.to(dtype, copy=True)
            y[5, atom, 1] = bad
            y[20, 0], y[21, 0] = y[20, 1], y[21, -1]  # bonded atoms coincide, others
            value, grad = energy.value_and_grad(y)
            assert not torch.isfinite(value[5]) and not torch.isfinite(grad[5]).all()
            assert torch.isfinite(value[[20, 21]]).all() and torch.isfinite(grad[[20, 21]]).all()
            good = [k for k in range(32) if k not in (5, 20, 21)]
            assert torch.equal(value[good], expected[good])
            assert torch.equal(grad[good], slope[good])


def test_fragments_far_apart_do_not_overflow():
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("[Na+].[Cl-]"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    energy = ow.molecules.MMFF94(mol)
    x = torch.zeros(1, 2, 3)
    for far in (1e3, 1e5, 1e7):
        x[0, 1, 0] = far
        (value, grad), (expected, slope) = energy.value_and_grad(x), energy._by_torch(x)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(grad, slope, rtol=1e-5, atol=0)


def test_threads():
    energy, x = batch("caffeine", 64)
    expected = energy.value_and_grad(x)
    with ThreadPoolExecutor(4) as pool:
        for value, grad in pool.map(lambda _: energy.value_and_grad(x), range(40)):
            assert torch.equal(value, expected[0]) and torch.equal(grad, expected[1])


def test_torch_takes_over_without_llvmlite(monkeypatch, without_cache, recwarn):
    for name in [n for n in sys.modules if n.split(".")[0] == "llvmlite"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    for name in ("compiled", "lanes"):
        monkeypatch.delitem(sys.modules, f"orbitwise.molecules.mmff.{name}", raising=False)
    energy, x = batch("epoxide", 3)
    value, grad = energy.value_and_grad(x)
    expected, slope = energy._by_torch(x)
    assert mmff._kernel(x.dtype) is None and not recwarn.list
    assert torch.equal(value, expected) and torch.equal(grad, slope)


def test_a_compiler_that_fails_is_reported_once(monkeypatch, without_cache):
    from orbitwise.molecules.mmff.lanes import Code

    def fail(self):
        raise RuntimeError("no executable memory")

    monkeypatch.setattr(Code, "compile", fail)
    energy, x = batch("epoxide", 3)
    with pytest.warns(UserWarning, match="by torch.*no executable memory") as told:
        value, _ = energy.value_and_grad(x)
        energy.value_and_grad(x)
    assert len(told) == 1
    assert torch.equal(value, energy._by_torch(x)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_angles_from_sine_and_cosine(dtype):
    from orbitwise.molecules.mmff.compiled import angle_of
    from orbitwise.molecules.mmff.lanes import Code, Rows

    code = Code("float" if dtype == np.float32 else "double", 8, pointers=3)
    (sines, cosines, angles), count = code.arguments
    columns = [Rows(code, base, code.integer(0), 1) for base in (sines, cosines, angles)]
    with code.loop(0, count) as k:
        (sine,), (cosine,) = (column[k, slice(None)] for column in columns[:2])
        columns[2][k, slice(None)] = [angle_of(sine, cosine)]
    run = code.compile()
    theta = np.concatenate(
        [
            np.linspace(0, np.pi, 4000),
            np.geomspace(1e-12, 1, 80),
            np.pi - np.geomspace(1e-12, 1, 80),
        ]
    )
    theta = np.resize(theta, 8 * math.ceil(len(theta) / 8))
    sine, cosine, found = (
        np.ascontiguousarray(a, dtype) for a in (np.sin(theta), np.cos(theta), theta)
    )
    sine = np.maximum(sine, 0)
    expected = np.arctan2(sine.astype(float), cosine.astype(float))
    found[:] = np.nan
    run(sine.ctypes.data, cosine.ctypes.data, found.ctypes.data, len(theta) // 8)
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps, atol=1e-300)
