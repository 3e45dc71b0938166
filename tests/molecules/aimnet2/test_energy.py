"""AIMNet2 against the program that its authors published, and what a potential energy must be."""

from __future__ import annotations

import math
import sys
import warnings

import pytest
import torch
from rdkit import Chem
from torch import Tensor

from absent import make_absent
from orbitwise.errors import EnergyError, InputError, MissingExtraError
from orbitwise.groups.so3 import SO3
from orbitwise.molecules.aimnet2 import energy as module
from orbitwise.molecules.aimnet2.energy import AIMNet2
from orbitwise.molecules.aimnet2.weights import ELEMENTS, weights, weights_file
from orbitwise.molecules.mmff.energy import MMFF94
from orbitwise.molecules.molecule import embed, parse_smiles

# Together all elements, and total charges of -1, 0 and 1.
SMILES = (
    "CC(=O)NC",
    "OB(O)c1cc(F)c(Br)c(I)c1S",
    "C[Si](C)(C)CP(=O)([O-])OC[Se]C",
    "C[NH2+]CCl",
    "C[As](C)C",
)
BOLTZMANN_EV = 8.617333262e-5


@pytest.fixture(scope="module", autouse=True)
def installed():
    try:
        weights_file()
    except MissingExtraError:
        pytest.skip("needs orbitwise[dft]")


