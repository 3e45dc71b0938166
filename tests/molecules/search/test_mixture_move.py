"""The independence proposal of torsions. Oracles: quadrature of the Boltzmann law, RDKit's
dihedrals, detailed balance counted in exact samples."""

import io
import math
import pickle

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules import MixtureMove
from orbitwise.molecules.mmff.energy import MMFF94
from orbitwise.molecules.search.mixture_move import TorsionProposal
from orbitwise.molecules.search.rotors import Rotors
from orbitwise.processes import ProductMixture, VonMisesMixture
from orbitwise.processes.von_mises import even_angles
from orbitwise.search import Cycle, run
from orbitwise.search.tempering import Tempered


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def molecule(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return mol, torch.from_numpy(mol.GetConformer().GetPositions())


class Chain(Energy):
    """A rigid chain 0-1-2-3-4: ``V(φ, ψ)`` with unequal wells and a coupling of its two
    torsions."""

    event_shape, zero_com = (5, 3), True
    atoms = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])

    @staticmethod
    def potential(phi, psi):
        one = 1.2 * (1 + torch.cos(3 * phi)) + 0.8 * (1 - torch.cos(phi)) + 0.3 * torch.sin(phi)
        return one + (1 + torch.cos(3 * psi)) + 1.5 * torch.cos(phi + psi)

    def forward(self, x):
        return self.potential(*dihedral(x, self.atoms).unbind(-1))


ROTORS = Rotors(
    torch.tensor([[1, 2], [2, 3]]),
    torch.tensor([[False, False, False, True, True], [False, False, False, False, True]]),
    Chain.atoms,
)
START = torch.tensor(
    [[1.0, 1, 0], [0, 0, 0], [1.5, 0, 0], [2, 1, 0.3], [3.4, 1.2, 0.5]], dtype=torch.float64
)


def law(dims, sets, seed):
    """Any mixture: the target must come out whatever is proposed."""
    g = gen(seed)
    return ProductMixture(
        torch.randn(sets, 3, generator=g),
        torch.rand(sets, 3, dims, generator=g) * 6,
        torch.rand(sets, 3, dims, generator=g) * 2,
    )


def moves():
    single = TorsionProposal(torch.tensor([[0], [1]]), law(1, 2, 1), 0.6)
    pair = TorsionProposal(torch.tensor([[1, 0]]), law(2, 1, 2), 0.4)
    return {
        "single": MixtureMove(ROTORS, (single,)),
        "pair": MixtureMove(ROTORS, (pair,)),
        "both": MixtureMove(ROTORS, (single, pair)),
    }


def cells(angles, bins=6):
    """One-hot cells of a ``bins × bins`` map, ``(..., 2) -> (..., bins²)``."""
    k = ((angles / (2 * math.pi) + 0.5) * bins).floor().long().clamp(0, bins - 1)
    return torch.nn.functional.one_hot(k[..., 0] * bins + k[..., 1], bins * bins).double()


def exact_cells(beta=1.0):
    grid = even_angles(720, torch.zeros((), dtype=torch.float64)) + math.pi / 720
    at = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    weight = (-beta * Chain.potential(*at.unbind(-1))).softmax(0)
    return weight @ cells(at)


@pytest.mark.parametrize("kind", ["single", "pair", "both"])
def test_long_chains_give_the_boltzmann_law_of_quadrature(kind):
    energy, kernel = Chain(), moves()[kind]
    x = START.repeat(400, 1, 1)
    trace = run(kernel, kernel.init(x, energy), energy, 170, generator=gen(3))
    assert 0.1 < trace.acceptance.mean() < 0.9
    share = cells(dihedral(trace.x[40:], Chain.atoms)).transpose(0, 1)
    exact, seen = exact_cells(), share.mean((0, 1))
    error = share.flatten(0, 1).std(0) / effective_sample_size(share).sqrt()
    wide = exact > 1e-3
    z = (seen - exact)[wide] / error[wide]
    assert z.abs().max() < 4.5 and z.square().mean() < 2.0


