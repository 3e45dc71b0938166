"""MMFF94 against RDKit's own implementation: energies, gradients, every kind of term, and what goes
wrong."""

import copy
import gzip
import math
import pickle

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdForceFieldHelpers, rdMolTransforms

import orbitwise as ow
from orbitwise.errors import EnergyError, InputError
from orbitwise.molecules.mmff import energy as mmff

# Chosen so that every kind of term and every element with an organic MMFF type occurs.
MOLECULES = {
    "alanine dipeptide": "CC(=O)NC(C)C(=O)NC",
    "water": "O",
    "methane": "C",
    "ammonium": "[NH4+]",
    "carbon dioxide": "O=C=O",
    "acetonitrile": "CC#N",
    "diyne": "CC#CC#CC",
    "enyne": "CC#CC(C)=C",
    "allene": "CC=C=CC",
    "cumulene": "C=C=C=C",
    "ketene": "CC=C=O",
    "azide": "CN=[N+]=[N-]",
    "diazo": "C=[N+]=[N-]",
    "diazonium": "N#[N+]c1ccccc1",
    "isonitrile": "C[N+]#[C-]",
    "isothiocyanate": "CN=C=S",
    "cyclopropane": "C1CC1C",
    "cyclobutene": "C1=CCC1",
    "epoxide": "CC1OC1C",
    "aziridine": "C1NC1CF",
    "norbornene": "C1CC2C=CC1C2",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "azulene": "c1ccc2cccc2cc1",
    "indole": "c1ccc2[nH]ccc2c1",
    "thiazole": "Cc1ncsc1CO",
    "pyridine oxide": "[O-][n+]1ccccc1C",
    "tropone": "O=C1C=CC=CC=C1",
    "biphenylene": "c1ccc2c(c1)-c1ccccc12",
    "sulfonamide": "CNS(=O)(=O)c1ccccc1",
    "sulfoxide": "CS(C)=O",
    "sulfate": "CCOS(=O)(=O)[O-]",
    "disulfide": "CSSCC=S",
    "thiol": "SCC(N)CO",
    "phosphate": "COP(=O)([O-])OC",
    "phosphine": "CP(C)c1ccccc1",
    "phosphonamide": "CP(=O)(NC)OCC",
    "silane": "C[Si](C)(C)OC",
    "halogens": "FC(Cl)(Br)CI",
    "trifluoromethyl arene": "FC(F)(F)c1cc(Cl)c(Br)c(I)c1",
    "zwitterion": "[NH3+]CC(=O)[O-]",
    "guanidinium": "CNC(N)=[NH2+]",
    "imidazolium": "C[n+]1cc[nH]c1",
    "nitro": "CC(C)[N+](=O)[O-]",
    "nitrate": "CO[N+](=O)[O-]",
    "oxime": "CC(C)=NO",
    "hydrazone": "CC=NNC(=O)C",
    "azo": "C/N=N/c1ccccc1",
    "peroxide": "COOC",
    "enolate": "CC(=O)[CH-]C(C)=O",
    "perchlorate": "[O-]Cl(=O)(=O)=O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "tetrazole": "Cc1nnn[nH]1",
    "thiepine": "O=C(O)C1=CC2=C(CCC(Cl)=C2)Sc2ccccc21",  # aromatic for RDKit, not for MMFF
}


def embedded(smiles, seed=7):
    """A molecule with hydrogens and its embedded positions, or None where RDKit finds none."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(mol, randomSeed=seed) != 0:
        return None
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


def distorted(positions, seed=0):
    """The geometry itself and four distorted by 0.05 to 0.2 Å per coordinate."""
    gen = torch.Generator().manual_seed(seed)
    noise = torch.randn(5, *positions.shape, generator=gen, dtype=torch.float64)
    return (
        positions
        + torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2], dtype=torch.float64)[:, None, None] * noise
    )


def rdkit_mmff(mol, x, variant="MMFF94"):
    """RDKit's energies [kcal/mol] and gradients for ``x: (B, N, 3)``."""
    mol = Chem.Mol(mol)
    rdForceFieldHelpers.MMFFSanitizeMolecule(mol)
    typing = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
        mol, typing, nonBondedThresh=1e6, ignoreInterfragInteractions=False
    )
    energies, gradients = [], []
    for row in x.double().flatten(1).tolist():
        energies.append(field.CalcEnergy(row))  # before CalcGrad, which relies on its distances
        gradients.append(field.CalcGrad(row))
    return torch.tensor(energies, dtype=torch.float64), torch.tensor(
        gradients, dtype=torch.float64
    ).view_as(x)


