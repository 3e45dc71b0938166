"""An ensemble carried to another energy has the populations of a run on that energy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orbitwise.energies import Counted
from orbitwise.errors import InputError
from orbitwise.methods.conformers import levels
from orbitwise.methods.conformers.exchange.search import search
from orbitwise.methods.conformers.levels import Levels, carry_up
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.metrics.mixing import effective_sample_size
from orbitwise.molecules import MMFF94
from orbitwise.molecules.metrics.torsions import find_torsions
from orbitwise.molecules.molecule import parse_smiles

EFFORT = Effort(
    chains=16,
    rungs=2,
    leapfrog=6,
    search_steps=400,
    train_steps=1,
    batch_size=1,
    denoise_steps=1,
    relax_steps=1,
)


def system(kelvin: float) -> System:
    """1,2-difluoroethane with energies in kT at ``kelvin``, all of them said to be at 300 K: the
    colder, the deeper the wells."""
    mol = parse_smiles("FCCF")
    energy = Counted(MMFF94(mol, kelvin))
    return System(mol, energy, 300.0, torch.device("cpu"), torch.float64)


@pytest.fixture(scope="module")
def runs():
    """Samples of the low energy chain by chain, and the high energy run directly."""
    low, high = search(system(300.0), EFFORT, 0), search(system(170.0), EFFORT, 1)
    return low, high


def gauche(x: torch.Tensor) -> torch.Tensor:
    torsion = find_torsions(parse_smiles("FCCF"))[0]
    return (torsion_angle(x[..., list(torsion.atoms), :]).abs() < 2.0).double()


def torsion_angle(four: torch.Tensor) -> torch.Tensor:
    """Of four points ``(*B, 4, 3)``, in radians."""
    a, b, c = four.diff(dim=-2).unbind(-2)
    n, m = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    y = (torch.linalg.cross(n, m) * b).sum(-1) / b.norm(dim=-1)
    return torch.atan2(y, (n * m).sum(-1))


@pytest.fixture(scope="module")
def carried(runs) -> tuple[Levels, System, System]:
    low, high = system(300.0), system(170.0)
    x = runs[0].x.transpose(0, 1).flatten(0, 1)
    return carry_up(low, high, x, particles=384, seed=0), low, high


def direct(value: torch.Tensor) -> tuple[float, float]:
    """Mean of ``value: (S, C)`` over a run, and its error."""
    size = float(effective_sample_size(value.T[..., None]).clamp(1)[0])
    return float(value.mean()), float(value.std() / size**0.5)


def test_populations_are_those_of_a_run_on_the_better_energy(runs, carried):
    found, _, _ = carried
    population, error = found.populations(gauche(found.x).long(), 2)
    expected, spread = direct(gauche(runs[1].x))
    before, _ = direct(gauche(runs[0].x))
    assert error[1] < 0.05 and spread < 0.05
    assert abs(population[1] - expected) < 4 * (error[1] ** 2 + spread**2) ** 0.5
    assert abs(before - expected) > 4 * spread  # there is something to be carried
    torch.testing.assert_close(population.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_energies_are_those_of_the_better_energy(runs, carried):
    found, _, high = carried
    weight = found.log_weight.softmax(0)
    torch.testing.assert_close(found.energy, high.energy(found.x))
    expected, spread = direct(runs[1].energy)
    mean = float((weight * found.energy).sum())
    assert abs(mean - expected) < 4 * (spread**2 + float(found.energy.var()) / found.ess) ** 0.5


def test_what_is_told(carried):
    found, low, high = carried
    assert found.complete and found.levels[-1] == 1 and len(found.acceptance) == len(found.levels)
    assert found.x.shape == (384, 8, 3) and found.island.unique().tolist() == list(range(8))
    assert 50 < found.families <= 384 and 50 < found.ess <= 384
    assert 0 < found.free_energy_error < 0.5
    calls = 384 * (1 + len(found.levels) * levels.MOVES * (levels.LEAPFROG + 1))
    assert high.energy.counts["levels"].gradient == calls
    assert low.energy.counts["levels"].gradient > 0


def test_it_is_kept_as_a_stage(carried):
    found, _, _ = carried
    again = Levels.of(found.stage())
    assert torch.equal(again.x, found.x) and again.free_energy == found.free_energy
    assert again.complete is True and again.seconds == found.seconds


def test_a_time_limit(runs):
    x = runs[0].x.transpose(0, 1).flatten(0, 1)
    found = carry_up(system(300.0), system(170.0), x, particles=64, seconds=0.0)
    assert not found.complete and found.levels[-1] == 1


def test_levels_of_one_temperature(runs):
    high = replace(system(300.0), temperature=310.0)
    with pytest.raises(InputError, match="one temperature, got 300 and 310 K"):
        carry_up(system(300.0), high, runs[0].x[0], particles=64)
