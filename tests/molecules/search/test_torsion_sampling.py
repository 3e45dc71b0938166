"""Conformers with drawn torsions. Oracles: RDKit's dihedrals and distances, KS, quadrature."""

import math

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from scipy import stats

from orbitwise.molecules.molecule import parse_smiles, with_conformers
from orbitwise.molecules.search.rotors import Rotors
from orbitwise.molecules.search.torsion_sampling import importance_ess, sample_torsions
from orbitwise.processes import VonMisesMixture


def law(rotors, kappa=2.0):
    zero = torch.zeros(len(rotors), 1, dtype=torch.float64)
    return VonMisesMixture(zero, zero + 0.7, zero + kappa)


def test_torsions_are_set_and_the_rest_is_that_of_the_embedding():
    mol = parse_smiles("CCCO")
    rotors = Rotors.from_mol(mol)
    drawn = sample_torsions(mol, rotors, law(rotors), 300, seed=2)
    assert drawn.failed == 0 and drawn.positions.shape == (300, mol.GetNumAtoms(), 3)
    several = with_conformers(mol, drawn.positions[:5].numpy())
    for k in range(5):
        for r, atoms in enumerate(rotors.atoms.tolist()):
            seen = rdMolTransforms.GetDihedralRad(several.GetConformer(k), *atoms)
            assert abs(math.remainder(seen - float(drawn.torsions[k, r]), 2 * math.pi)) < 1e-6
    for bond in mol.GetBonds():
        length = (
            drawn.positions[:, bond.GetBeginAtomIdx()] - drawn.positions[:, bond.GetEndAtomIdx()]
        ).norm(dim=-1)
        assert length.std() < 1e-9
    away = torch.remainder(drawn.torsions - 0.7 + math.pi, 2 * math.pi) - math.pi
    for r in range(len(rotors)):
        assert stats.kstest(away[:, r].numpy(), stats.vonmises(2.0).cdf).pvalue > 1e-3
    torch.testing.assert_close(
        drawn.log_density, torch.from_numpy(stats.vonmises.logpdf(away.numpy(), 2.0).sum(-1))
    )


def test_what_clashes_is_left_out_and_counted():
    """A long chain curled up by all-cis torsions runs into itself; nothing that is kept does."""
    mol = parse_smiles("CCCCCCCCCC")
    rotors = Rotors.from_mol(mol)
    zero = torch.zeros(len(rotors), 1, dtype=torch.float64)
    drawn = sample_torsions(
        mol, rotors, VonMisesMixture(zero, zero, zero + 1.0), 60, tries=2, seed=0
    )
    assert 0 < drawn.failed < 60 and drawn.tries > 60
    assert len(drawn.positions) == len(drawn.torsions) == 60 - drawn.failed
    table, bonds = Chem.GetPeriodicTable(), Chem.GetDistanceMatrix(mol)
    radius = [table.GetRvdw(a.GetAtomicNum()) for a in mol.GetAtoms()]
    x = drawn.positions.numpy()
    for i in range(mol.GetNumAtoms()):
        for j in range(i):
            if bonds[i, j] > 5:
                near = np.linalg.norm(x[:, i] - x[:, j], axis=-1).min()
                assert near >= (radius[i] + radius[j]) / 2


def test_a_molecule_without_rotors_gives_its_embeddings():
    drawn = sample_torsions(parse_smiles("C1CC1"), None, None, 3)
    assert drawn.positions.shape == (3, 9, 3) and drawn.torsions.shape == (3, 0)


def test_importance_weights_are_worth_what_the_law_says():
    """A law that is the Boltzmann law: all draws count; else n (∫ q r)² / ∫ q r² by quadrature."""
    mol = parse_smiles("FCCF")
    rotors = Rotors.from_mol(mol)
    drawn = sample_torsions(mol, rotors, law(rotors), 4000, seed=1)
    theta = drawn.torsions[:, 0]
    exact = 4000.0
    assert abs(importance_ess(drawn, -2.0 * torch.cos(theta - 0.7)) - exact) < 1e-6 * exact
    grid = np.linspace(-math.pi, math.pi, 2001)[:-1]
    q = stats.vonmises.pdf(grid, 2.0, 0.7)
    r = np.exp(-1.5 * np.cos(3 * grid)) / q
    share = (q * r).sum() ** 2 / ((q * r * r).sum() * q.sum())
    found = importance_ess(drawn, 1.5 * torch.cos(3 * theta)) / 4000
    assert abs(found - share) < 0.1 * share