@pytest.fixture(scope="module")
def program():
    """The published TorchScript program, which runs beside its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(weights_file()), map_location="cpu")


def made(smiles: str, frames: int = 3, noise: float = 0.05) -> tuple[AIMNet2, Tensor]:
    """The energy, and distorted embeddings ``(F, N, 3)`` in float64."""
    mol = parse_smiles(smiles)
    x = torch.as_tensor(embed(mol, 1, 0))
    gen = torch.Generator().manual_seed(3)
    return AIMNet2(mol), x + noise * torch.randn(
        frames, *x.shape[1:], generator=gen, dtype=torch.float64
    )


def test_all_elements_are_tried():
    found = {a.GetAtomicNum() for s in SMILES for a in parse_smiles(s).GetAtoms()}
    assert found == set(ELEMENTS)


@pytest.mark.parametrize("smiles", SMILES)
def test_it_is_the_published_program(smiles, program):
    """Total energies, forces and charges; the program computes in float32, where the energy of a
    heavy atom alone is rounded to some meV."""
    energy, x = made(smiles)
    points = x.float().requires_grad_()
    out = program(
        {
            "coord": points,
            "numbers": energy.species.expand(len(x), -1),
            "charge": torch.full((len(x),), float(Chem.GetFormalCharge(parse_smiles(smiles)))),
        }
    )
    (grad,) = torch.autograd.grad(out["energy"].sum(), points)
    rounding = 2 * 2.0**-23 * abs(energy.zero_ev)
    torch.testing.assert_close(energy.ev(x), out["energy"].detach(), rtol=0, atol=rounding)
    value, mine = energy.value_and_grad(x)
    kt = BOLTZMANN_EV * 300.0
    torch.testing.assert_close(mine.float() * kt, grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        energy.charges(x).float(), out["charges"].detach(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(value * kt + energy.zero_ev, energy.ev(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("smiles", ["CC(=O)NC", "C[NH2+]CCl"])
def test_motions_and_names_of_equal_atoms_do_not_matter(smiles):
    energy, x = made(smiles)
    before, slope = energy.value_and_grad(x)
    rotation = SO3().sample((), generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    moved = SO3().act(rotation, x) + 5.0
    value, grad = energy.value_and_grad(moved)
    torch.testing.assert_close(value, before, rtol=0, atol=1e-8)
    torch.testing.assert_close(grad, SO3().act(rotation, slope), rtol=0, atol=1e-6)

    hydrogens = (energy.species == 1).nonzero().flatten()
    order = torch.arange(len(energy.species))
    order[hydrogens] = hydrogens.flip(0)
    torch.testing.assert_close(energy(x[:, order]), before, rtol=0, atol=1e-8)


def test_charges_add_up():
    energy, x = made("C[NH2+]CCl")
    torch.testing.assert_close(
        energy.charges(x).sum(-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4
    )


def test_single_precision_carries_differences():
    """What a Metropolis test needs, in kT at 300 K."""
    energy, x = made("OB(O)c1cc(F)c(Br)c(I)c1S", frames=8)
    exact, single = energy(x), energy(x.float()).double()
    assert abs(energy.zero_ev) > 1e5  # more than 4 million kT
    assert ((exact - single) - (exact - single).mean()).abs().max() < 1e-3


def test_batches_in_pieces(monkeypatch):
    energy, x = made("CC(=O)NC", frames=7)
    whole, slope = energy.value_and_grad(x)
    monkeypatch.setattr(module, "CHUNK", 2 * 12**2)
    value, grad = energy.value_and_grad(x)
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(grad, slope)
    torch.testing.assert_close(energy(x), whole)
    empty, none = energy.value_and_grad(x[:0])
    assert empty.shape == (0,) and none.shape == (0, 12, 3)


def test_temperature_and_zero():
    energy, x = made("CO")
    cold = AIMNet2(parse_smiles("CO"), temperature=150.0)
    torch.testing.assert_close(cold(x), 2 * energy(x))
    assert energy.zero_ev == cold.zero_ev == pytest.approx(-3139.7245, abs=1e-3)


def test_gauche_butane_is_about_as_high_as_coupled_clusters_have_it():
    """0.62 kcal/mol (Allinger et al., J. Chem. Phys. 106, 5143 (1997)); a typical error of the
    network is half of that."""
    from rdkit.Chem import rdMolTransforms

    from orbitwise.molecules.molecule import with_conformers
    from orbitwise.search.quench import minimise

    mol = parse_smiles("CCCC")
    mol = with_conformers(mol, embed(mol, 2, 0))
    for conformer, angle in zip(mol.GetConformers(), (180.0, 65.0), strict=True):
        rdMolTransforms.SetDihedralDeg(conformer, 0, 1, 2, 3, angle)
    x = torch.stack([torch.as_tensor(c.GetPositions()) for c in mol.GetConformers()])
    relaxed = minimise(minimise(x, MMFF94(mol)).x, AIMNet2(mol), max_steps=120)
    anti, gauche = AIMNet2(mol).ev(relaxed.x).tolist()
    assert 0.1 < (gauche - anti) * 23.0605 < 1.1


def test_molecules_it_cannot_do():
    with pytest.raises(EnergyError, match="does not know Ge2, Sn3"):
        AIMNet2(Chem.AddHs(Chem.MolFromSmiles("C[GeH2][SnH3]")))
    with pytest.raises(EnergyError, match="C2 has unpaired"):
        AIMNet2(Chem.AddHs(Chem.MolFromSmiles("C[CH2]")))
    with pytest.raises(InputError, match="AddHs"):
        AIMNet2(Chem.MolFromSmiles("CO"))
    with pytest.raises(InputError, match="temperature"):
        AIMNet2(parse_smiles("CO"), temperature=math.nan)
    energy, x = made("CO")
    with pytest.raises(InputError, match=r"\(\*B, 6, 3\)"):
        energy(x[:, 1:])
    with pytest.raises(InputError, match="float32 or float64"):
        energy(x.half())


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    assert "Auto3D" not in sys.modules  # only its file is read
    make_absent("Auto3D", monkeypatch)
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ['auto3d; extra == "dft"'])
    from orbitwise import errors

    errors._extras.cache_clear()
    weights.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"pip install 'orbitwise\[dft\]'"):
            AIMNet2(parse_smiles("CO"))
    finally:
        errors._extras.cache_clear()


def test_another_release_of_the_package(monkeypatch):
    monkeypatch.setattr("orbitwise.molecules.aimnet2.weights.FILE", "models/other.jpt")
    with pytest.raises(EnergyError, match=r"orbitwise\[dft\]"):
        weights_file()
