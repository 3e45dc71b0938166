import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.energies import GaussianMixture
from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.molecules import MMFF94, KeepStereo, Stereo, TorsionMove
from orbitwise.search import (
    HMC,
    MALA,
    AdjustedLangevin,
    Cycle,
    ReplicaExchange,
    geometric_ladder,
    run,
    warmup,
)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def molecule(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=3) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


def chiral_labels(mol, x):
    """Oracle: RDKit's own perception from the coordinates."""
    copy = Chem.Mol(mol)
    copy.GetConformer().SetPositions(x.double().numpy())
    Chem.AssignStereochemistryFrom3D(copy)
    return Chem.FindMolChiralCenters(copy, useLegacyImplementation=False), [
        str(b.GetStereo()) for b in copy.GetBonds() if b.GetBondType() == Chem.BondType.DOUBLE
    ]


class BondsOnly(Energy):
    """Harmonic bonds and a weak repulsion, no angle terms: centres invert freely."""

    zero_com = True

    def __init__(self, mol, x):
        super().__init__()
        self.event_shape = tuple(x.shape)
        pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
        self.i, self.j = torch.tensor(pairs).T
        self.length = (x[self.i] - x[self.j]).norm(dim=-1)
        self.far = torch.triu_indices(len(x), len(x), 1)

    def forward(self, x):
        bond = (x[..., self.i, :] - x[..., self.j, :]).norm(dim=-1) - self.length
        r2 = (x[..., self.far[0], :] - x[..., self.far[1], :]).square().sum(-1)
        return 100 * bond.square().sum(-1) + 2 * torch.exp(-r2).sum(-1)


def test_signs_are_invariant_under_motions_and_flip_under_reflection():
    mol, x = molecule("C[C@H](O)/C=C/C(=O)N[C@@H](F)CS(C)=O")
    stereo = Stereo.from_mol(mol, x)
    assert len(stereo.bonds) == 1 and len(stereo.centres) == 6  # five carbons, the sulphoxide
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=gen(), dtype=torch.float64))
    q = q * torch.linalg.det(q)
    assert stereo.keeps(x @ q + 5.0)
    mirrored = stereo.signs(x * torch.tensor([1.0, 1.0, -1.0]))
    k = len(stereo.centres)
    assert torch.equal(mirrored[:k], -stereo.reference[:k].double())
    assert torch.equal(mirrored[k:], stereo.reference[k:].double())
    assert not stereo.keeps(x * -1) and not stereo.keeps(x * torch.nan)


def test_exchanged_hydrogens_of_a_prochiral_centre_are_another_class():
    mol, x = molecule("CCO")
    stereo = Stereo.from_mol(mol, x)
    hydrogens = [a.GetIdx() for a in mol.GetAtomWithIdx(1).GetNeighbors() if a.GetAtomicNum() == 1]
    swapped = x.clone()
    swapped[hydrogens] = x[hydrogens[::-1]]
    assert stereo.keeps(x) and not stereo.keeps(swapped)


@pytest.mark.parametrize(("cis", "trans"), [("F/C=C\\F", "F/C=C/F"), ("C/C=N\\O", "C/C=N/O")])
def test_cis_and_trans_differ(cis, trans):
    (mol, x), (other, y) = molecule(cis), molecule(trans)
    assert [a.GetAtomicNum() for a in mol.GetAtoms()] == [
        a.GetAtomicNum() for a in other.GetAtoms()
    ]
    stereo = Stereo.from_mol(mol, x)
    k = len(stereo.centres)
    assert torch.equal(stereo.signs(y)[k:], -stereo.reference[k:].double())


def test_rings_amides_and_aromatic_bonds_are_left_alone():
    mol, x = molecule("O=C(NC)C1=CCCCC1c1ccccc1")
    assert len(Stereo.from_mol(mol, x).bonds) == 0


