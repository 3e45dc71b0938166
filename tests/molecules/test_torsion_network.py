"""VonMisesNet: what it may not depend on, and what a mirror does. Oracles: RDKit's renumbering and
inversion of tags, RDKit's geometry for the sense of rotation, closed forms."""

import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.errors import InputError
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules.files.torsion_profiles import read_torsion_profiles
from orbitwise.molecules.torsion_graph import TorsionData
from orbitwise.molecules.torsion_network import VonMisesNet
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.angles import angle_likelihood

CHIRAL = "C[C@H](F)[C@@H](Cl)CO"
ROTORS = [(0, 1, 3, 5), (2, 1, 3, 4), (1, 3, 5, 6)]


def net():
    with seeded(0):
        made = VonMisesNet(16, 3, 4)
        with torch.no_grad():
            for p in made.parameters():
                p += 0.1 * torch.randn(p.shape)
    return made.double()


def laws(network, mol, rotors=ROTORS):
    batch = batch_of(mol, rotors)
    with torch.no_grad():
        return network.law(batch).on_grid(72)


def batch_of(mol, rotors=ROTORS):
    data = TorsionData.of([mol], [(0, r) for r in rotors])
    data = TorsionData(
        tuple(g.double() for g in data.graphs),
        data.molecule,
        data.rotors,
        data.share.double(),
    )
    return data[torch.arange(len(rotors))]


def molecule(smiles=CHIRAL):
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def test_names_of_atoms_do_not_matter():
    network, mol = net(), molecule()
    expected = laws(network, mol)
    rng = np.random.default_rng(0)
    for _ in range(4):
        order = rng.permutation(mol.GetNumAtoms()).tolist()
        place = np.argsort(order)
        renamed = Chem.RenumberAtoms(mol, order)
        found = laws(network, renamed, [[int(place[k]) for k in r] for r in ROTORS])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_direction_of_reading_does_not_matter():
    network, mol = net(), molecule()
    torch.testing.assert_close(
        laws(network, mol, [r[::-1] for r in ROTORS]), laws(network, mol), rtol=0, atol=1e-12
    )


def test_a_mirror_image_has_the_law_of_minus_the_angle():
    """The other enantiomer, by its SMILES."""
    network = net()
    one = laws(network, molecule())
    other = laws(network, molecule(CHIRAL.replace("@@", "#").replace("@", "@@").replace("#", "@")))
    reversed_ = other.flip(-1).roll(1, -1)
    torch.testing.assert_close(reversed_, one, rtol=0, atol=1e-10)
    assert (one - other).abs().max() > 1e-2  # they are told apart
    torch.testing.assert_close(
        network.law(batch_of(molecule()).mirrored).on_grid(72).flip(-1).roll(1, -1),
        one,
        rtol=0,
        atol=1e-10,
    )


def test_achiral_graphs_have_even_laws():
    network = net()
    found = laws(network, molecule("CCC(=O)CCO"), [(0, 1, 2, 3), (2, 4, 5, 6)])
    torch.testing.assert_close(found.flip(-1).roll(1, -1), found, rtol=0, atol=1e-12)


def test_padding_and_company_change_nothing():
    network = net()
    mol, large = molecule(), molecule("CCCCCCCCCCCC")
    pair = TorsionData.of([mol, large], [(0, r) for r in ROTORS] + [(1, (0, 1, 2, 3))])
    batch = pair[torch.arange(4)]
    with torch.no_grad():
        both = network.float().law(batch).on_grid(36)[:3]
        alone = network.law(pair[torch.arange(3)]).on_grid(36)
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-5)
    assert pair[torch.arange(3)].features.shape[1] < batch.features.shape[1]


@pytest.mark.parametrize("smiles", ["C[C@H](F)CO", "C[C@@H](F)CO", "O[C@](F)(Cl)CC"])
def test_the_side_of_the_others_is_that_of_the_geometry(smiles):
    """Clockwise seen from the other end: the first other lies at about +120° from the arm."""
    mol = molecule(smiles)
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    x = torch.from_numpy(mol.GetConformer().GetPositions())
    centre = next(a.GetIdx() for a in mol.GetAtoms() if a.HasProp("_CIPCode"))
    far = next(
        n.GetIdx()
        for n in mol.GetAtomWithIdx(centre).GetNeighbors()
        if n.GetAtomicNum() == 6 and n.GetDegree() == 4 and n.GetTotalNumHs(True) == 2
    )
    arm = next(n.GetIdx() for n in mol.GetAtomWithIdx(centre).GetNeighbors() if n.GetIdx() != far)
    end = next(n.GetIdx() for n in mol.GetAtomWithIdx(far).GetNeighbors() if n.GetIdx() != centre)
    batch = batch_of(mol, [(arm, centre, far, end)])
    first = int(batch.others[0, 0, 0])
    # looking from the far atom to the centre, the arms in front of the same end atom
    angles = dihedral(x, [(end, far, centre, arm), (end, far, centre, first)])
    turned = math.remainder(float(angles[1] - angles[0]), 2 * math.pi)
    assert abs(abs(turned) - 2 * math.pi / 3) < 0.4
    assert batch.side[0, 0] == (1 if turned > 0 else -1)
    assert batch.side[0, 1] == 0