def test_each_temperature_has_its_own_law_and_keeps_its_own_target():
    beta = torch.tensor([[1.0], [0.3]], dtype=torch.float64)
    energy = Tempered(Chain(), beta)
    two = ProductMixture(
        *(
            torch.stack([a, b]).unsqueeze(1)
            for a, b in zip(vars(law(1, 2, 4)).values(), vars(law(1, 2, 5)).values(), strict=True)
        )
    )
    assert two.mean.shape == (2, 1, 2, 3, 1)
    kernel = MixtureMove(ROTORS, (TorsionProposal(torch.tensor([[0], [1]]), two),))
    state = kernel.init(START.expand(2, 200, 5, 3).contiguous(), energy)
    trace = run(kernel, state, energy, 170, generator=gen(4))
    for row in range(2):
        share = cells(dihedral(trace.x[40:, row], Chain.atoms)).transpose(0, 1)
        exact = exact_cells(float(beta[row]))
        error = share.flatten(0, 1).std(0) / effective_sample_size(share).sqrt()
        wide = exact > 1e-3
        z = (share.mean((0, 1)) - exact)[wide] / error[wide]
        assert z.abs().max() < 4.5 and z.square().mean() < 2.0


def test_detailed_balance_in_exact_samples():
    """From exact samples, as many chains go from cell a to cell b as from b to a."""
    grid = even_angles(360, torch.zeros((), dtype=torch.float64))
    at = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    weight = (-Chain.potential(*at.unbind(-1))).softmax(0)
    chains = 40_000
    drawn = at[torch.multinomial(weight, chains, replacement=True, generator=gen(5))]
    start = START.expand(chains, 5, 3)
    which = torch.tensor([0, 1]).expand(chains, 2)
    x = ROTORS.turn(start, which, drawn - ROTORS.angles(start))
    torch.testing.assert_close((ROTORS.angles(x) - drawn).sin(), torch.zeros_like(drawn))
    energy, kernel = Chain(), moves()["both"]
    new, _ = kernel.step(kernel.init(x, energy), energy, gen(6))
    before = cells(dihedral(x, Chain.atoms), 3)
    flow = before.T @ cells(dihedral(new.x, Chain.atoms), 3)
    there, back = flow.triu(1), flow.T.triu(1)
    used = there + back > 20
    z = (there - back)[used] / (there + back)[used].sqrt()
    assert used.sum() > 12 and z.abs().max() < 4.5 and z.square().mean() < 1.6


def test_the_name_of_a_rotor_shifts_its_angle_alone():
    """RDKit's dihedrals of all names turn by the same angle."""
    mol, x = molecule("CC(C)CC(C)C(F)Cl")
    rotors = Rotors.from_mol(mol)
    angle = torch.linspace(0.3, 1.1, len(rotors), dtype=torch.float64)
    y = rotors.turn(x, torch.arange(len(rotors)), angle)
    turned = Chem.Mol(mol)
    turned.GetConformer().SetPositions(y.numpy())
    for k, (_, i, j, _) in enumerate(rotors.atoms.tolist()):
        for a in mol.GetAtomWithIdx(i).GetNeighbors():
            for d in mol.GetAtomWithIdx(j).GetNeighbors():
                name = (a.GetIdx(), i, j, d.GetIdx())
                if name[0] == j or name[3] == i:
                    continue
                before, after = (
                    rdMolTransforms.GetDihedralRad(m.GetConformer(), *name) for m in (mol, turned)
                )
                assert abs(math.remainder(after - before - float(angle[k]), 2 * math.pi)) < 1e-6


def test_behind_a_linear_chain_the_name_is_off_the_axis():
    mol, x = molecule("CCC#CCO")
    rotors = Rotors.from_mol(mol)
    assert len(rotors) == 2  # the two ends of the linear chain are one
    y = rotors.turn(x, torch.arange(2), torch.full((2,), 0.5).double())
    change = (rotors.angles(y) - rotors.angles(x) - 0.5).sin()
    assert change.abs().max() < 1e-6


