"""Which energy a run uses: by name, in a solvent, or from a function of one's own."""

from __future__ import annotations

import pytest
import torch
from ase.calculators.emt import EMT
from rdkit import Chem

from orbitwise.errors import EnergyError, InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import (
    build_energy,
    build_system,
    cumulene_warning,
    known_energy,
    placed,
    zwitterion_warning,
)
from orbitwise.molecules import MMFF94
from orbitwise.molecules.aimnet2.weights import weights_file
from orbitwise.molecules.molecule import embed, parse_smiles

# A module as a user writes it, in the folder where the command is called.
OWN = """
from ase.calculators.emt import EMT
from orbitwise.energies import Energy
from orbitwise.molecules import MMFF94

def field(mol, temperature):
    return MMFF94(mol, temperature, variant="MMFF94s")

def calculator(mol, temperature):
    return EMT()

def number(mol, temperature):
    return 7.0

def other(mol, temperature):
    from rdkit import Chem
    return MMFF94(Chem.AddHs(Chem.MolFromSmiles("CC")))

def fails(mol, temperature):
    raise KeyError("weights.pt")

class Origin(Energy):
    event_shape = (6, 3)

def pinned(mol, temperature):
    return Origin()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of the module, which is in the current folder."""
    (tmp_path / "energies_of_mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "energies_of_mine"


@pytest.fixture
def methanol():
    mol = parse_smiles("CO")
    return mol, torch.as_tensor(embed(mol, 3, 0))


def test_names():
    for name in ("mmff94", "mmff94s", "xtb", "aimnet2", "package.module:function"):
        assert known_energy(name) == name
    with pytest.raises(InputError, match=r"no energy 'mmff95'; choose mmff94, .*aimnet2, xtb, or"):
        known_energy("mmff95")
    with pytest.raises(InputError, match="no energy"):
        build_energy(parse_smiles("CO"), "mmff95")


def test_force_fields(methanol):
    mol, x = methanol
    for name, variant in (("mmff94", "MMFF94"), ("mmff94s", "MMFF94s")):
        energy = build_energy(mol, name, 400.0)
        assert torch.equal(energy(x), MMFF94(mol, 400.0, variant)(x))
        assert placed(energy, name)[1] == torch.float32
    with pytest.raises(EnergyError, match="MMFF94 has no"):
        build_energy(parse_smiles("C[SeH]"), "mmff94")


def test_a_network_near_density_functional_theory(methanol):
    weights_file_or_skip()
    mol, x = methanol
    energy = build_energy(mol, "aimnet2", 400.0)
    assert energy.temperature == 400.0 and torch.isfinite(energy(x)).all()
    with pytest.raises(EnergyError, match="Ge"):
        build_energy(Chem.AddHs(Chem.MolFromSmiles("C[GeH3]")), "aimnet2")


def weights_file_or_skip() -> None:
    try:
        weights_file()
    except ModuleNotFoundError:
        pytest.skip("needs orbitwise[dft]")


def test_a_function_of_ones_own(own, methanol):
    mol, x = methanol
    energy = build_energy(mol, f"{own}:field", 350.0)
    assert torch.equal(energy(x), MMFF94(mol, 350.0, "MMFF94s")(x))
    assert placed(energy, f"{own}:field") == (torch.device("cpu"), torch.float64)


def test_a_calculator_of_ones_own_is_converted_to_kt(own, methanol):
    from ase import Atoms

    mol, x = methanol
    value = build_energy(mol, f"{own}:calculator", 350.0)(x)
    for k, positions in enumerate(x.numpy()):
        atoms = Atoms([a.GetAtomicNum() for a in mol.GetAtoms()], positions, calculator=EMT())
        kt = 8.617333262e-5 * 350.0
        assert value[k].item() == pytest.approx(atoms.get_potential_energy() / kt, rel=1e-8)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("number", r"returned float; function\(mol, temperature\) must return an orbitwise"),
        ("other", r"is for points \(8, 3\); this molecule has 6 atoms"),
        ("fails", "KeyError: 'weights.pt'"),
        ("pinned", "zero_com = False"),
        ("OWN", "has no attribute 'OWN'"),
        ("__name__", "no function but str"),
        ("", "give package.module:name"),
    ],
)
def test_functions_that_are_of_no_use(own, methanol, function, said):
    with pytest.raises(InputError, match=said):
        build_energy(methanol[0], f"{own}:{function}")


