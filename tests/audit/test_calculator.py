"""Audits of calculators and force fields: which are symmetric, and those whose asymmetry is known
in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from orbitwise.audit import Quadrature, audit_equivariance
from orbitwise.audit.calculator import (
    CALCULATORS,
    KINDS,
    CalculatorModel,
    ForceFieldModel,
    ModelCalculator,
    structure_batches,
)
from orbitwise.data.structures import Structure, available, read_structures
from orbitwise.errors import EnergyError, InputError
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.so3 import O3, SO3
from orbitwise.networks import PointTransformer

OUTPUTS = ("energy", "forces", "stress")


def structures_of(frames, **values) -> list[Structure]:
    return [
        Structure(
            a.numbers.astype(np.int64),
            a.positions if a.pbc.any() else a.positions - a.positions.mean(0),
            a.cell.array if a.pbc.any() else np.zeros((3, 3)),
            np.asarray(a.pbc),
            f"frame {k}",
            **{name: value[k] for name, value in values.items()},
        )
        for k, a in enumerate(frames)
    ]


def crystals(kind: str = "Cu", n: int = 3) -> list[Atoms]:
    """Strained and rattled, so that no force or stress vanishes."""
    rng, out = np.random.default_rng(0), []
    for k in range(n):
        a = (
            bulk("NaCl", "rocksalt", a=5.6)
            if kind == "NaCl"
            else bulk(kind, "fcc", a=3.7, cubic=True)
        )
        a.set_cell(a.cell @ (np.eye(3) + 0.04 * rng.normal(size=(3, 3))), scale_atoms=True)
        a.rattle(0.1, seed=k)
        out.append(a)
    return out


def molecules(*names: str) -> list[Atoms]:
    out = []
    for k, name in enumerate(names):
        a = molecule(name)
        a.rattle(0.05, seed=k)
        out.append(a)
    return out


def audit(calculator, structures, outputs, group=None, reference=False, **options):
    model = CalculatorModel(calculator, outputs, [s.where for s in structures])
    batches = structure_batches(structures, outputs, reference=reference, size=2, **options)
    kinds = {name: KINDS[name] for name in outputs}
    generator = torch.Generator().manual_seed(0)
    return audit_equivariance(model, group or SO3(), batches, outputs=kinds, generator=generator)


@pytest.mark.parametrize("group", [SO3(), O3()], ids=["so3", "o3"])
@pytest.mark.parametrize(
    "calculator",
    [EMT(), LennardJones(sigma=2.3, epsilon=0.4, rc=6.0, smooth=True)],
    ids=["emt", "lj"],
)
def test_pair_potentials_of_ase_are_symmetric_to_rounding_with_cell_and_stress(calculator, group):
    report = audit(calculator, structures_of(crystals()), OUTPUTS, group)
    for row in report.rows:
        assert row.rounding and row.relative_deviation < 1e-13, row
        assert row.total.value > 1e-4  # there is something to be wrong about
    assert report.evaluations == 3 * 24 * (2 if isinstance(group, O3) else 1) + 3 * 1 + 2 * 2


def test_a_cell_that_does_not_turn_with_the_atoms_is_seen():
    """The negative control of the one above: the same calculator in a cell that stands still."""

    class Standing(EMT):
        def calculate(self, atoms, properties, system_changes):
            still = atoms.copy()
            still.set_cell(cell)
            super().calculate(still, properties, system_changes)

    frames = crystals(n=1)
    cell = frames[0].cell.copy()
    row = audit(Standing(), structures_of(frames), ("forces",)).row("forces")
    assert not row.rounding and row.relative_deviation > 0.1


def test_xtb_is_symmetric_to_the_convergence_of_its_field():
    pytest.importorskip("tblite", reason="xTB needs tblite (orbitwise[xtb])")
    report = audit(
        CALCULATORS["xtb"](), structures_of(molecules("H2O", "NH3", "CH3OH")), ("energy", "forces")
    )
    # the self-consistent field ends at about 1e-6 of the forces; symmetric starts take it much
    # further
    assert report.row("energy").relative_deviation < 1e-9
    assert report.row("forces").relative_deviation < 1e-6
    assert report.row("forces").total.value > 0.1


@pytest.mark.filterwarnings("ignore")
def test_chgnet_is_symmetric_to_single_precision():
    pytest.importorskip("chgnet", reason="CHGNet is not installed (orbitwise[chgnet])")
    structures = structures_of(crystals("NaCl", 2))
    report = audit(CALCULATORS["chgnet"](), structures, OUTPUTS)
    for row in report.rows:
        assert row.relative_deviation < 1e-4, row
    assert report.row("forces").total.value > 1e-3


class Tilted(EMT):
    """EMT with a constant field: of force ``c``, energy ``-k·Σx`` per atom and stress ``s`` (a
    broken symmetry)."""

    c = np.array([0.3, -0.2, 0.5])
    k = np.array([0.1, 0.05, -0.02])
    s = np.array([[0.02, 0.01, 0.0], [0.01, -0.03, 0.005], [0.0, 0.005, 0.04]])

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"] + self.c
        self.results["energy"] = self.results["energy"] + atoms.positions.sum(0) @ self.k
        self.results["stress"] = (
            self.results["stress"] + self.s[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
        )


def test_a_known_broken_symmetry_gives_its_closed_form():
    """Forces ``f + c``, reference ``f + d``: the split is |d|² and |c|²/3 per component; of the
    stress only the part of s without trace turns; the energy is a vector, Σx, along k: a third of
    |Σx|²|k|²/N²."""
    frames = crystals(n=3)
    rng = np.random.default_rng(1)
    wrong = {"energy": [0.7, -0.4, 0.2], "forces": [], "stress": []}
    values = {"energy": [], "forces": [], "stress": []}
    for k, a in enumerate(frames):
        a.calc = EMT()
        wrong["forces"].append(0.3 * rng.normal(size=(len(a), 3)))
        tilt = rng.normal(size=(3, 3))
        wrong["stress"].append(0.01 * (tilt + tilt.T))
        values["energy"].append(a.get_potential_energy() - wrong["energy"][k])
        values["forces"].append(a.get_forces() - wrong["forces"][k])
        values["stress"].append(a.get_stress(voigt=False) - wrong["stress"][k])
    report = audit(Tilted(), structures_of(frames, **values), OUTPUTS, reference=True)
    trace = np.trace(Tilted.s) / 3 * np.eye(3)
    noise = {
        "forces": Tilted.c @ Tilted.c / 3,
        "stress": ((Tilted.s - trace) ** 2).mean(),
        "energy": np.mean([a.positions.sum(0) @ a.positions.sum(0) / len(a) ** 2 for a in frames])
        * (Tilted.k @ Tilted.k)
        / 3,
    }
    rest = {
        "forces": np.mean([(w**2).mean() for w in wrong["forces"]]),
        "stress": np.mean([((w + trace) ** 2).mean() for w in wrong["stress"]]),
        "energy": np.mean([(w / 4) ** 2 for w in wrong["energy"]]),
    }
    for name in OUTPUTS:
        row = report.row(name)
        assert row.equivariance.value == pytest.approx(noise[name], rel=1e-9), name
        assert row.twirled.value == pytest.approx(rest[name], rel=1e-9), name
        percent = 100 * noise[name] / (noise[name] + rest[name])
        assert row.percent.value == pytest.approx(percent, rel=1e-9), name
        assert not row.rounding


def test_structures_of_several_sizes_and_kinds_count_once_each():
    frames = [*molecules("H2O", "CH3OH", "N2"), *crystals(n=2)]
    batches = structure_batches(structures_of(frames), ("forces",), reference=False, size=2)
    assert sorted(len(b) for b in batches) == [1, 1, 1, 2]
    assert sorted(i for b in batches for i in b.args[2].tolist()) == list(range(5))
    report = audit(EMT(), structures_of(frames), ("energy", "forces"))
    assert report.row("forces").items == 5 and report.row("forces").rounding


def test_permutations_carry_the_species_with_the_atoms():
    structures = structures_of(molecules("CH3OH", "CH3OH"))
    even = audit(EMT(), structures, ("energy", "forces"), Permutation(6), species_move=True)
    assert all(row.rounding for row in even.rows)

    class Numbered(EMT):
        def calculate(self, atoms, properties, system_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["forces"] = self.results["forces"] + np.arange(len(atoms))[:, None]

    # f + i: the places 0…5 are a force along (1, 1, 1) with the mean 2.5 and the variance 35/12
    # over permutations
    odd = audit(Numbered(), structures, ("forces",), Permutation(6), species_move=True).row(
        "forces"
    )
    assert not odd.rounding
    assert abs(odd.equivariance.value - 35 / 12) < 4 * odd.monte_carlo


def seeded_network(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PointTransformer(hidden=32, layers=2).to(dtype)

    class Forces(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, species, positions, cell):
            B, N = species.shape
            bonds = torch.zeros(B, N, N, dtype=torch.long)
            batch = SimpleNamespace(
                species=species, bonds=bonds, mask=torch.ones(B, N, dtype=torch.bool)
            )
            return self.network(positions, torch.ones(B, dtype=positions.dtype), batch)

    return Forces()


def test_a_network_without_symmetry_as_a_calculator():
    frames = molecules("CH3CH2OH", "CH3CH2OH", "CH3CH2OH")
    structures = structures_of(frames)
    model = seeded_network(torch.float64)
    calculator = ModelCalculator(model)
    atoms = frames[0].copy()
    atoms.positions -= atoms.positions.mean(0)
    atoms.calc = calculator
    with torch.no_grad():
        direct = model(
            torch.tensor(atoms.numbers)[None], torch.tensor(atoms.positions)[None], None
        )[0]
    np.testing.assert_allclose(atoms.get_forces(), direct.numpy(), atol=1e-12)
    boxed = audit(calculator, structures, ("forces",)).row("forces")
    assert (
        not boxed.rounding and boxed.relative_deviation > 0.5
    )  # nothing in it knows about rotations
    batches = structure_batches(structures, ("forces",), reference=False, size=2)
    plain = audit_equivariance(
        ForceFieldModel(model),
        SO3(),
        batches,
        outputs={"forces": "vector"},
        generator=torch.Generator().manual_seed(0),
    )
    assert plain.row("forces").equivariance.value == pytest.approx(
        boxed.equivariance.value, rel=1e-9
    )
    assert ModelCalculator(seeded_network()).dtype == torch.float32


def test_averaging_a_calculator_removes_the_share_that_the_audit_gives():
    """An independent check of the percentage: the loss of the average over 3 × 60 rotations of the
    plain network."""
    structures = structures_of(molecules("CH3OH", "CH3SH"))
    for s in structures:
        object.__setattr__(s, "forces", np.random.default_rng(len(s)).normal(size=(len(s), 3)))
    model = ForceFieldModel(seeded_network(torch.float64))
    batches = structure_batches(structures, ("forces",), size=1)
    generator = torch.Generator().manual_seed(3)
    nodes = Quadrature("icosahedral", 3)
    report = audit_equivariance(
        model, SO3(), batches, outputs={"forces": "vector"}, nodes=nodes, generator=generator
    )
    row = report.row("forces")
    fresh = torch.Generator().manual_seed(4)
    whole, mean = [], []
    for batch in batches:
        g = SO3().sample((400,), generator=fresh, dtype=torch.float64)
        x = batch.x[0] @ g.mT
        args = [v.expand(400, *v.shape[1:]) for v in (*batch.moved, *batch.args)]
        back = model(x, *args)["forces"] @ g
        whole.append((back - batch.target["forces"]).square().mean())
        centre = back.mean(0)
        mean.append((centre - batch.target["forces"][0]).square().mean() - back.var(0).mean() / 400)
    percent = 100 * float(1 - sum(mean) / sum(whole))
    assert row.percent.value == pytest.approx(percent, rel=0.15)


class Failing(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == 5:
            raise RuntimeError("no convergence")
        self.results = {
            "energy": 0.0,
            "forces": np.full((len(atoms), 3), np.nan if len(atoms) == 4 else 1.0),
        }


def test_failures_name_the_structure():
    good, failing, broken = structures_of(molecules("H2O", "CH4", "NH3"))
    with pytest.raises(
        EnergyError, match=r"frame 1: Failing failed \(RuntimeError: no convergence\)"
    ):
        audit(Failing(), [good, failing], ("forces",))
    with pytest.raises(EnergyError, match="frame 2: Failing gave forces that are not finite"):
        audit(Failing(), [good, failing, broken][::2], ("forces",))
    with pytest.raises(InputError, match="Failing has no stress, only energy, forces"):
        CalculatorModel(Failing(), ("stress",))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda s, x, cell: x[..., :2],
            r"forces: expected a tensor of shape \(2, 3, 3\), got \(2, 3, 2\)",
        ),
        (lambda s, x, cell: {"energy": x.sum((1, 2))}, "gives energy, but no forces"),
        (lambda s, x, cell: [1.0], "returned list"),
        (lambda s, x, cell: x.view(7), "the model failed for species and positions of shapes"),
        (lambda s, x, cell: x * np.nan, "not finite"),
        (lambda s, x, cell: x + torch.rand(()), "asked twice"),
    ],
)
def test_models_that_do_not_answer_as_agreed(answer, message):
    batches = structure_batches(
        structures_of(molecules("H2O", "H2O")), ("forces",), reference=False
    )
    with pytest.raises(InputError, match=message):
        audit_equivariance(ForceFieldModel(answer), SO3(), batches, outputs={"forces": "vector"})


def test_structures_are_read_with_their_references(tmp_path):
    frames = crystals(n=2)
    for a in frames:
        a.calc = EMT()
        a.calc = SinglePointCalculator(
            a, energy=a.get_potential_energy(), forces=a.get_forces(), stress=a.get_stress()
        )
    write(tmp_path / "cu.extxyz", frames)
    found = read_structures(tmp_path / "cu.extxyz")
    assert available(found) == OUTPUTS and found[1].where.endswith("cu.extxyz, frame 2")
    np.testing.assert_allclose(found[1].stress, frames[1].get_stress(voigt=False), atol=1e-7)
    np.testing.assert_allclose(found[0].cell, frames[0].cell.array, atol=1e-7)
    free = molecules("H2O")
    free[0].positions += 7.0
    free[0].info["REF_energy"] = -3.0
    free[0].arrays["REF_forces"] = np.ones((3, 3))
    write(tmp_path / "w.extxyz", free)
    (one,) = read_structures(tmp_path / "w.extxyz")
    assert (
        one.energy == -3.0 and one.forces.sum() == 9 and one.stress is None and not one.cell.any()
    )
    np.testing.assert_allclose(one.positions.mean(0), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("2\ncomment\nH 0 0 0\n", "truncated"),
        ("1\nProperties=species:S:1:pos:R:3 energy=nan\nH 0 0 0\n", "energy is not finite"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:2\nH 0 0 0 1 1\n", "forces have shape"),
        ("1\nProperties=species:S:1:pos:R:3\nXx 0 0 0\n", "unknown element 'Xx'"),
        ('1\nLattice="1 0 0 1 0 0 0 0 1" Properties=species:S:1:pos:R:3\nH 0 0 0\n', "no volume"),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 a b c\n",
            "cannot be read as extended XYZ",
        ),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = tmp_path / "bad.extxyz"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_structures(path)
    assert str(path) in str(caught.value)
