"""Dihedrals against RDKit's own, and the choice of torsions on molecules whose answer is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from orbitwise.errors import InputError
from orbitwise.metrics.divergence import angle_kl
from orbitwise.metrics.torus import dihedral, torus_distances, torus_w2
from orbitwise.molecules.metrics.torsions import find_torsions, map_pair, torsion_word


def molecule(smiles: str):
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def test_dihedral_equals_rdkit():
    mol = molecule("CC(C)Cc1ccc(cc1)C(C)C(=O)O")
    AllChem.EmbedMultipleConfs(mol, 12, randomSeed=5)
    torsions = [t.atoms for t in find_torsions(mol)]
    x = torch.stack([torch.tensor(c.GetPositions()) for c in mol.GetConformers()]).reshape(
        3, 4, -1, 3
    )
    ours = dihedral(x, torsions)
    assert ours.shape == (3, 4, len(torsions))
    theirs = torch.tensor(
        [[rdMolTransforms.GetDihedralRad(c, *t) for t in torsions] for c in mol.GetConformers()]
    )
    difference = torch.remainder(ours.reshape(12, -1) - theirs + math.pi, 2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-6  # RDKit goes through acos


def test_mirror_image_changes_the_sign_and_collinear_atoms_give_a_number():
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(dihedral(-x, [(0, 1, 2, 3)]), -dihedral(x, [(0, 1, 2, 3)]))
    line = torch.arange(4.0)[:, None] * torch.tensor([1.0, 2.0, 0.5])
    assert torch.isfinite(dihedral(line, [(0, 1, 2, 3)])).all()


@pytest.mark.parametrize(
    "smiles, kinds",
    [
        ("CC", []),  # methyl rotors only
        ("O", []),
        ("C#CC#C", []),  # linear: no dihedral is defined
        ("OO", ["single"]),
        ("CCCC", ["single"]),
        ("FCCF", ["single"]),
        ("CCCCC", ["single", "single"]),
        ("CC[C@@H](C)O", ["single", "single"]),
        ("CC(C)(C)C(F)(F)F", []),
        ("C1CCCCC1", ["ring"]),  # six equivalent ones, one is shown
        ("c1ccccc1", []),
        ("CC(=O)NC", ["amide"]),
        ("CC(=O)NC(C)C(=O)NC", ["backbone", "backbone", "amide", "amide"]),
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", ["single"] * 5),
    ],
)
def test_known_molecules(smiles, kinds):
    assert [t.kind for t in find_torsions(molecule(smiles))] == kinds


def test_phi_and_psi_of_alanine_dipeptide_and_of_a_tripeptide():
    torsions = find_torsions(molecule("CC(=O)NC(C)C(=O)NC"))
    assert [t.label for t in torsions[:2]] == ["φ", "ψ"]
    assert torsions[0].atoms == (1, 3, 4, 6) and torsions[1].atoms == (3, 4, 6, 8)
    assert [(t.label, t.atoms) for t in torsions[2:]] == [
        ("ω1", (0, 1, 3, 4)),
        ("ω2", (4, 6, 8, 9)),
    ]
    assert map_pair(torsions) == (0, 1)
    longer = find_torsions(molecule("CC(=O)NCC(=O)NC(C)C(=O)NC"))
    assert [t.label for t in longer[:4]] == ["φ1", "ψ1", "φ2", "ψ2"]


def test_labels_count_from_one_and_pairs_need_two():
    (torsion,) = find_torsions(molecule("FCCF"))
    assert torsion.label == "F1–C2–C3–F4"
    assert map_pair((torsion,)) is None


def test_implicit_hydrogens_are_refused():
    with pytest.raises(InputError, match="AddHs"):
        find_torsions(Chem.MolFromSmiles("CCCC"))


@pytest.mark.parametrize(
    "degrees, word",
    [
        (180, "trans"),
        (-175, "trans"),
        (62, "g+"),
        (-62, "g-"),
        (118, "e+"),
        (5, "cis"),
        (300, "g-"),
    ],
)
def test_words(degrees, word):
    assert torsion_word(math.radians(degrees)) == word


def test_torus_distance_is_the_shortest_way_round():
    g = torch.Generator().manual_seed(1)
    a, b = (20 * torch.rand(k, 2, generator=g, dtype=torch.float64) - 10 for k in (30, 40))
    images = 2 * math.pi * torch.cartesian_prod(*[torch.arange(-8.0, 9.0)] * 2).double()
    brute = (a[:, None, None] - b[None, :, None] + images).norm(dim=-1).min(-1).values
    assert torch.allclose(torus_distances(a, b), brute)
    assert torus_distances(a, b).max() <= math.pi * math.sqrt(2)


def test_torus_w2_against_all_permutations_and_across_the_seam():
    g = torch.Generator().manual_seed(2)
    x, y = (2 * math.pi * torch.rand(k, 2, generator=g, dtype=torch.float64) for k in (6, 12))
    found = torus_w2(x, y, generator=torch.Generator().manual_seed(3))
    assert found.size == 6
    own = torch.Generator().manual_seed(3)
    x, y = (v[torch.randperm(len(v), generator=own)] for v in (x, y))
    d2 = torus_distances(x, y[:6]).square()
    best = min(sum(float(d2[i, p[i]]) for i in range(6)) for p in itertools.permutations(range(6)))
    assert found.value == pytest.approx(math.sqrt(best / 6))
    # a cloud beside the seam and the same cloud turned by 0.3 rad in each angle
    cloud = torch.randn(400, 2, generator=g, dtype=torch.float64) * 0.05 + math.pi
    turned = torus_w2(
        (cloud + 0.3).remainder(2 * math.pi) - 4 * math.pi, cloud.repeat(2, 1), generator=own
    )
    assert turned.value == pytest.approx(0.3 * math.sqrt(2), rel=0.05)


def test_floors_are_what_exact_samples_show():
    g = torch.Generator().manual_seed(4)
    x, y = (torch.randn(k, 2, generator=g) * 0.5 for k in (700, 6000))
    w2, kl = torus_w2(x, y), angle_kl(x, y)
    assert w2.value == pytest.approx(w2.floor, rel=0.3)
    assert abs(kl.value - kl.floor) < 4 * kl.floor_std and kl.floor_size == 700
    assert torus_w2(x + 0.5, y).value > 5 * w2.floor
    assert angle_kl(x + 0.5, y).value > kl.floor + 20 * kl.floor_std


def test_kl_of_angles_is_that_of_the_densities():
    # von Mises densities of one mean: KL = log(I0(b)/I0(a)) + (a - b) I1(a)/I0(a), little bias at
    # 2·10⁵
    a, b = 4.0, 1.5
    x = np.random.default_rng(0)
    reference, samples = (torch.from_numpy(x.vonmises(0.7, k, 100_000))[:, None] for k in (a, b))
    i0 = [float(torch.special.i0(torch.tensor(k))) for k in (a, b)]
    i1 = float(torch.special.i1(torch.tensor(a)))
    exact = math.log(i0[1] / i0[0]) + (a - b) * i1 / i0[0]
    assert angle_kl(samples, reference, bins=72).value == pytest.approx(exact, abs=0.01)


def test_kl_with_missed_bins_by_hand():
    # 100 of 1000 reference points lie where no sample is: p = (900, 100), q = (500, 0), 1/2 added
    # to each
    reference = torch.cat([torch.full((900, 2), 0.1), torch.full((100, 2), 2.0)])
    found = angle_kl(torch.full((500, 2), 0.1), reference)
    p, q = (900.5 / 1001, 100.5 / 1001), (500.5 / 501, 0.5 / 501)
    assert found.value == pytest.approx(sum(i * math.log(i / j) for i, j in zip(p, q, strict=True)))
    assert found.missed == pytest.approx(0.1)
    assert found.floor < 0.01


def test_unfit_angle_sets_are_refused():
    with pytest.raises(InputError):
        torus_w2(torch.zeros(3, 2), torch.zeros(1, 2))
    with pytest.raises(InputError):
        torus_w2(torch.full((3, 2), math.nan), torch.zeros(4, 2))
    with pytest.raises(InputError):
        angle_kl(torch.zeros(3, 1), torch.zeros(4, 2))


def test_alanine_dipeptide_angles_and_floors(shared_data):
    data = np.load(shared_data("alanine_dipeptide/aldp_300K.npz"))
    x = torch.from_numpy(data["positions_nm"]).double()
    angles = dihedral(x, [tuple(data["phi_index"]), tuple(data["psi_index"])])
    stored = torch.from_numpy(np.stack([data["phi_deg"], data["psi_deg"]], -1)).double().deg2rad()
    assert torus_distances(angles[:500], stored[:500]).diagonal().max() < 1e-3
    angles = angles[torch.randperm(len(angles), generator=torch.Generator().manual_seed(0))]
    kl, w2 = angle_kl(angles[:3000], angles[3000:]), torus_w2(angles[:1000], angles[3000:])
    assert abs(kl.value - kl.floor) < 5 * kl.floor_std and kl.floor < 0.15
    assert w2.value < 2 * w2.floor