def errors(mol, x, variant="MMFF94"):
    """Largest differences from RDKit, kcal/mol and kcal/mol/Å."""
    energy = ow.molecules.MMFF94(mol, variant=variant)
    value, grad = energy.value_and_grad(x)
    expected, slope = rdkit_mmff(mol, x, variant)
    difference = (value * energy.kcal_per_kT - expected).abs().max()
    return float(difference), float((grad * energy.kcal_per_kT - slope).abs().max())


@pytest.mark.parametrize("variant", ["MMFF94", "MMFF94s"])
@pytest.mark.parametrize("name", MOLECULES)
def test_equals_rdkit(name, variant):
    mol, positions = embedded(MOLECULES[name])
    assert max(errors(mol, distorted(positions), variant)) < 1e-4


@pytest.mark.parametrize("variant", ["MMFF94", "MMFF94s"])
def test_equals_the_energy_that_rdkit_minimises(variant):
    # another way into RDKit, which prepares the molecule by itself
    for text in MOLECULES.values():
        mol, positions = embedded(text)
        energy = ow.molecules.MMFF94(mol, variant=variant)
        ((_, expected),) = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(
            Chem.Mol(mol), maxIters=0, mmffVariant=variant, nonBondedThresh=1e6
        )
        assert energy.kcal_per_mol(positions).item() == pytest.approx(expected, abs=1e-4)


def test_the_molecule_is_left_alone_and_its_history_does_not_matter():
    mol, positions = embedded(MOLECULES["thiepine"])
    aromatic = [b.GetBondType() for b in mol.GetBonds()]
    first = ow.molecules.MMFF94(mol)(positions)
    assert [b.GetBondType() for b in mol.GetBonds()] == aromatic
    assert torch.equal(ow.molecules.MMFF94(mol)(positions), first)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    torch.testing.assert_close(ow.molecules.MMFF94(mol)(positions), first)
    rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    torch.testing.assert_close(ow.molecules.MMFF94(mol)(positions), first)


def test_the_variants_differ_where_they_should():
    mol, positions = embedded("CC(=O)NC")  # "s" makes the amide nitrogen flatter
    a, b = (
        ow.molecules.MMFF94(mol, variant=v)(distorted(positions)) for v in ("MMFF94", "MMFF94s")
    )
    assert (a - b).abs().max() > 0.1


@pytest.mark.parametrize("source", ["spice_train", "zinc250k_test", "small_molecules_1000"])
def test_equals_rdkit_on_real_molecules(shared_data, source):
    if source == "small_molecules_1000":
        molecules = quantum_geometries(shared_data(f"{source}/{source}.npz"), 110)
    else:
        molecules = smiles(shared_data(f"smiles/{source}.smi.gz"), 52)
    done = 0
    for mol, positions in molecules:
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            for variant in ("MMFF94", "MMFF94s"):
                assert max(errors(mol, distorted(positions), variant)) < 1e-4, Chem.MolToSmiles(mol)
            done += 1
    assert done >= (100 if source == "small_molecules_1000" else 50)  # 200 in all


def skeleton(mol):
    """The same atoms with single bonds and nothing else, to match by connectivity alone."""
    bare = Chem.RWMol()
    for atom in mol.GetAtoms():
        bare.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        bare.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return bare


