import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from orbitwise.energies import Counted
from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.molecules import TorsionMove
from orbitwise.molecules.search.torsion_move import rotatable_bonds, rotate_about_bond
from orbitwise.search import run


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def molecule(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


@pytest.mark.parametrize(
    ("smiles", "heavy", "with_methyl"),
    [
        ("CCCC", 1, 3),  # the two methyls besides
        ("CC", 0, 1),
        ("FCCF", 1, 1),
        ("CC(=O)NC", 1, 3),  # the amide bond; two methyls
        ("C1CCCCC1", 0, 0),
        ("CC#N", 0, 0),  # the cyano group lies on the axis
        ("CC#CCO", 2, 3),  # C-C#C-C: the methyl, CH2, and the hydroxyl
        ("c1ccccc1O", 1, 1),
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)O", 5, 8),
        ("C", 0, 0),
        ("C=CC=C", 1, 1),
    ],
)
def test_rotatable_bonds(smiles, heavy, with_methyl):
    mol, _ = molecule(smiles)
    assert len(rotatable_bonds(mol)) == heavy
    assert len(rotatable_bonds(mol, methyl=True)) == with_methyl


def test_rotation_turns_one_dihedral_and_nothing_else():
    """Oracle: RDKit's measurement of dihedrals, bonds and angles."""
    mol, x = molecule("CCC(O)CC")
    dihedral = (0, 1, 2, 4)
    (bond,) = [b for b in rotatable_bonds(mol) if set(b[:2]) == {1, 2}]
    moving = torch.zeros(mol.GetNumAtoms(), dtype=torch.bool)
    moving[list(bond[2])] = True
    y = rotate_about_bond(x, torch.tensor(bond[:2]), moving, torch.tensor(0.7, dtype=torch.float64))
    turned = Chem.Mol(mol)
    turned.GetConformer().SetPositions(y.numpy())
    before, after = (
        rdMolTransforms.GetDihedralRad(m.GetConformer(), *dihedral) for m in (mol, turned)
    )
    change = (after - before + math.pi) % (2 * math.pi) - math.pi
    assert abs(abs(change) - 0.7) < 1e-6
    for b in mol.GetBonds():
        i, j = b.GetBeginAtomIdx(), b.GetEndAtomIdx()
        assert abs((y[i] - y[j]).norm() - (x[i] - x[j]).norm()) < 1e-12
    for group in (moving, ~moving):  # each side is rigid
        torch.testing.assert_close(torch.cdist(y[group], y[group]), torch.cdist(x[group], x[group]))


def test_volume_is_preserved():
    """Oracle: the determinant of the whole 3N-dimensional map by autograd."""
    mol, x = molecule("CCCO")
    i, j, side = next(b for b in rotatable_bonds(mol) if set(b[:2]) == {1, 2})
    axis, moving = torch.tensor([i, j]), torch.zeros(mol.GetNumAtoms(), dtype=torch.bool)
    moving[list(side)] = True
    jacobian = torch.autograd.functional.jacobian(
        lambda v: rotate_about_bond(
            v.view(-1, 3), axis, moving, torch.tensor(1.1, dtype=v.dtype)
        ).flatten(),
        x.flatten(),
    )
    assert abs(torch.linalg.det(jacobian).item() - 1) < 1e-10


class Torsional(Energy):
    """``V(φ)`` of the chain 0-1-2-3 with unequal wells, stiff bonds left alone: only the torsion
    moves here."""

    event_shape, zero_com = (4, 3), True

    @staticmethod
    def potential(phi):
        return 1.5 * (1 + torch.cos(3 * phi)) + 0.8 * (1 - torch.cos(phi)) + 0.3 * torch.sin(phi)

    def forward(self, x):
        a, b, c = x.diff(dim=-2).unbind(-2)
        n1, n2 = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
        phi = torch.atan2(b.norm(dim=-1) * (a * n2).sum(-1), (n1 * n2).sum(-1))
        return self.potential(phi)


def test_torsion_histogram_is_the_boltzmann_one():
    energy = Torsional()
    moving = torch.tensor([[False, False, False, True]])
    kernel = TorsionMove(torch.tensor([[1, 2]]), moving)
    x = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1.5, 0, 0], [2, 1, 0.3]], dtype=torch.float64)
    trace = run(kernel, kernel.init(x.repeat(200, 1, 1), energy), energy, 400, generator=gen(1))
    a, b, c = trace.x[50:].diff(dim=-2).unbind(-2)
    n1, n2 = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    phi = torch.atan2(b.norm(dim=-1) * (a * n2).sum(-1), (n1 * n2).sum(-1)).T
    grid = torch.linspace(-math.pi, math.pi, 7201, dtype=torch.float64)[:-1]
    weight = torch.exp(-energy.potential(grid))
    for low in range(-180, 180, 60):

        def inside(t, low=low):
            return ((t >= math.radians(low)) & (t < math.radians(low + 60))).double()

        exact = (weight * inside(grid)).sum() / weight.sum()
        share = inside(phi)
        error = share.std() / effective_sample_size(share).sqrt()
        assert (share.mean() - exact).abs() < 4.5 * error + 1e-3


def test_every_bond_is_tried_and_chains_choose_their_own():
    mol, x = molecule("CCCCC")

    class Flat(Energy):
        event_shape, zero_com = tuple(x.shape), True

        def value_and_grad(self, y):
            return y.new_zeros(y.shape[:-2]), torch.zeros_like(y)

    energy = Counted(Flat())
    kernel = TorsionMove.from_mol(mol, methyl=True)
    state = kernel.init(x.repeat(400, 1, 1), energy)
    new, info = kernel.step(state, energy, gen(2))
    assert energy.counts["other"].gradient == 800 and info.accepted.all()
    torch.testing.assert_close(new.x.mean(-2), state.x.mean(-2), rtol=0, atol=1e-12)
    rest = torch.cdist(new.x, new.x) - torch.cdist(x, x)
    turned = torch.stack(
        [(rest[:, m][:, :, ~m].abs() > 1e-9).flatten(1).any(1) for m in kernel.moving]
    )
    for k, side in enumerate(kernel.moving):
        # chains that turned bond k keep both sides of it rigid
        rigid = (rest[:, side][:, :, side].abs() < 1e-9).flatten(1).all(1)
        rigid &= (rest[:, ~side][:, :, ~side].abs() < 1e-9).flatten(1).all(1)
        assert 50 < (rigid & turned[k]).sum() < 200


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="no rotatable bond"):
        TorsionMove.from_mol(molecule("C1CCCCC1")[0])
    with pytest.raises(InputError, match="must not move"):
        TorsionMove(torch.tensor([[0, 1]]), torch.tensor([[True, False, True]]))
    mol, _ = molecule("CCCC")
    with pytest.raises(InputError, match="14 atoms"):
        TorsionMove.from_mol(mol).init(torch.zeros(2, 4, 3), Torsional())
