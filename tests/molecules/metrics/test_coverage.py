"""Coverage and AMR: by hand, and RMSDs against RDKit's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rdkit.Chem import RemoveHs, rdMolAlign

from orbitwise.errors import InputError
from orbitwise.molecules.metrics.conformers import symmetric_rmsd
from orbitwise.molecules.metrics.coverage import average, coverage, coverages, heavy_matching
from orbitwise.molecules.molecule import embed, parse_smiles, with_conformers

SMILES = [
    "OCCO",
    "CC(C)CC(=O)[O-]",
    "c1ccccc1CN",
    "FC(F)(F)CC(C)C",
    "CCOP(=O)(O)OC",
    "CC[N+](=O)[O-]",
    "CNC(N)=[NH2+]",
    "C1CCOC1",
]


@pytest.mark.parametrize("smiles", SMILES)
def test_distances_are_those_of_rdkit(smiles):
    mol = parse_smiles(smiles)
    x = embed(mol, 5, 0)
    found = symmetric_rmsd(torch.from_numpy(x[:3]), torch.from_numpy(x[3:]), heavy_matching(mol))
    one, other = RemoveHs(with_conformers(mol, x[:3])), RemoveHs(with_conformers(mol, x[3:]))
    expected = [[rdMolAlign.GetBestRMS(other, one, b, a) for b in range(2)] for a in range(3)]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_coverage_by_hand():
    rmsd = torch.tensor([[0.1, 0.9, 2.0], [0.6, 0.4, 1.0]])
    found = coverage(rmsd, (0.3, 0.5))
    assert found.recall_amr == pytest.approx((0.1 + 0.4) / 2)
    assert found.precision_amr == pytest.approx((0.1 + 0.4 + 1.0) / 3)
    assert found.recall_cov == (0.5, 1.0)
    assert found.precision_cov == pytest.approx((1 / 3, 2 / 3))
    assert (found.references, found.samples) == (2, 3)


def test_many_molecules_at_once_are_each_on_their_own():
    mols = [parse_smiles(s) for s in ("OCCO", "CCCC", "CCCO")]
    frames = [torch.from_numpy(embed(m, 6, 1)) for m in mols]
    seen = []
    found = coverages(
        mols,
        [x[:2] for x in frames],
        [x[2:] for x in frames],
        workers=2,
        progress=lambda k, n: seen.append((k, n)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for mol, x, c in zip(mols, frames, found, strict=True):
        assert c == coverage(symmetric_rmsd(x[:2], x[2:], heavy_matching(mol)))
    same = coverages(mols[:1], [frames[0]], [frames[0].flip(0)])[0]
    assert same.recall_amr < 1e-6 and same.recall_cov == (1.0, 1.0, 1.0)


def test_the_error_of_a_mean_is_that_of_independent_molecules():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = average(values, draws=4000)
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.median == pytest.approx(float(values.quantile(0.5)))
    assert found.error == pytest.approx(float(values.std()) / 20, rel=0.1)


@pytest.mark.parametrize(
    "rmsd", [torch.zeros(0, 3), torch.zeros(2, 0), torch.tensor([[float("nan")]])]
)
def test_nothing_to_compare_is_an_error(rmsd):
    with pytest.raises(InputError):
        coverage(rmsd)


def test_hydrogen_alone_and_too_many_exchanges_are_errors():
    with pytest.raises(InputError, match="no heavy atom"):
        heavy_matching(parse_smiles("[H][H]"))
    with pytest.raises(InputError, match="more than 10 exchanges"):
        heavy_matching(parse_smiles("FC(F)(F)C(F)(F)F"), limit=10)
