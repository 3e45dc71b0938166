"""Symmetric RMSD against RDKit and brute force; conformers of molecules whose answer is known;
errors of populations against repeated draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign
from scipy.spatial.transform import Rotation

from orbitwise.errors import InputError
from orbitwise.molecules.metrics.conformers import (
    Matching,
    assign,
    find_conformers,
    matching,
    populations,
    symmetric_rmsd,
)

KT_KCAL = 0.0019872 * 300.0


def minima(smiles: str, count: int, seed: int = 1):
    """RDKit minima (tight) of many embeddings: molecule, positions, energies in kT."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    parameters.useRandomCoords = True
    AllChem.EmbedMultipleConfs(mol, count, parameters)
    result = AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=20_000)
    energy = torch.tensor([e for _, e in result], dtype=torch.float64) / KT_KCAL
    return mol, torch.stack([torch.tensor(c.GetPositions()) for c in mol.GetConformers()]), energy


def scramble(x, match, seed):
    """Rotate, shift and relabel every structure by an automorphism of its compared atoms."""
    rng = np.random.default_rng(seed)
    turn = torch.tensor(Rotation.random(len(x), rng).as_matrix())
    x = x @ turn.transpose(1, 2) + torch.tensor(rng.normal(size=(len(x), 1, 3)) * 5)
    pick = match.permutations[torch.tensor(rng.integers(len(match.permutations), size=len(x)))]
    out = x.clone()
    out[:, match.atoms] = x[:, match.atoms].gather(1, pick[..., None].expand(-1, -1, 3))
    return out


@pytest.mark.parametrize(
    "smiles, compared, count",
    [
        ("CCCC", 4, 2),
        ("C1CCCCC1", 6, 12),
        ("CC(=O)[O-]", 4, 2),  # the two oxygens are exchangeable
        ("CC(=O)O", 5, 1),
        ("CC(C)(C)C", 5, 24),
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", 16, 4),
        ("[O-][N+](=O)c1ccccc1", 9, 4),
        ("OO", 4, 2),
        ("CC(=O)N[C@@H](C)C(=O)NC", 12, 1),
        ("[H][H]", 2, 2),
    ],
)
def test_exchangeable_atoms(smiles, compared, count):
    match = matching(Chem.AddHs(Chem.MolFromSmiles(smiles)))
    assert match.atoms.shape == (compared,) and match.permutations.shape == (count, compared)
    with pytest.raises(InputError, match="automorphisms"):
        matching(Chem.AddHs(Chem.MolFromSmiles("CC(C)(C)C")), limit=10)


def test_rmsd_equals_rdkit():
    mol, x, _ = minima("CC(C)Cc1ccc(cc1)C(C)C", 8)
    ours = symmetric_rmsd(x, x, matching(mol))
    heavy = Chem.RemoveHs(mol)
    theirs = torch.zeros(8, 8, dtype=torch.float64)
    for i, j in itertools.combinations(range(8), 2):
        theirs[i, j] = theirs[j, i] = rdMolAlign.GetBestRMS(Chem.Mol(heavy), Chem.Mol(heavy), i, j)
    assert (ours - theirs).abs().max() < 1e-4
    assert ours.diagonal().abs().max() < 1e-6


def test_rmsd_equals_brute_force_and_sees_mirror_images():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    match = Matching(torch.arange(4), torch.tensor(list(itertools.permutations(range(4)))))

    def brute(a, b):
        a, b = (a - a.mean(0)).numpy(), (b - b.mean(0)).numpy()
        return (
            min(Rotation.align_vectors(a, b[list(p)])[1] for p in itertools.permutations(range(4)))
            / 2
        )

    expected = torch.tensor([[brute(a, b) for b in y] for a in x])
    assert torch.allclose(symmetric_rmsd(x, y, match), expected, atol=1e-7)
    expected = torch.tensor([[brute(a, -b) for b in y] for a in x])
    assert torch.allclose(symmetric_rmsd(x, y, match, mirror=True), expected, atol=1e-7)
    assert symmetric_rmsd(scramble(y, match, 3), y, match).diagonal().max() < 1e-6
    assert symmetric_rmsd(-y, y, match).diagonal().min() > 0.05  # four points are chiral


@pytest.mark.parametrize(
    "smiles, distinct, merged",
    [
        ("CCCC", 3, 2),  # trans, gauche+, gauche-
        ("FCCF", 3, 2),
        ("CCCCC", 7, 4),  # tt; tg+, tg-; g+g+, g-g-; g+x-, g-x+
        ("OO", 2, 1),  # polar hydrogens count
        ("CC(=O)NC", 1, 1),  # embeddings are trans, methyl rotors do not count
        ("CC[C@@H](C)O", 9, 9),  # chiral: nothing merges
    ],
)
def test_known_conformers(smiles, distinct, merged):
    mol, x, energy = minima(smiles, 150)
    match = matching(mol)
    found = find_conformers(scramble(x, match, 5), energy, match)
    assert len(found) == distinct
    assert len(found.merge_mirror_images()) == merged
    assert (found.energy.diff() >= 0).all() and found.label.bincount().sum() == 150
    # independent: the number of different energies, mirror images having the same one
    levels = 1 + int((energy.sort().values.diff() > 0.01).sum())
    assert levels == merged