def test_a_module_that_is_not_there(methanol):
    with pytest.raises(InputError, match="No module named 'not_there'"):
        build_energy(methanol[0], "not_there:function")


def test_solvents():
    pytest.importorskip("tblite", reason="needs orbitwise[xtb]")
    mol = parse_smiles("[NH3+]CC(=O)[O-]")
    x = torch.as_tensor(embed(mol, 1, 0))
    kcal = 0.0019872042586408316 * 300.0
    solvation = kcal * (build_energy(mol, "xtb", solvent="water")(x) - build_energy(mol, "xtb")(x))
    assert -60 < solvation.item() < -20  # a zwitterion, in one geometry
    water = build_energy(mol, "xtb", solvent="water")
    _, grad = water.value_and_grad(x)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    slope = (water(x + 1e-3 * way) - water(x - 1e-3 * way)) / 2e-3
    torch.testing.assert_close((grad * way).sum((1, 2)), slope, rtol=1e-3, atol=1e-2)
    with pytest.raises(InputError, match="does not know the solvent 'beer'; it knows water"):
        build_energy(mol, "xtb", solvent="beer")


@pytest.mark.parametrize("name", ["mmff94", "aimnet2", "module:function"])
def test_other_energies_have_no_solvent(name):
    with pytest.raises(InputError, match="use --energy xtb with --solvent water"):
        build_energy(parse_smiles("CO"), name, solvent="water")


@pytest.mark.parametrize(
    ("smiles", "ions"),
    [
        ("[NH3+]CC(=O)[O-]", "N+ (atom 1), O- (atom 5)"),  # glycine
        ("C[N+](C)(C)CC(=O)[O-]", "N+ (atom 2), O- (atom 8)"),  # betaine
        ("[O-][N+](=O)c1ccc(CC[NH3+])cc1C([O-])=O", "N+ (atom 10), O- (atom 14)"),
        ("C[N+](=O)[O-]", None),  # nitro
        ("C[n+]1ccccc1[O-]", "N+ (atom 2), O- (atom 8)"),
        ("[O-][n+]1ccccc1", None),  # N-oxide
        ("CN=[N+]=[N-]", None),  # azide
        ("C[N+]#[C-]", None),  # isocyanide
        ("C=[N+]=[N-]", None),  # diazo
        ("CC[NH3+]", None),
        ("CC(=O)[O-]", None),
        ("[NH3+]CC[NH3+]", None),
        ("CCO", None),
    ],
)
def test_zwitterions_in_the_gas_phase(smiles, ions):
    mol = parse_smiles(smiles)
    found = zwitterion_warning(mol)
    assert (found is None) if ions is None else (f"zwitterion ({ions})" in found)
    assert zwitterion_warning(mol, "water") is None


def test_the_warning_reaches_the_run():
    _, warnings = build_system(ConformersConfig(smiles="[NH3+]CC(=O)[O-]"))
    assert len(warnings) == 1 and "--solvent water" in warnings[0]


def test_cumulenes_turn_freely_in_mmff94_and_that_is_said():
    mol = parse_smiles("C=C=C")
    x = torch.as_tensor(embed(mol, 1, 0))[0]
    axis = x[2] - x[0]
    axis = axis / axis.norm()
    turned = x.clone()
    for hydrogen in (a.GetIdx() for a in mol.GetAtomWithIdx(2).GetNeighbors()):
        if hydrogen != 1:  # by a right angle about the axis: the worst that there is
            arm = x[hydrogen] - x[2]
            along = (arm @ axis) * axis
            turned[hydrogen] = x[2] + along + torch.linalg.cross(axis, arm)
    energy = MMFF94(mol, 300.0).double()

    barrier = energy(turned[None]) - energy(x[None])
    assert abs(float(barrier)) < 2.0  # kT; it is some eighty in truth

    assert "1=2=3" in cumulene_warning(mol, "mmff94s")
    assert cumulene_warning(mol, "xtb") is None
    assert cumulene_warning(parse_smiles("C=CC=C"), "mmff94") is None