def test_loss_is_the_cross_entropy_and_its_least_value_the_entropy():
    network, batch = net(), batch_of(molecule())
    law = network.law(batch)
    p = law.on_grid(36).softmax(-1).detach()
    exact = type(batch)(**{**vars(batch), "share": p})
    loss = angle_likelihood(network, exact)
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(loss, entropy, rtol=0, atol=1e-4)
    other = angle_likelihood(network, batch)
    torch.testing.assert_close(other, law.kl_from(batch.share) + math.log(36), rtol=0, atol=1e-4)


def test_profiles_of_the_project(shared_data):
    """396 achiral profiles are even, as their laws; splits are by molecule."""
    path = shared_data("torsion_profiles/torsion_profiles.npz")
    sizes = [len(read_torsion_profiles(path, [s])) for s in ("train", "val", "test")]
    assert sizes == [670, 90, 190]
    parts = [set(read_torsion_profiles(path, [s]).smiles) for s in ("train", "test")]
    assert not parts[0] & parts[1]
    p = read_torsion_profiles(path).shares(300.0)
    uniform = (p * (p * 36).clamp_min(1e-300).log()).sum(-1)
    assert abs(uniform.median() - 1.17) < 0.01  # published with the file


def test_files_that_cannot_be_used_say_why(tmp_path):
    good = {
        "smiles": np.array(["CCCC"]),
        "atoms": np.array([[0, 1, 2, 3]]),
        "energy_kcal": np.zeros((1, 12)),
        "angle_degree": np.arange(-180, 180, 30),
    }

    def read(**changed):
        path = tmp_path / "profiles.npz"
        np.savez(path, **{k: v for k, v in (good | changed).items() if v is not None})
        return read_torsion_profiles(path)

    assert len(read()) == 1
    assert read().data(300.0).share.shape == (1, 12)
    with pytest.raises(InputError, match="has no smiles"):
        read(smiles=None)
    with pytest.raises(InputError, match="even angles"):
        read(angle_degree=np.arange(0, 360, 30))
    with pytest.raises(InputError, match="row 0 is not finite"):
        read(energy_kcal=np.full((1, 12), np.nan))
    with pytest.raises(InputError, match="row 0: RDKit cannot read"):
        read(smiles=np.array(["C(("]))
    with pytest.raises(InputError, match="rotor 0"):
        read(atoms=np.array([[0, 1, 3, 2]])).data(300.0)
    with pytest.raises(InputError, match="no such file"):
        read_torsion_profiles(tmp_path / "absent.npz")


def test_a_profile_of_atoms_that_cannot_be(tmp_path):
    np.savez(
        tmp_path / "profiles.npz",
        smiles=np.array(["CCCC", "CCCC"]),
        atoms=np.array([[0, 1, 2, 3], [0, 1, 2, -1]]),
        energy_kcal=np.zeros((2, 12)),
        angle_degree=np.arange(-180, 180, 30),
    )
    with pytest.raises(InputError, match=r"row 1 are \[0, 1, 2, -1\]"):
        read_torsion_profiles(tmp_path / "profiles.npz")


@pytest.mark.parametrize(
    ("one", "other"),
    [("CCCCO", "OCCCC"), ("[CH3:1]CCCO", "CCCCO"), ("C[C@H](O)CCF", "C[C@@H](O)CCF")],
)
def test_a_molecule_in_two_splits_is_refused(tmp_path, one, other):
    grid = np.arange(-180, 180, 10.0)
    arrays = {
        "smiles": np.array([one, "CCCCN", other]),
        "atoms": np.array([[0, 1, 2, 3]] * 3),
        "energy_kcal": np.cos(np.radians(grid))[None].repeat(3, 0),
        "angle_degree": grid,
    }
    path = tmp_path / "x.npz"
    np.savez(path, **arrays, split=np.array([0, 0, 2]))
    with pytest.raises(InputError, match=r"rows 0 .* and 2 .* are one molecule in two splits"):
        read_torsion_profiles(path, ["train"])
    np.savez(path, **arrays, split=np.array([2, 0, 2]))
    assert len(read_torsion_profiles(path, ["train"])) == 1