def test_cyclohexane_chairs_are_one_conformer():
    """Ring flips turn axial into equatorial hydrogens; labelled chairs differ, conformers do
    not."""
    mol, x, energy = minima("C1CCCCC1", 60)
    match = matching(mol)
    chair = energy < energy.min() + 0.5
    one = Matching(match.atoms, torch.arange(6)[None])
    assert len(find_conformers(scramble(x[chair], match, 1), energy[chair], match)) == 1
    assert len(find_conformers(scramble(x[chair], match, 1), energy[chair], one)) > 1
    both = find_conformers(x, energy, match).merge_mirror_images()
    assert len(both) <= 2  # chair and twist boat


def test_a_loose_quench_is_enough_when_representatives_are_refined():
    mol, x, energy = minima("CC(=O)N[C@@H](C)C(=O)NC", 200)
    match = matching(mol)
    tight = find_conformers(x, energy, match)
    g = torch.Generator().manual_seed(2)
    shaken = x + 0.12 * torch.randn(x.shape, generator=g, dtype=x.dtype)

    def refine(y):  # the minimum each one came from
        source = (y[:, None] - shaken[None]).abs().amax((2, 3)).argmin(1)
        return x[source], energy[source]

    loose = find_conformers(shaken, energy, match, rmsd=0.2)
    refined = find_conformers(shaken, energy, match, refine=refine)
    assert len(loose) > len(refined) == len(tight)
    assert torch.equal(refined.label, tight.label)
    assert torch.equal(assign(x, tight, match), tight.label)
    assert (assign(1.5 * x, tight, match) == -1).all()


def test_ten_thousand_samples_are_clustered_in_seconds():
    import time

    mol, x, energy = minima("CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", 100)
    match = matching(mol)
    g = torch.Generator().manual_seed(3)
    many = x.repeat(100, 1, 1)
    many = scramble(many + 0.01 * torch.randn(many.shape, generator=g, dtype=x.dtype), match, 8)
    begin = time.process_time()
    found = find_conformers(many, energy.repeat(100), match)
    assert time.process_time() - begin < 20
    assert torch.equal(found.label[:100].repeat(100), found.label)
    assert len(found) == len(find_conformers(x, energy, match))


def test_not_finite_energies_are_refused():
    match = Matching(torch.arange(3), torch.arange(3)[None])
    with pytest.raises(InputError, match="1 of 2"):
        find_conformers(torch.randn(2, 3, 3), torch.tensor([0.0, math.nan]), match)


def draws(p, n, repeats, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.multinomial(p, n * repeats, replacement=True, generator=g).reshape(repeats, n)


def test_errors_of_independent_samples():
    p = torch.tensor([0.6, 0.3, 0.1])
    runs = [populations(row, 3) for row in draws(p, 400, 300, 1)]
    found = torch.stack([r.population for r in runs])
    assert torch.allclose(found.mean(0), p.double(), atol=0.005)
    one = runs[0]
    q = one.population
    assert torch.allclose(one.error, (q * (1 - q) / 399).sqrt(), rtol=1e-6)  # the binomial error
    free = torch.stack([r.free_energy[2] for r in runs])
    claimed = torch.stack([r.free_energy_error[2] for r in runs]).mean()
    assert float(free.std()) == pytest.approx(float(claimed), rel=0.2)
    assert one.free_energy[0] == 0 and one.free_energy_error[0] == 0 and one.count.sum() == 400


def test_errors_of_correlated_samples_come_from_blocks():
    """Every draw repeated 20 times: the error must be that of the draws, not of the copies."""
    p = torch.tensor([0.6, 0.4])
    label = draws(p, 200, 1, 2)[0]
    copies = label.repeat_interleave(20)
    honest = populations(copies, 2, blocks=torch.arange(200).repeat_interleave(20))
    assert torch.allclose(honest.error, populations(label, 2).error)
    assert populations(copies, 2).error[0] < 0.3 * honest.error[0]


def test_weighted_samples():
    """Draws from q reweighted to p: unbiased, and the error agrees with the scatter."""
    p, q = torch.tensor([0.7, 0.25, 0.05]), torch.tensor([0.2, 0.3, 0.5])
    runs = [populations(r, 3, log_weights=(p / q).log()[r] + 7.0) for r in draws(q, 1000, 300, 3)]
    found = torch.stack([r.population for r in runs])
    assert torch.allclose(found.mean(0), p.double(), atol=0.005)
    error = torch.stack([r.error for r in runs]).mean(0)
    assert torch.allclose(found.std(0), error, rtol=0.15)


def test_conformers_never_seen():
    seen = populations(torch.tensor([0, 0, 1]), 3)
    assert seen.population[2] == 0 and math.isinf(seen.free_energy[2]) and seen.count[2] == 0
    with pytest.raises(InputError, match="two"):
        populations(torch.zeros(5, dtype=torch.long), 1, blocks=torch.zeros(5))