@pytest.mark.parametrize(
    "kernel", [MALA(0.1), HMC(0.1, 5), AdjustedLangevin(0.1)], ids=lambda k: type(k).__name__
)
def test_a_surrogate_without_angles_inverts_and_the_guard_forbids_and_counts(kernel):
    mol, x = molecule("C[C@@H](O)F")
    energy, stereo, g = BondsOnly(mol, x), Stereo.from_mol(mol, x), gen(1)
    start = x.repeat(16, 1, 1)
    free = run(
        kernel,
        warmup(kernel, kernel.init(start, energy), energy, 60, generator=g),
        energy,
        400,
        generator=g,
    )
    assert not stereo.keeps(free.x).all()  # the oracle: without the guard handedness is lost
    guarded = KeepStereo(kernel, stereo)
    state = warmup(guarded, guarded.init(start, energy), energy, 60, generator=g)
    seen = []
    trace = run(
        guarded, state, energy, 400, generator=g, observe=lambda n, s, i: seen.append(i.left_class)
    )
    assert stereo.keeps(trace.x).all()
    assert trace.count("left_class") == int(torch.stack(seen).sum()) > 0


def test_butanol_at_2000_kelvin_keeps_its_hand():
    mol, x = molecule("CC[C@@H](C)O")
    energy, stereo, g = MMFF94(mol, temperature=2000.0).double(), Stereo.from_mol(mol, x), gen(2)
    kernel = Cycle(
        (KeepStereo(HMC(0.02, 8), stereo), KeepStereo(TorsionMove.from_mol(mol), stereo))
    )
    state = kernel.init(x.repeat(8, 1, 1), energy)
    state = warmup(kernel, state, energy, 60, generator=g)
    trace = run(kernel, state, energy, 100, generator=g)
    assert abs(trace.acceptance.mean() - 0.8) < 0.1
    labels = {str(chiral_labels(mol, y)) for y in trace.x[::10].flatten(0, 1)}
    assert labels == {str(chiral_labels(mol, x))} and "R" in labels.pop()


def test_the_guarded_distribution_is_the_restricted_one():
    """Oracle: plain samples of a correlated Gaussian, those of the other hand thrown away."""
    means = torch.tensor(
        [[0.3, 0, 0], [0, 0.5, 0], [0, 0, 0.4], [0.1, 0.2, 0.3]], dtype=torch.float64
    )
    energy = GaussianMixture(means[None])
    stereo = Stereo(
        torch.tensor([[0, 1, 2, 3]]), torch.zeros(0, 4, dtype=torch.long), torch.ones(1)
    )
    oracle = energy.sample((400_000,), generator=gen(3))
    oracle = oracle[stereo.keeps(oracle)]
    settled = ((HMC(0.5, 3), 60), (MALA(0.5), 60), (AdjustedLangevin(0.4, friction=0.1), 250))
    for kernel, steps in settled:  # Langevin chains start at rest
        guarded, g = KeepStereo(kernel, stereo), gen(4)
        state = guarded.init(oracle[:2000], energy)
        state = run(guarded, state, energy, steps, generator=g, thin=steps).state
        for f in (lambda y: y, torch.square):
            got, exact = f(state.x), f(oracle)
            error = (got.var(0) / len(got) + exact.var(0) / len(exact)).sqrt()
            assert ((got.mean(0) - exact.mean(0)).abs() < 4.5 * error).all()


def test_what_would_be_wrong_is_refused():
    mol, x = molecule("C[C@@H](O)F")
    stereo = Stereo.from_mol(mol, x)
    with pytest.raises(InputError, match="wrap the kernels inside"):
        KeepStereo(Cycle((HMC(),)), stereo)
    with pytest.raises(InputError, match="wrap the kernels inside"):
        KeepStereo(ReplicaExchange(HMC(), geometric_ladder(1.0, 2.0, 2)), stereo)
    with pytest.raises(InputError, match="1 of 2 starting points"):
        KeepStereo(HMC(), stereo).init(torch.stack([x, -x]), BondsOnly(mol, x))
    with pytest.raises(InputError, match="do not fit"):
        Stereo.from_mol(mol, x[:4])
    with pytest.raises(InputError, match="flat"):
        Stereo.from_mol(mol, x * torch.tensor([1.0, 1.0, 0.0]))
