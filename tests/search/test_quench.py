"""The batched quench against solved problems and RDKit's own minimiser."""

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdForceFieldHelpers

from orbitwise.energies.base import Energy
from orbitwise.energies.counted import Counted
from orbitwise.errors import EnergyError
from orbitwise.search.quench import minimise

KT_KCAL = 0.0019872 * 300.0


class Stiff(Energy):
    """A quadratic with curvatures from 0.1 to 1000 about a known point, the same for every
    structure."""

    def __init__(self, points=5):
        super().__init__()
        self.event_shape = (points, 3)
        g = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(
            torch.randn(3 * points, 3 * points, generator=g, dtype=torch.float64)
        )[0]
        self.register_buffer(
            "matrix", basis * torch.logspace(-1, 3, 3 * points, dtype=torch.float64) @ basis.T
        )
        self.register_buffer("centre", torch.randn(points, 3, generator=g, dtype=torch.float64))

    def forward(self, x):
        d = (x - self.centre.to(x)).flatten(-2)
        return 0.5 * (d @ self.matrix.to(x) * d).sum(-1)


class DoubleWell(Energy):
    """(z² - 1)² of every point: minima at z = ±1, each with the same depth."""

    event_shape = (2, 1)

    def forward(self, x):
        return 20 * (x.square() - 1).square().sum((-1, -2))


class RDKitMMFF(Energy):
    def __init__(self, mol):
        super().__init__()
        self.event_shape = (mol.GetNumAtoms(), 3)
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
        self.field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)

    def value_and_grad(self, x):
        # RDKit's gradient reuses the distances of the last energy call: ask for both in turn
        rows = [
            (self.field.CalcEnergy(r), self.field.CalcGrad(r))
            for r in x.double().flatten(1).tolist()
        ]
        value = torch.tensor([r[0] for r in rows], dtype=torch.float64) / KT_KCAL
        grad = torch.tensor([r[1] for r in rows], dtype=torch.float64).reshape(x.shape)
        return value.to(x), (grad / KT_KCAL).to(x)


def test_quadratic_reaches_the_point():
    x = torch.randn(4, 3, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = x.clone()
    found = minimise(x, energy := Stiff(), tolerance=1e-6, max_move=1.0, history=30)
    assert found.x.shape == x.shape and found.energy.shape == (4, 3)
    assert found.converged.all() and found.steps.max() < 150
    assert (found.x - energy.centre).abs().max() < 1e-4
    assert torch.equal(x, before)


def test_structures_do_not_influence_each_other():
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    together = minimise(x, Stiff(), tolerance=1e-2, history=30)
    apart = [minimise(row[None], Stiff(), tolerance=1e-2, history=30) for row in x]
    assert torch.allclose(together.x, torch.cat([a.x for a in apart]), atol=1e-3)
    assert (
        together.steps - torch.cat([a.steps for a in apart])
    ).abs().max() <= 10  # round-off grows


def test_stays_in_its_basin():
    x = torch.empty(500, 2, 1, dtype=torch.float64).uniform_(
        -1.6, 1.6, generator=torch.Generator().manual_seed(3)
    )
    x = x[(x.abs() > 0.05).flatten(1).all(1)]
    found = minimise(x, DoubleWell(), tolerance=1e-5)
    assert found.converged.all()
    assert torch.allclose(found.x, x.sign(), atol=1e-5)


def test_counts_and_limits():
    energy = Counted(Stiff())
    x = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with energy.stage("quench"):
        found = minimise(x, energy, max_steps=5)
    assert energy.counts["quench"].gradient == int(found.steps.sum()) == 7 * 6
    assert not found.converged.any() and (found.energy < Stiff()(x)).all()
    with pytest.raises(EnergyError):
        minimise(torch.full((1, 5, 3), float("nan")), Stiff())


def test_single_precision_converges():
    x = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(5))
    found = minimise(x, Stiff().float(), tolerance=0.05)
    assert found.converged.all() and found.x.dtype == torch.float32


def test_molecule_returns_to_the_minima_of_rdkit():
    """Minima by RDKit's own BFGS, shaken by thermal noise, are found again."""
    mol = Chem.AddHs(Chem.MolFromSmiles("CC(=O)N[C@@H](C)C(=O)NC"))
    AllChem.EmbedMultipleConfs(mol, 40, randomSeed=11)
    AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=10_000)
    x = torch.stack([torch.tensor(c.GetPositions()) for c in mol.GetConformers()])
    energy = RDKitMMFF(mol)
    theirs = energy.value_and_grad(x)[0]
    x = x + 0.08 * torch.randn(x.shape, generator=torch.Generator().manual_seed(6), dtype=x.dtype)
    found = minimise(x, energy, tolerance=0.03, max_steps=1000)
    assert found.converged.all()
    assert ((found.energy - theirs).abs() < 0.02).double().mean() >= 0.95
    loose = minimise(x, energy, tolerance=1.0)
    assert loose.steps.double().mean() < 40
    assert (loose.energy - found.energy).median() < 0.2
