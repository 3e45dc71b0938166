"""OpenMM Systems in torch against OpenMM's Reference platform: force by force, in total, and what
is refused."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

openmm = pytest.importorskip("openmm", reason="needs OpenMM: pip install 'orbitwise[openmm]'")

from rdkit import Chem  # noqa: E402

import orbitwise.molecules.openmm.energy as torch_openmm  # noqa: E402
from orbitwise.errors import InputError  # noqa: E402
from orbitwise.metrics.torus import dihedral  # noqa: E402
from orbitwise.molecules import OpenMMEnergy, alanine_peptide  # noqa: E402

COMBINATIONS = [
    ("ff14SB", "vacuum"),
    ("ff14SB", "obc2"),
    ("ff14SB", "gbn2"),
    ("ff96", "vacuum"),
    ("ff96", "obc"),
    ("charmm36", "vacuum"),
    ("charmm36", "gbn2"),
]
OTHER_SOLVENTS = [("ff14SB", "hct"), ("ff14SB", "obc1"), ("ff14SB", "gbn"), ("ff96", "obc2")]
_made = {}


def peptide(residues=1, field="ff14SB", solvent="vacuum"):
    key = (residues, field, solvent)
    if key not in _made:
        _made[key] = alanine_peptide(*key)
    return _made[key]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distorted(positions, scales=(0.0, 0.03, 0.05, 0.1, 0.2), seed=0):
    """The geometry with normal noise of these sizes in Å per coordinate."""
    noise = torch.randn(
        len(scales), *positions.shape, generator=generator(seed), dtype=torch.float64
    )
    return positions + torch.tensor(scales, dtype=torch.float64)[:, None, None] * noise


def thermal(made, count=4, seed=0):
    """Geometries from a short Langevin run at 500 K."""
    integrator = openmm.LangevinMiddleIntegrator(500.0, 10.0, 0.0005)
    integrator.setRandomNumberSeed(seed + 1)
    context = openmm.Context(
        made.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(made.positions[0].numpy() / 10)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    frames = []
    for _ in range(count):
        integrator.step(25)
        frames.append(10 * context.getState(getPositions=True).getPositions(asNumpy=True)._value)
    return torch.tensor(np.stack(frames))


def from_openmm(system, x):
    """Energies [kJ/mol] and forces [kJ/mol/nm] of the Reference platform, double precision."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for row in x.numpy() / 10:
        context.setPositions(row)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(np.array(state.getForces(asNumpy=True)._value))
    return torch.tensor(energies, dtype=torch.float64), torch.tensor(np.stack(forces))


def assert_equals_openmm(system, x, at_least=0.0):
    """To 1e-4 kJ/mol and 1e-4 kJ/mol/nm; ``at_least``: the energy must be that large for the test
    to mean anything."""
    energy = OpenMMEnergy(system, temperature=310.0)
    value, grad = energy.value_and_grad(x)
    expected, forces = from_openmm(system, x)
    assert expected.abs().max() >= at_least
    assert (value * energy.kj_per_kT - expected).abs().max() < 1e-4
    assert (grad * energy.kj_per_kT * 10 + forces).abs().max() < 1e-4


def alone(system, k):
    """A System with the k-th force only."""
    single = openmm.System()
    for i in range(system.getNumParticles()):
        single.addParticle(system.getParticleMass(i))
    single.addForce(copy.deepcopy(system.getForce(k)))
    return single


# every combination on the smallest peptide, a few on the others: building and OpenMM's Reference
# platform are slow
CASES = [(1, *c) for c in COMBINATIONS]
MORE = [(1, *c) for c in OTHER_SOLVENTS]
MORE += [(2, "ff96", "obc"), (2, "ff14SB", "vacuum"), (3, "ff14SB", "obc2")]
CASES += [pytest.param(*c, marks=pytest.mark.slow) for c in MORE]


