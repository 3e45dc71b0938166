"""ASE calculators as energies: units, batches, failures, and GFN2-xTB as the one that people will
use."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from rdkit import Chem
from rdkit.Chem import AllChem

from absent import make_absent
from orbitwise.energies import ASEEnergy
from orbitwise.energies.ase import xtb
from orbitwise.errors import EnergyError, InputError, MissingExtraError

BOLTZMANN_EV = 8.617333262e-5


class Springs(Calculator):
    """½ Σ |x_i - x_j|² eV over the pairs; fails where the first atom is beyond 5 Å."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        if abs(x[0]).max() > 5.0:
            raise CalculationFailed("the field did not converge")
        between = x[:, None] - x[None]
        self.results["energy"] = 0.25 * (between**2).sum()
        self.results["forces"] = -between.sum(1)


class EnergyOnly(Calculator):
    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = 1.0


def points(*size, seed=0):
    return torch.randn(*size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def springs(n=4, **options):
    return ASEEnergy([6] * n, Springs(), **options)


@pytest.mark.parametrize("size", [(), (1,), (5,), (2, 3), (0,)])
def test_values_gradients_and_shapes(size):
    energy = springs(temperature=450.0)
    x = points(*size, 4)
    kt = BOLTZMANN_EV * 450.0
    centred = x - x.mean(-2, keepdim=True)  # ½ Σ_pairs |x_i - x_j|² = ½ N Σ |x_i - x̄|²
    value, grad = energy.value_and_grad(x)
    torch.testing.assert_close(value, 2.0 * centred.square().sum((-1, -2)) / kt, rtol=1e-8, atol=0)
    torch.testing.assert_close(grad, 4.0 * centred / kt, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(energy(x), value)
    assert energy.event_shape == (4, 3) and energy.zero_com


def test_dtype_and_autograd():
    energy = springs()
    x = points(2, 3, 4).float()
    value, grad = energy.value_and_grad(x)
    assert value.dtype == grad.dtype == energy(x).dtype == torch.float32
    y = x.double().requires_grad_()
    weights = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    (through,) = torch.autograd.grad((weights * energy(y)).sum(), y)
    torch.testing.assert_close(
        through, weights[..., None, None] * energy.value_and_grad(y.detach())[1]
    )
    assert y.grad is None


def test_a_calculator_of_ase_gives_what_ase_gives():
    atoms = Atoms("Ar7", positions=2.0 * points(7).numpy() + 4.0 * np.arange(7)[:, None])
    energy = ASEEnergy(atoms, LennardJones(epsilon=0.01, sigma=3.4, rc=30.0), temperature=100.0)
    x = torch.from_numpy(atoms.positions) + 0.1 * points(3, 7, seed=1)
    value, grad = energy.value_and_grad(x)
    for k in range(3):
        alone = Atoms(
            "Ar7", positions=x[k].numpy(), calculator=LennardJones(epsilon=0.01, sigma=3.4, rc=30.0)
        )
        kt = BOLTZMANN_EV * 100.0
        assert value[k].item() == pytest.approx(alone.get_potential_energy() / kt, rel=1e-8)
        np.testing.assert_allclose(grad[k].numpy(), -alone.get_forces() / kt, rtol=1e-7, atol=1e-8)


def test_the_template_is_left_alone_and_its_constraints_do_not_hold():
    atoms = Atoms("C4", positions=points(4).numpy(), constraint=FixAtoms([0]))
    before = atoms.positions.copy()
    energy = ASEEnergy(atoms, Springs())
    _, grad = energy.value_and_grad(points(4, seed=3))
    assert grad[0].norm() > 0.1
    assert (
        np.array_equal(atoms.positions, before)
        and atoms.calc is None
        and len(atoms.constraints) == 1
    )


def test_a_periodic_system_has_an_origin():
    assert not ASEEnergy(Atoms("C2", cell=[9, 9, 9], pbc=True), Springs()).zero_com


def test_failures_are_counted_and_do_not_spread():
    energy = springs()
    x = points(4, 4)
    good, slope = energy.value_and_grad(x)
    assert (energy.calls, energy.failures, energy.last_failure) == (4, 0, None)
    x[1, 0] = 9.0  # fails
    x[3, 2, 1] = math.nan  # never asked
    value, grad = energy.value_and_grad(x)
    assert torch.isnan(value).tolist() == [False, True, False, True]
    assert torch.isnan(grad).all((-1, -2)).tolist() == [False, True, False, True]
    assert torch.equal(value[::2], good[::2]) and torch.equal(grad[::2], slope[::2])
    assert (energy.calls, energy.failures) == (7, 1)
    assert "the field did not converge" in energy.last_failure
    # once something has worked, a batch of failures alone is a rejected move and not the end of the
    # run
    assert torch.isnan(energy(x[1])) and energy.failures == 2


def test_a_calculator_that_never_works_is_an_error():
    with pytest.raises(
        EnergyError, match=r"Springs failed for all of 3 geometries.*did not converge"
    ):
        springs()(points(3, 4) + 20.0)


def test_errors_name_the_cause():
    with pytest.raises(InputError, match="EnergyOnly has no energies or no forces"):
        ASEEnergy([1, 1], EnergyOnly()).value_and_grad(torch.zeros(2, 3))
    assert (
        ASEEnergy([1, 1], EnergyOnly())(torch.zeros(2, 3)).item() > 0
    )  # enough for the energy alone
    with pytest.raises(InputError, match=r"\(\*B, 4, 3\)"):
        springs()(torch.zeros(2, 5, 3))
    with pytest.raises(InputError, match="float32 or float64"):
        springs()(torch.zeros(4, 3, dtype=torch.long))
    with pytest.raises(InputError, match="temperature"):
        springs(temperature=-1.0)
    with pytest.raises(InputError, match="no atoms"):
        ASEEnergy([], Springs())


# GFN2-xTB


def embedded(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=3)
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


@pytest.fixture(scope="module")
def tblite():
    return pytest.importorskip("tblite.ase")


def test_xtb_energy_of_water(tblite):
    atoms = molecule("H2O")
    energy = xtb(atoms)
    value = energy(torch.from_numpy(atoms.positions)).item()
    assert value * energy.ev_per_kT == pytest.approx(
        -137.967776, abs=2e-5
    )  # eV, from tblite's documentation


def test_xtb_gradient_and_symmetries(tblite):
    mol, positions = embedded("CC(N)=O")
    energy = xtb(mol, temperature=300.0, accuracy=0.01)
    value, grad = energy.value_and_grad(positions)
    for seed in range(2):
        way = points(len(positions), seed=seed)
        h = 2e-3
        far = energy(positions + h * torch.tensor([-2.0, -1, 1, 2]).view(4, 1, 1).double() * way)
        slope = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * h)
        assert slope.item() == pytest.approx((grad * way).sum().item(), rel=1e-4, abs=1e-2)
    turn, _ = torch.linalg.qr(points(3))
    moved, slope = energy.value_and_grad(positions @ turn.T + 4.0)
    assert moved.item() == pytest.approx(value.item(), abs=1e-4)
    torch.testing.assert_close(slope, grad @ turn.T, rtol=1e-4, atol=1e-3)
    swap = next(
        s for s in mol.GetSubstructMatches(mol, uniquify=False) if s != tuple(range(len(positions)))
    )
    assert energy(positions[list(swap)]).item() == pytest.approx(value.item(), abs=1e-4)


def test_xtb_takes_the_charge_of_the_molecule(tblite):
    mol, positions = embedded("[NH4+]")
    value = xtb(mol)(positions).item()
    assert xtb([7, 1, 1, 1, 1], charge=1)(positions).item() == pytest.approx(value, abs=1e-3)
    neutral = xtb(mol, charge=0)(positions).item()  # a radical, about 4 eV away
    assert abs(neutral - value) > 50


def test_xtb_failures_leave_the_next_geometry_alone(tblite):
    mol, positions = embedded("CO")
    energy = xtb(mol)
    value, grad = energy.value_and_grad(positions)
    x = positions.repeat(3, 1, 1)
    x[1, 0] = x[1, 1]  # atoms on top of one another
    again, slope = energy.value_and_grad(x)
    assert torch.isnan(again).tolist() == [False, True, False] and energy.failures == 1
    # the same from scratch every time, whatever came before
    assert torch.equal(again[::2], value.expand(2)) and torch.equal(slope[2], grad)


def test_xtb_leaves_the_number_of_threads_alone(tblite):
    before = torch.get_num_threads()
    mol, positions = embedded("C")
    xtb(mol)(positions)
    assert torch.get_num_threads() == before


def test_xtb_input(tblite, monkeypatch):
    with pytest.raises(InputError, match="AddHs"):
        xtb(Chem.MolFromSmiles("CC"))
    make_absent("tblite", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"orbitwise\[xtb\]"):
        xtb([1, 1])