def quantum_geometries(path, number):
    """Small molecules in the geometry of the file."""
    data = np.load(path)
    for k in np.flatnonzero(data["bond_status"] == 1)[:: 948 // number][:number]:
        atoms, bonds = (slice(*data[name][k : k + 2]) for name in ("offsets", "bond_offsets"))
        found = Chem.RWMol()
        for z in data["atomic_numbers"][atoms]:
            found.AddAtom(Chem.Atom(int(z)))
        for i, j in data["bonds"][bonds].tolist():
            found.AddBond(i, j, Chem.BondType.SINGLE)
        mol = Chem.AddHs(Chem.MolFromSmiles(str(data["smiles"][k])))
        match = found.GetSubstructMatch(skeleton(mol))
        assert len(match) == mol.GetNumAtoms() == found.GetNumAtoms()
        mol.AddConformer(
            Chem.Conformer(mol.GetNumAtoms())
        )  # RDKit wants one to build its force field
        yield mol, torch.from_numpy(data["positions"][atoms][list(match)]).double()


def smiles(path, number):
    """Drug-like molecules, embedded."""
    with gzip.open(path, "rt") as lines:
        every = [line.split()[0] for line in lines if line.strip()]
    for one in every[:: len(every) // number]:
        found = embedded(one)
        if found:
            yield found


def test_fragments_interact():
    mol = Chem.AddHs(Chem.MolFromSmiles("O.CC#N"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    positions = torch.from_numpy(mol.GetConformer().GetPositions()).clone()
    water = torch.tensor(list(Chem.GetMolFrags(mol)[0]))
    positions[water] += torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64) - positions[water].mean(
        0
    )
    assert max(errors(mol, distorted(positions))) < 1e-4


def water(angle_degrees):
    angle = math.radians(angle_degrees)
    rows = [
        [0.0, 0.0, 0.0],
        [0.96, 0.0, 0.0],
        [0.98 * math.cos(angle), 0.98 * math.sin(angle), 0.0],
    ]
    return torch.tensor([rows], dtype=torch.float64)


@pytest.mark.parametrize("angle", [1.0, 30.0, 90.0, 150.0, 179.0, 179.99])
def test_bent_angles_near_their_ends(angle):
    mol, _ = embedded("O")
    assert max(errors(mol, water(angle))) < 1e-4


@pytest.mark.parametrize("angle", [1.0, 179.0, 179.9])
def test_torsions_beside_a_nearly_straight_angle(angle):
    # embedded geometries do have such angles; a dihedral angle is then a quotient of two small
    # numbers
    mol, _ = embedded("CC(=O)NC")
    conformer = Chem.Conformer(mol.GetConformer())
    rdMolTransforms.SetAngleDeg(conformer, 1, 3, 4, angle)
    x = torch.from_numpy(conformer.GetPositions())[None]
    assert max(errors(mol, x)) < 1e-4
    energy = ow.molecules.MMFF94(mol)
    x = x.float()
    (value, grad), (single, slope) = energy.value_and_grad(x.double()), energy.value_and_grad(x)
    assert (single - value).abs().item() < 1e-5 * value.abs().item()
    assert (slope - grad).norm() < 1e-3 * grad.norm()


def test_exactly_straight_and_exactly_flat_are_finite():
    mol = Chem.AddHs(Chem.MolFromSmiles("O"))
    for dtype in (torch.float32, torch.float64):
        value, grad = ow.molecules.MMFF94(mol).value_and_grad(water(180.0).to(dtype))
        assert torch.isfinite(value).all() and torch.isfinite(grad).all()
    ethene, _ = embedded("C=C")
    flat = [
        [-0.67, 0, 0],
        [0.67, 0, 0],
        [-1.2, 0.9, 0],
        [-1.2, -0.95, 0],
        [1.25, 0.9, 0],
        [1.2, -0.9, 0],
    ]
    x = torch.tensor([flat], dtype=torch.float64)
    assert max(errors(ethene, x)) < 1e-4
    assert (ow.molecules.MMFF94(ethene).value_and_grad(x)[1][..., 2]).abs().max() < 1e-6
    nitrile, positions = embedded("CC#N")
    straight = positions.clone()
    straight[:3, 1:] = 0.0
    assert max(errors(nitrile, straight[None])) < 1e-4


def test_strongly_pyramidal_centres():
    # far from planar on both sides: Wilson's angles up to 60 degrees
    mol, positions = embedded("CC(C)=O")
    x = positions.repeat(5, 1, 1)
    normal = torch.linalg.cross(positions[0] - positions[1], positions[2] - positions[1])
    x[:, 1] += torch.linspace(-0.9, 0.9, 5, dtype=torch.float64)[:, None] * normal / normal.norm()
    assert max(errors(mol, x)) < 1e-4


def test_float32_is_good_enough_for_sampling():
    mol, positions = embedded(MOLECULES["alanine dipeptide"])
    energy = ow.molecules.MMFF94(mol)
    gen = torch.Generator().manual_seed(3)
    x = positions + 0.03 * torch.randn(200, *positions.shape, generator=gen, dtype=torch.float64)
    x = x + 10.0  # far from the origin, where float32 has fewer digits left
    value, grad = energy.value_and_grad(x.float().double())
    single, slope = energy.value_and_grad(x.float())
    assert single.dtype == slope.dtype == torch.float32
    assert (single - value).abs().max() < 2e-3  # kT
    assert (slope - grad).norm(dim=(1, 2)).div(grad.norm(dim=(1, 2))).max() < 1e-5


def rotation(seed):
    q, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return q * torch.linalg.det(q)


@pytest.mark.parametrize("name", ["alanine dipeptide", "sulfonamide", "allene", "phosphate"])
def test_symmetries(name):
    mol, positions = embedded(MOLECULES[name])
    energy = ow.molecules.MMFF94(mol)
    x = distorted(positions)
    value, grad = energy.value_and_grad(x)
    turn = rotation(1)
    moved, slope = energy.value_and_grad(
        x @ turn.T + torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    )
    torch.testing.assert_close(moved, value, rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(slope, grad @ turn.T, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(energy(-x), value, rtol=1e-11, atol=1e-9)  # mirror image
    torch.testing.assert_close(
        grad.sum(-2), torch.zeros(5, 3, dtype=torch.float64), rtol=0, atol=1e-7
    )
    torque = torch.linalg.cross(x, grad).sum(-2)
    torch.testing.assert_close(torque, torch.zeros_like(torque), rtol=0, atol=1e-6)
    swaps = mol.GetSubstructMatches(mol, uniquify=False, maxMatches=200)
    assert len(swaps) > 1
    for swap in swaps[:: max(1, len(swaps) // 10)]:
        torch.testing.assert_close(energy(x[:, list(swap)]), value, rtol=1e-11, atol=1e-8)
    assert energy.zero_com


def test_gradient_against_finite_differences_and_autograd():
    mol, positions = embedded(MOLECULES["sulfonamide"])
    energy = ow.molecules.MMFF94(mol)
    x = distorted(positions).requires_grad_()
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    (through,) = torch.autograd.grad((weights * energy(x)).sum(), x)
    _, grad = energy.value_and_grad(x)
    assert not grad.requires_grad
    torch.testing.assert_close(through, weights[:, None, None] * grad)
    gen = torch.Generator().manual_seed(5)
    for _ in range(20):
        way = torch.randn(x.shape, generator=gen, dtype=torch.float64)
        h = 1e-4
        far = [energy(x.detach() + k * h * way) for k in (-2, -1, 1, 2)]
        slope = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * h)
        expected = (grad * way).sum((-1, -2))
        assert ((slope - expected).abs() < 1e-6 * (1 + expected.abs())).all()


def test_second_derivatives_are_refused():
    mol, positions = embedded("CO")
    x = positions[None].requires_grad_()
    (grad,) = torch.autograd.grad(ow.molecules.MMFF94(mol)(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        grad.sum().backward()


def test_units_and_temperature():
    mol, positions = embedded("CCO")
    expected, _ = rdkit_mmff(mol, positions[None])
    cold, hot = (
        ow.molecules.MMFF94(mol, temperature=150.0),
        ow.molecules.MMFF94(mol, temperature=600.0),
    )
    assert cold.kcal_per_kT == pytest.approx(
        0.298081, rel=1e-5
    )  # R T with R = 1.987204 cal/(mol K)
    assert cold(positions).item() == pytest.approx(4 * hot(positions).item(), rel=1e-12)
    assert hot.kcal_per_mol(positions).item() == pytest.approx(expected.item(), abs=1e-6)


def test_batches(monkeypatch):
    mol, positions = embedded("CC(=O)NC")
    energy = ow.molecules.MMFF94(mol)
    gen = torch.Generator().manual_seed(0)
    x = positions + 0.1 * torch.randn(3, 50, *positions.shape, generator=gen, dtype=torch.float64)
    before = x.clone()
    value, grad = energy.value_and_grad(x)
    assert value.shape == (3, 50) and grad.shape == x.shape and torch.equal(x, before)
    one, slope = energy.value_and_grad(x[1, 7])
    assert one.shape == () and slope.shape == x.shape[2:]
    torch.testing.assert_close(one, value[1, 7])
    torch.testing.assert_close(slope, grad[1, 7])
    monkeypatch.setattr(mmff, "_kernel", lambda dtype: None)  # torch
    monkeypatch.setattr(mmff, "CHUNK", 5000)  # many pieces, the last one smaller
    pieces, slopes = energy.value_and_grad(x)
    torch.testing.assert_close(pieces, value)
    torch.testing.assert_close(slopes, grad)
    empty, nothing = energy.value_and_grad(x[:0])
    assert empty.shape == (0, 50) and nothing.shape == (0, 50, *positions.shape)
    expanded = positions.expand(4, *positions.shape)
    torch.testing.assert_close(energy(expanded), energy(positions).expand(4))


def test_precision_settings_of_the_host_do_not_leak_in():
    mol, positions = embedded("CC(=O)NC")
    energy = ow.molecules.MMFF94(mol)
    x = distorted(positions).float()
    value, grad = energy.value_and_grad(x)
    old = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value2, grad2 = energy.value_and_grad(x)
    finally:
        torch.set_float32_matmul_precision(old)
    assert torch.equal(value, value2) and torch.equal(grad, grad2)


def test_one_atom_has_no_energy():
    energy = ow.molecules.MMFF94(Chem.MolFromSmiles("[Na+]"))
    value, grad = energy.value_and_grad(torch.zeros(4, 1, 3))
    assert torch.equal(value, torch.zeros(4)) and torch.equal(grad, torch.zeros(4, 1, 3))


def test_not_a_number_stays_where_it_is():
    mol, positions = embedded("CCO")
    energy = ow.molecules.MMFF94(mol)
    x = positions.repeat(3, 1, 1)
    x[1, 4, 2] = math.nan
    x[2, 0] = x[2, 1]  # coincident atoms
    value, grad = energy.value_and_grad(x)
    assert torch.isnan(value).tolist() == [False, True, False]
    assert torch.isfinite(grad[[0, 2]]).all() and value[2] > value[0] + 1000
    torch.testing.assert_close(value[0], energy(positions))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smiles", ["CC(=O)NC", "CC#N", "O"])
def test_atoms_on_one_another(smiles, dtype):
    """Every pair, in machine code and in torch; where the two are not bonded the energy is that of
    RDKit, whose buffered terms are finite there."""
    mol, positions = embedded(smiles)
    energy = ow.molecules.MMFF94(mol)
    apart = Chem.GetDistanceMatrix(mol)
    for i, j in zip(*np.triu_indices(len(apart), 1), strict=True):
        x = positions.clone()
        x[..., i, :] = x[..., j, :]
        for value, grad in (energy.value_and_grad(x.to(dtype)), energy._by_torch(x.to(dtype))):
            assert torch.isfinite(value).all() and torch.isfinite(grad).all(), (i, j)
            if apart[i, j] > 2:
                nudged = x.clone()
                nudged[..., i, 0] += 1e-5  # RDKit divides by the distance
                oracle = float(rdkit_mmff(mol, nudged[None])[0])
                assert float(value * energy.kcal_per_kT) == pytest.approx(oracle, rel=1e-3)


def test_copies_and_pickles():
    mol, positions = embedded("CCO")
    energy = ow.molecules.MMFF94(mol, temperature=500.0, variant="MMFF94s")
    value = energy(positions)
    for twin in (
        copy.deepcopy(energy),
        pickle.loads(pickle.dumps(energy)),
        energy.to(torch.float32),
    ):
        assert torch.equal(twin(positions), value)
    assert "MMFF94s" in repr(energy) and "500 K" in repr(energy)


def test_errors_name_the_cause():
    with pytest.raises(InputError, match="AddHs"):
        ow.molecules.MMFF94(Chem.MolFromSmiles("CCO"))
    with pytest.raises(EnergyError, match=r"parameters for B2\b"):
        ow.molecules.MMFF94(Chem.AddHs(Chem.MolFromSmiles("CB(O)O")))
    with pytest.raises(EnergyError, match=r"atom type for one of S1"):
        ow.molecules.MMFF94(Chem.MolFromSmiles("S(F)(F)(F)(F)(F)F"))
    with pytest.raises(InputError, match="MMFF94s"):
        ow.molecules.MMFF94(Chem.AddHs(Chem.MolFromSmiles("C")), variant="MMFF")
    for temperature in (0.0, -3.0, math.nan, math.inf):
        with pytest.raises(InputError, match="temperature"):
            ow.molecules.MMFF94(Chem.AddHs(Chem.MolFromSmiles("C")), temperature=temperature)
    for nothing in (None, "CCO", Chem.Mol()):
        with pytest.raises(InputError, match="RDKit molecule"):
            ow.molecules.MMFF94(nothing)
    energy = ow.molecules.MMFF94(Chem.AddHs(Chem.MolFromSmiles("C")))
    for shape in [(4, 3), (5, 2), (15,), (2, 3, 5)]:
        with pytest.raises(InputError, match=r"\(\*B, 5, 3\)"):
            energy(torch.zeros(shape))
    with pytest.raises(InputError, match="float32 or float64"):
        energy(torch.zeros(5, 3, dtype=torch.long))


@pytest.mark.gpu
def test_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    mol, positions = embedded(MOLECULES["alanine dipeptide"])
    energy = ow.molecules.MMFF94(mol)
    x = distorted(positions).repeat(40, 1, 1)
    value, grad = energy.value_and_grad(x)
    old = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # TF32, as training may have set it
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            there, slope = energy.value_and_grad(x.to("cuda", dtype))
            assert there.device.type == slope.device.type == "cuda" and there.dtype == dtype
            torch.testing.assert_close(there.cpu().double(), value, rtol=tolerance, atol=tolerance)
            assert ((slope.cpu().double() - grad).abs() / (1 + grad.abs().amax())).max() < tolerance
    finally:
        torch.set_float32_matmul_precision(old)