@pytest.mark.parametrize(("residues", "field", "solvent"), CASES)
def test_equals_openmm(residues, field, solvent):
    made = peptide(residues, field, solvent)
    x = torch.cat([distorted(made.positions[0]), thermal(peptide(residues, field, "vacuum"))])
    assert_equals_openmm(made.system, x, at_least=10.0)


@pytest.mark.parametrize(("field", "solvent"), COMBINATIONS)
def test_every_force_by_itself(field, solvent):
    made = peptide(1, field, solvent)
    x = distorted(made.positions[0], seed=3)
    seen = set()
    for k in range(made.system.getNumForces()):
        name = type(made.system.getForce(k)).__name__
        seen.add(name)
        assert_equals_openmm(alone(made.system, k), x, at_least=0.0 if "Remover" in name else 1e-2)
    assert {
        "HarmonicBondForce",
        "HarmonicAngleForce",
        "PeriodicTorsionForce",
        "NonbondedForce",
    } <= seen
    if field == "charmm36":
        assert {
            "CMAPTorsionForce",
            "CustomTorsionForce",
            "CustomNonbondedForce",
            "CustomBondForce",
        } <= seen
    if solvent != "vacuum":
        assert {"GBSAOBCForce", "CustomGBForce"} & seen


def empty(particles):
    system = openmm.System()
    for _ in range(particles):
        system.addParticle(12.0)
    return system


def chain(particles, count, seed=0, spread=0.4):
    """Random walks with steps of 1.5 Å."""
    steps = torch.randn(count, particles, 3, generator=generator(seed), dtype=torch.float64)
    return (1.5 * torch.nn.functional.normalize(steps, dim=-1)).cumsum(1) + spread * steps


def test_torsions_of_any_phase_and_period():
    system, force = empty(6), openmm.PeriodicTorsionForce()
    rng = np.random.default_rng(0)
    for atoms in ([0, 1, 2, 3], [3, 2, 1, 0], [5, 1, 0, 3], [2, 3, 4, 5]):
        for period in range(1, 8):
            force.addTorsion(*atoms, period, rng.uniform(-4, 4), rng.uniform(-30, 30))
    system.addForce(force)
    assert_equals_openmm(system, chain(6, 50), at_least=10.0)


@pytest.mark.parametrize("shape", ["wrapped", "plain"])
def test_harmonic_impropers_of_both_kinds(shape):
    expressions = {
        "wrapped": "k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0); pi = 3.1415926535",
        "plain": "k*(theta-theta0)^2",
    }
    system, force = empty(4), openmm.CustomTorsionForce(expressions[shape])
    force.addPerTorsionParameter("theta0")
    force.addPerTorsionParameter("k")
    for atoms, theta0 in (((0, 1, 2, 3), 3.0), ((2, 0, 1, 3), -2.5), ((3, 1, 0, 2), 0.1)):
        force.addTorsion(*atoms, [theta0, 25.0])
    system.addForce(force)
    assert_equals_openmm(system, chain(4, 50), at_least=10.0)


def test_cmap_on_a_rough_map():
    size, rng = 12, np.random.default_rng(1)
    force = openmm.CMAPTorsionForce()
    for _ in range(2):
        force.addMap(size, rng.normal(size=size * size) * 10)
    force.addMap(7, rng.normal(size=49) * 10)
    force.addTorsion(1, 0, 1, 2, 3, 1, 2, 3, 4)
    force.addTorsion(0, 3, 2, 1, 0, 4, 3, 2, 1)
    force.addTorsion(2, 0, 1, 2, 3, 2, 3, 4, 5)
    system = empty(6)
    system.addForce(force)
    assert_equals_openmm(system, chain(6, 100), at_least=10.0)


def charged_pair():
    system, force = empty(3), openmm.NonbondedForce()
    for charge, sigma, epsilon in ((1.0, 0.3, 0.5), (0.7, 0.2, 0.0), (-0.4, 0.35, 1.5)):
        force.addParticle(charge, sigma, epsilon)
    force.addException(0, 1, -0.3, 0.25, 0.8)
    system.addForce(force)
    return system