def test_butane_with_a_force_field_against_torsion_and_hmc_moves():
    """MMFF94 butane: the population of trans from chains with and without the mixture move."""
    from orbitwise.molecules import TorsionMove
    from orbitwise.search import HMC

    mol, x = molecule("CCCC")
    energy = MMFF94(mol, temperature=300.0)
    x = (x - x.mean(-2, keepdim=True)).repeat(24, 1, 1)
    rotors = Rotors.from_mol(mol)
    found = []
    for seed in (0, 1):
        hmc = HMC(0.018, 4, jitter=0.2)
        kernel = Cycle((hmc, TorsionMove.from_mol(mol)), (1, 2))
        trace = run(kernel, kernel.init(x, energy), energy, 40, generator=gen(seed))
        if seed == 1:
            move = MixtureMove.fit(mol, trace.x[10:], components={"single": 4})
            kernel = Cycle((hmc, move), (1, 4))
        trace = run(
            kernel, kernel.init(trace.state.x, energy), energy, 110, generator=gen(seed + 9)
        )
        trans = (rotors.angles(trace.x)[..., 0].abs() > 2 * math.pi / 3).double().T
        error = trans.std() / effective_sample_size(trans).sqrt()
        found.append((trans.mean(), error))
    (a, da), (b, db) = found
    assert (a - b).abs() < 4 * (da.square() + db.square()).sqrt() and max(da, db) < 0.08


def test_fit_is_reproducible_and_goes_through_tensors_and_pickle():
    mol, x = molecule("CCCCO")
    rotors = Rotors.from_mol(mol)
    frames = x.expand(40, 2, 3, *x.shape)
    noise = torch.randn(40, 2, 3, len(rotors), generator=gen(0), dtype=torch.float64)
    frames = rotors.turn(frames, torch.arange(len(rotors)).expand(40, 2, 3, -1), noise)
    move = MixtureMove.fit(mol, frames, seed=3)
    named = move.tensors()
    for k, v in MixtureMove.fit(mol, frames, seed=3).tensors().items():
        assert torch.equal(v, named[k])
    assert named["0.mean"].shape == (2, 1, len(rotors), 7, 1)
    file = io.BytesIO()
    torch.save(named, file)
    file.seek(0)
    again = MixtureMove.from_tensors(torch.load(file, weights_only=True))
    energy = MMFF94(mol, temperature=300.0)
    start = frames[-1].contiguous()
    played = []
    for kernel in (move, again, pickle.loads(pickle.dumps(move))):
        state, generator = kernel.init(start, energy), gen(1)
        for _ in range(5):
            state, _ = kernel.step(state, energy, generator)
        played.append(state.x)
    assert torch.equal(played[0], played[1]) and torch.equal(played[0], played[2])


def test_given_laws_are_proposed_with_a_floor():
    """Draws that are always accepted (no energy) follow the law: 0.9 of it and 0.1 uniform."""
    mixture = VonMisesMixture(
        torch.zeros(2, 1), torch.tensor([[1.0], [-2.0]]), torch.tensor([[50.0], [50.0]])
    )
    move = MixtureMove.from_law(ROTORS, mixture, floor=0.1)
    (proposal,) = move.proposals
    grid = even_angles(720, torch.zeros(()))
    density = proposal.law.log_density(grid.view(-1, 1, 1)).exp()
    exact = 0.9 * mixture.log_density(grid.view(-1, 1)).exp() + 0.1 / (2 * math.pi)
    torch.testing.assert_close(density, exact)


def test_what_does_not_fit_is_refused():
    assert MixtureMove.fit(molecule("C1CCCCC1")[0], torch.zeros(4, 2, 18, 3)) is None
    with pytest.raises(InputError, match="shares"):
        MixtureMove(ROTORS, ())
    with pytest.raises(InputError, match="no kind of proposal"):
        MixtureMove.from_angles(ROTORS, torch.zeros(5, 2, 2), shares={"triple": 1.0})
    with pytest.raises(InputError, match="law of shape"):
        TorsionProposal(torch.tensor([[0], [1]]), law(1, 3, 0))
    with pytest.raises(InputError, match="one that stays"):
        Rotors(ROTORS.axes, ROTORS.moving, ROTORS.atoms.flip(1))
    with pytest.raises(InputError, match="do not fit points"):
        moves()["pair"].init(torch.zeros(2, 4, 3), Chain())