def test_a_charged_system_with_exceptions_that_change_parameters():
    x = 3.0 * torch.randn(20, 3, 3, generator=generator(), dtype=torch.float64)
    x = x[
        torch.stack([(x[:, i] - x[:, j]).norm(dim=1) for i, j in ((0, 1), (0, 2), (1, 2))]).amin(0)
        > 1.5
    ]
    assert len(x) > 5
    assert_equals_openmm(charged_pair(), x, at_least=10.0)


@pytest.mark.parametrize("angle", [0.01, 1.0, 90.0, 179.0, 179.99])
def test_angles_near_their_ends(angle):
    system, force = empty(3), openmm.HarmonicAngleForce()
    force.addAngle(0, 1, 2, 1.9, 400.0)
    system.addForce(force)
    radians = math.radians(angle)
    x = torch.tensor(
        [[[1.1, 0, 0], [0, 0, 0], [1.4 * math.cos(radians), 1.4 * math.sin(radians), 0]]]
    )
    energy = OpenMMEnergy(system)
    value, grad = energy.value_and_grad(x.double())
    expected, forces = from_openmm(system, x.double())
    torch.testing.assert_close(value * energy.kj_per_kT, expected, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(grad * energy.kj_per_kT * 10, -forces, rtol=1e-4, atol=1e-4)


def test_straight_and_collinear_atoms_are_finite():
    made = peptide()
    x = made.positions.clone()
    x[0, [1, 4, 5]] = torch.tensor([[0.0, 0, 0], [1.5, 0, 0], [2.7, 0, 0]], dtype=torch.float64)
    value, grad = OpenMMEnergy(made.system).value_and_grad(x)
    assert torch.isfinite(value).all() and torch.isfinite(grad).all()


def solvated_pair(kind, distance):
    """Two atoms so close that one lies inside the other's descreening sphere, or far apart."""
    small, large = (0.0801, 0.115, 0.85), (-0.2, 0.19, 1.3)
    system = empty(2)
    if kind == "GBSAOBCForce":
        force = openmm.GBSAOBCForce()
        for row in (small, large):
            force.addParticle(*row)
    else:
        from openmm.app.internal import customgbforces

        force = getattr(customgbforces, kind)(SA="ACE")
        for charge, radius, scale in (small, large):
            extra = [1.0, 0.8, 4.85] if kind == "GBSAGBn2Force" else []
            force.addParticle([charge, radius, scale, *extra])
        force.finalize()
    system.addForce(force)
    x = torch.zeros(1, 2, 3, dtype=torch.float64)
    x[0, 1] = distance * torch.tensor([0.6, 0.0, 0.8])
    return system, x


@pytest.mark.parametrize("distance", [0.3, 0.8, 1.2, 1.9, 4.0, 9.0, 12.0])
@pytest.mark.parametrize(
    "kind", ["GBSAOBCForce", "GBSAHCTForce", "GBSAOBC2Force", "GBSAGBnForce", "GBSAGBn2Force"]
)
def test_descreening_at_every_distance(kind, distance):
    assert_equals_openmm(*solvated_pair(kind, distance), at_least=0.01)


@pytest.mark.parametrize("surface", [None, "ACE"])
@pytest.mark.parametrize("kappa", [0.0, 1.5])
def test_salt_dielectrics_and_surface_are_read(kappa, surface):
    from openmm import app

    made = peptide(1, "ff14SB", "gbn2")
    system = app.ForceField("amber14/protein.ff14SB.xml", "implicit/gbn2.xml").createSystem(
        made.topology,
        constraints=None,
        rigidWater=False,
        implicitSolventKappa=kappa,
        sasaMethod=surface,
        soluteDielectric=2.0,
        solventDielectric=40.0,
    )
    x = distorted(made.positions[0])
    assert_equals_openmm(system, x)
    standard = from_openmm(made.system, x)[0]
    assert (from_openmm(system, x)[0] - standard).abs().min() > 1.0  # the options did something


def test_batches(monkeypatch):
    made = peptide(1, "ff14SB", "gbn2")
    energy = OpenMMEnergy(made.system)
    x = distorted(made.positions[0], [0.05] * 60).view(3, 20, -1, 3)
    before = x.clone()
    value, grad = energy.value_and_grad(x)
    assert value.shape == (3, 20) and grad.shape == x.shape and torch.equal(x, before)
    one, slope = energy.value_and_grad(x[1, 7])
    assert one.shape == () and slope.shape == x.shape[2:]
    torch.testing.assert_close(one, value[1, 7], rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(slope, grad[1, 7], rtol=1e-10, atol=1e-8)
    monkeypatch.setattr(torch_openmm, "CHUNK", 20_000)  # many pieces
    pieces, slopes = energy.value_and_grad(x)
    torch.testing.assert_close(pieces, value, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(slopes, grad, rtol=1e-10, atol=1e-8)
    nothing, none = energy.value_and_grad(x[:0])
    assert nothing.shape == (0, 20) and none.shape == (0, *x.shape[1:])


@pytest.mark.parametrize(("field", "solvent"), COMBINATIONS)
def test_float32_is_good_enough_for_sampling(field, solvent):
    made = peptide(1, field, solvent)
    energy = OpenMMEnergy(made.system)
    x = (
        thermal(made, 20) + 5.0
    ).float()  # away from the origin, where float32 has fewer digits left
    value, grad = energy.value_and_grad(x.double())
    single, slope = energy.value_and_grad(x)
    assert single.dtype == slope.dtype == torch.float32
    assert (single - value).abs().max() < 2e-3  # kT
    assert ((slope - grad).norm(dim=(1, 2)) / grad.norm(dim=(1, 2))).max() < 2e-5


@pytest.mark.parametrize(("field", "solvent"), COMBINATIONS)
def test_gradient_against_finite_differences(field, solvent):
    made = peptide(1, field, solvent)
    energy = OpenMMEnergy(made.system)
    x = thermal(made, 3)
    _, grad = energy.value_and_grad(x)
    for seed in range(3):
        way = torch.randn(x.shape, generator=generator(seed), dtype=torch.float64)
        h = 1e-4
        far = [energy(x + k * h * way) for k in (-2, -1, 1, 2)]
        slope = (far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * h)
        expected = (grad * way).sum((-1, -2))
        assert ((slope - expected).abs() < 1e-6 * (1 + grad.flatten(1).norm(dim=1))).all()


def test_symmetries():
    made = peptide(2, "ff96", "obc")
    energy = OpenMMEnergy(made.system)
    x = thermal(made)
    value, grad = energy.value_and_grad(x)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator(1), dtype=torch.float64))
    moved, slope = energy.value_and_grad(x @ turn.T + 3.0)
    torch.testing.assert_close(moved, value, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(slope, grad @ turn.T, rtol=1e-8, atol=1e-7)
    assert (
        grad.sum(-2).abs().max() < 1e-8 and torch.linalg.cross(x, grad).sum(-2).abs().max() < 1e-7
    )
    swapped = list(range(x.shape[1]))
    swapped[0], swapped[2] = 2, 0  # two hydrogens of the first methyl
    torch.testing.assert_close(energy(x[:, swapped]), value, rtol=1e-10, atol=1e-8)


def test_units_and_temperature():
    made = peptide(1, "ff96", "obc")
    expected, _ = from_openmm(made.system, made.positions)
    cold, hot = OpenMMEnergy(made.system, 150.0), OpenMMEnergy(made.system, 600.0)
    assert cold.kj_per_kT == pytest.approx(150 * 0.0083144626, rel=1e-8)
    torch.testing.assert_close(cold(made.positions), 4 * hot(made.positions))
    torch.testing.assert_close(hot.kj_per_mol(made.positions), expected, rtol=0, atol=1e-4)
    assert hot.masses.sum() == pytest.approx(144.17, abs=0.01) and "600 K" in repr(hot)


def test_not_a_number_stays_where_it_is():
    made = peptide(1, "charmm36", "gbn2")
    energy = OpenMMEnergy(made.system)
    x = distorted(made.positions[0], [0.05] * 3)
    clean = energy(x)
    x[1, 4, 2] = math.nan
    value, grad = energy.value_and_grad(x)
    assert torch.isnan(value).tolist() == [False, True, False]
    assert torch.isfinite(grad[[0, 2]]).all()
    torch.testing.assert_close(value[[0, 2]], clean[[0, 2]])


def test_copies_pickles_and_does_not_keep_the_system():
    made = peptide(1, "ff14SB", "gbn2")
    energy = OpenMMEnergy(made.system)
    value = energy(made.positions)
    for twin in (
        copy.deepcopy(energy),
        pickle.loads(pickle.dumps(energy)),
        energy.to(torch.float32),
    ):
        assert torch.equal(twin(made.positions), value)


def refused(change, match):
    system = copy.deepcopy(peptide(1, "ff14SB", "obc2").system)
    change(system, {type(f).__name__: f for f in system.getForces()})
    with pytest.raises(InputError, match=match):
        OpenMMEnergy(system)


def custom_gb(system, forces, change):
    """Replace the solvent's Born-radius expression."""
    force = forces["CustomGBForce"]
    name, expression, kind = force.getComputedValueParameters(1)
    force.setComputedValueParameters(1, name, change(expression), kind)


CHANGES = {
    "cutoff": (
        lambda s, f: f["NonbondedForce"].setNonbondedMethod(1),
        "NonbondedForce has a cutoff.*NoCutoff",
    ),
    "pme": (lambda s, f: f["NonbondedForce"].setNonbondedMethod(4), "NonbondedForce has a cutoff"),
    "switch": (lambda s, f: f["NonbondedForce"].setUseSwitchingFunction(True), "switching"),
    "solvent cutoff": (
        lambda s, f: f["CustomGBForce"].setNonbondedMethod(1),
        "CustomGBForce has a cutoff",
    ),
    "barostat": (
        lambda s, f: s.addForce(openmm.MonteCarloBarostat(1.0, 300.0)),
        "MonteCarloBarostat",
    ),
    "constraint": (
        lambda s, f: s.addConstraint(0, 1, 0.1),
        "constraints=None and rigidWater=False",
    ),
    "virtual site": (
        lambda s, f: s.setVirtualSite(5, openmm.TwoParticleAverageSite(1, 4, 0.5, 0.5)),
        "particle 5 is a virtual site",
    ),
    "external": (lambda s, f: s.addForce(openmm.CustomExternalForce("x^2")), "CustomExternalForce"),
    "restraint": (
        lambda s, f: s.addForce(openmm.CustomBondForce("k*r^4")),
        "CustomBondForce.*k\\*r\\^4",
    ),
    "pairs": (
        lambda s, f: s.addForce(openmm.CustomNonbondedForce("1/r^9")),
        "CustomNonbondedForce.*1/r\\^9",
    ),
    "torsion": (
        lambda s, f: s.addForce(openmm.CustomTorsionForce("cos(theta)")),
        "CustomTorsionForce",
    ),
    "offset": (
        lambda s, f: (
            f["NonbondedForce"].addGlobalParameter("lambda", 0.0),
            f["NonbondedForce"].addParticleParameterOffset("lambda", 0, 0.1, 0.0, 0.0),
        ),
        "parameter offsets",
    ),
    "periodic": (
        lambda s, f: f["HarmonicBondForce"].setUsesPeriodicBoundaryConditions(True),
        "HarmonicBondForce is periodic",
    ),
    "solvent": (
        lambda s, f: custom_gb(s, f, lambda e: e.replace("tanh", "tan")),
        "CustomGBForce has the expression.*tan\\(",
    ),
    "solvent term": (
        lambda s, f: f["CustomGBForce"].addEnergyTerm("B^2", openmm.CustomGBForce.SingleParticle),
        "CustomGBForce has the expression 'B\\^2'",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_reproduced_is_refused(name):
    refused(*CHANGES[name])


def test_other_errors_name_the_cause():
    with pytest.raises(InputError, match=r"openmm\.System"):
        OpenMMEnergy("amber96.xml")
    with pytest.raises(InputError, match="no particles"):
        OpenMMEnergy(openmm.System())
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="temperature"):
            OpenMMEnergy(peptide().system, temperature)
    energy = OpenMMEnergy(peptide().system)
    for shape in [(21, 3), (22, 2), (66,)]:
        with pytest.raises(InputError, match=r"\(\*B, 22, 3\)"):
            energy(torch.zeros(shape))
    with pytest.raises(InputError, match="float32 or float64"):
        energy(torch.zeros(22, 3, dtype=torch.long))
    with pytest.raises(InputError, match="ff96, ff14SB, charmm36"):
        alanine_peptide(1, "ff99")
    with pytest.raises(InputError, match="solvent of ff14SB"):
        alanine_peptide(1, "ff14SB", "obc")
    with pytest.raises(InputError, match="at least one"):
        alanine_peptide(0)


# OpenMM takes most of a minute to match the residues of a longer chain with CHARMM's patched caps
@pytest.mark.parametrize(
    ("residues", "field"), [(1, "ff96"), (2, "ff96"), (3, "ff96"), (1, "charmm36")]
)
def test_peptides_are_what_they_say(residues, field):
    made = peptide(residues, field, "vacuum")
    n = 12 + 10 * residues
    assert made.positions.shape == (1, n, 3) and made.system.getNumParticles() == n
    assert Chem.MolToSmiles(Chem.RemoveHs(made.mol)) == Chem.CanonSmiles(
        "CC(=O)" + "N[C@@H](C)C(=O)" * residues + "NC"
    )
    bonds = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in made.mol.GetBonds()}
    assert {tuple(b) for b in made.bonds.tolist()} == bonds
    assert {tuple(sorted((a.index, b.index))) for a, b in made.topology.bonds()} == bonds
    assert [a.element.atomic_number for a in made.topology.atoms()] == made.species.tolist()
    assert (dihedral(made.positions, made.omega).abs() > math.radians(150)).all()
    for table, path in ((made.phi, "C N CA C"), (made.psi, "N CA C N")):
        assert table.shape == (residues, 4)
        for row in table.tolist():
            assert [made.names[i].split("-")[1] for i in row] == path.split()
            assert all(tuple(sorted(pair)) in bonds for pair in itertools.pairwise(row))
    seen = Chem.Mol(made.mol)
    Chem.RemoveStereochemistry(seen)
    Chem.AssignStereochemistryFrom3D(seen)
    assert [kind for _, kind in Chem.FindMolChiralCenters(seen)] == ["S"] * residues  # L-alanine


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    made = peptide(3, "charmm36", "gbn2")
    energy = OpenMMEnergy(made.system)
    x = thermal(made).repeat(50, 1, 1)
    value, grad = energy.value_and_grad(x)
    there, slope = energy.value_and_grad(x.cuda())
    assert there.is_cuda and slope.is_cuda
    torch.testing.assert_close(there.cpu(), value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope.cpu(), grad, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solvent", ["vacuum", "obc2"])
def test_atoms_on_one_another_are_a_wall_without_nan(solvent, dtype):
    made = peptide(solvent=solvent)
    energy = OpenMMEnergy(made.system)
    usual = energy(made.positions[0].to(dtype))
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 15), (4, 21)):
        x = made.positions[0].to(dtype).clone()
        x[i] = x[j]
        value, grad = energy.value_and_grad(x)
        assert torch.isfinite(grad).all() and value > usual + 100, (i, j)
    x[0, 0] = float("nan")
    assert energy(x).isnan()
