"""log Z of particle systems in the subspace of zero centre of mass, by estimators that share
nothing but U.

    python -m benchmarks.quality.log_z            # all systems
    python -m benchmarks.quality.log_z dw4 lj13

Orthonormal coordinates of the 3(N-1)-dimensional subspace (2(N-1) for DW4), labelled particles: no
1/N!. Three estimates of each: annealed sequential Monte Carlo from a Gaussian prior (the row
``log_z.*.ais``), the same with another prior, another kernel and other levels (``.ais_other``), and
thermodynamic integration of ⟨U - U_prior⟩ over β by chains that start from the target
(``.integration``). The virial ⟨x·∇U⟩ of the weighted points must be the number of dimensions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.energies import Counted, DoubleWell, LennardJones
from orbitwise.energies.base import Energy
from orbitwise.search import (
    HMC,
    MALA,
    AnnealingPath,
    GaussianPrior,
    Kernel,
    anneal,
    pilot,
    run,
    warmup,
)
from orbitwise.search.clean import Follow
from orbitwise.search.schedule import drop


@dataclass(frozen=True)
class Setting:
    """``seeds`` independent runs of ``chains`` chains through ``levels`` levels; the pilot is made
    once."""

    scale: float
    kernel: Kernel
    levels: int
    chains: int
    seeds: tuple[int, ...]
    pilot_chains: int = 64
    cess: float = 0.7


@dataclass(frozen=True)
class Integration:
    """``nodes`` Gauss-Legendre nodes in s, β = s⁴; ``chains`` chains of ``steps`` steps at each."""

    scale: float
    kernel: Kernel
    nodes: int
    chains: int
    steps: int


@dataclass(frozen=True)
class System:
    energy: Energy
    settings: dict[str, Setting]
    integration: Integration
    known: str


SYSTEMS = {
    "dw4": System(
        DoubleWell().double(),
        {
            "ais": Setting(2.5, MALA(), 250, 4000, (0, 1, 2, 3)),
            "ais_other": Setting(1.8, HMC(leapfrog_steps=4), 60, 4000, (10, 11, 12, 13)),
        },
        Integration(2.5, HMC(0.2, leapfrog_steps=4), 24, 64, 250),
        "29.665 ± 0.005",
    ),
    "lj13": System(
        LennardJones(13),
        {
            "ais": Setting(0.7, HMC(0.05, leapfrog_steps=5), 400, 400, (0, 1, 2, 3)),
            "ais_other": Setting(1.0, MALA(0.05), 2000, 300, (10, 11, 12, 13)),
        },
        Integration(0.7, HMC(0.02, leapfrog_steps=5), 32, 8, 600),
        "two schedules and integration agree",
    ),
    "lj55": System(
        LennardJones(55),
        {
            "ais": Setting(1.3, HMC(0.02, leapfrog_steps=10), 1200, 40, (0, 1, 2), 24, 0.5),
            "ais_other": Setting(1.6, HMC(0.02, leapfrog_steps=5), 2000, 48, (10, 11, 12), 24, 0.5),
        },
        Integration(1.3, HMC(0.01, leapfrog_steps=5), 40, 4, 1200),
        "two schedules and integration agree",
    ),
}


def prior_of(energy: Energy, scale: float) -> GaussianPrior:
    prior = GaussianPrior(energy.event_shape, scale, zero_com=True)
    return prior.double() if isinstance(energy, DoubleWell) else prior


def dimensions(energy: Energy) -> int:
    points, dim = energy.event_shape
    return dim * (points - 1)


def virial(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return (x * grad).sum((-1, -2)).double()


def combine(log_z: list[float]) -> tuple[float, float]:
    """log of the mean of independent estimates of Z, and its standard error from their spread in
    log."""
    values = torch.tensor(log_z, dtype=torch.float64)
    return (
        values.logsumexp(0).item() - math.log(len(values)),
        (values.std() / len(values) ** 0.5).item(),
    )


def annealed(
    name: str, label: str, energy: Energy, setting: Setting, goal: str | None
) -> list[Row]:
    begin, counted = time.perf_counter(), Counted(energy)
    prior = prior_of(energy, setting.scale)
    gen = torch.Generator().manual_seed(setting.seeds[0] + 1000)
    schedule = pilot(
        counted,
        prior,
        setting.kernel,
        chains=setting.pilot_chains,
        cess=setting.cess,
        generator=gen,
    ).with_levels(setting.levels)
    estimates, told, virials, energies = [], [], [], []
    for seed in setting.seeds:
        gen = torch.Generator().manual_seed(seed)
        found = anneal(
            counted,
            prior,
            setting.kernel,
            schedule,
            setting.chains,
            generator=gen,
            resample_below=0.5,
        )
        weight = found.log_weight.softmax(0)
        alive = weight > 0
        virials.append((weight[alive] * virial(found.x[alive], found.grad[alive])).sum().item())
        energies.append((weight[alive] * found.energy[alive].double()).sum().item())
        estimates.append(found.log_z)
        told.append(found.log_z_error)
        print(
            f"  {name}.{label} seed {seed}: {found.log_z:.3f} ± {found.log_z_error:.3f}, virial"
            f" {virials[-1]:.1f}, U {energies[-1]:.2f}, ancestors {len(found.ancestor.unique())},"
            f" {found.seconds:.0f} s",
            flush=True,
        )
    value, error = combine(estimates)
    seconds, calls = time.perf_counter() - begin, counted.counts["other"].energy
    note = (
        f"{setting.levels} levels, {setting.chains} chains, {type(setting.kernel).__name__}, prior"
        f" scale {setting.scale}; seeds {', '.join(f'{e:.3f}' for e in estimates)}; ⟨U⟩"
        f" {np.mean(energies):.2f}"
    )
    seeds = list(setting.seeds)
    return [
        Row(f"log_z.{name}.{label}", value, error, goal, seeds, calls, seconds, note=note),
        Row(
            f"log_z.{name}.{label}.virial",
            float(np.mean(virials)),
            float(np.std(virials, ddof=1) / len(virials) ** 0.5),
            f"{dimensions(energy)}",
            seeds,
            calls,
            seconds,
        ),
    ]


def integrated(name: str, energy: Energy, setting: Integration, target: torch.Tensor) -> Row:
    """``log Z = -∫_0^1 ⟨U - U_prior⟩_β dβ``. At small β the mean grows as β^(-3/4) (the r⁻¹² core),
    so that β = s⁴ makes the integrand finite. Chains of all nodes run in one batch, from points of
    the target."""
    begin, counted = time.perf_counter(), Counted(energy)
    prior = prior_of(energy, setting.scale)
    gen = torch.Generator().manual_seed(77)
    nodes, weights = np.polynomial.legendre.leggauss(setting.nodes)
    s = torch.tensor(0.5 * (nodes + 1), dtype=torch.float64)
    jacobian = torch.tensor(0.5 * weights, dtype=torch.float64) * 4 * s**3
    pick = torch.randint(len(target), (setting.nodes, setting.chains), generator=gen)
    path = AnnealingPath(counted, prior, (s**4).to(target).view(-1, 1))
    state = setting.kernel.init(target[pick], path)
    follow = Follow(path, path.last)
    state = warmup(
        setting.kernel, state, path, setting.steps // 2, own_dims=1, generator=gen, observe=follow
    )
    totals = []

    def observe(n, state, info):
        follow(n, state, info)
        totals.append(drop(prior, state.x, follow.clean))

    trace = run(
        setting.kernel,
        state,
        path,
        setting.steps,
        generator=gen,
        thin=setting.steps,
        observe=observe,
    )
    mean = torch.stack(totals).mean(0)  # (nodes, chains)
    value = -(jacobian * mean.mean(1)).sum().item()
    error = (jacobian * mean.std(1) / setting.chains**0.5).square().sum().sqrt().item()
    print(f"  {name}.integration: acceptance {trace.acceptance.mean(1).min():.2f} at least")
    return Row(
        f"log_z.{name}.integration",
        value,
        error,
        "agrees with the others",
        [77],
        counted.counts["other"].energy,
        time.perf_counter() - begin,
        note=(
            f"{setting.nodes} nodes, {setting.chains} chains x {setting.steps} steps, prior scale"
            f" {setting.scale}"
        ),
    )


def main(systems: Sequence[Literal["dw4", "lj13", "lj55"]] = tuple(SYSTEMS)) -> None:
    for name in systems:
        system = SYSTEMS[name]
        rows = []
        for label, setting in system.settings.items():
            rows += annealed(
                name, label, system.energy, setting, system.known if label == "ais" else None
            )
        # Points of the target for the integration: a few starts through the levels, then chains.
        setting, gen = system.integration, torch.Generator().manual_seed(5)
        prior = prior_of(system.energy, setting.scale)
        start = anneal(
            system.energy, prior, setting.kernel, 40, 16, generator=gen, resample_below=0.5
        )
        rows.append(integrated(name, system.energy, setting, start.x))
        write_rows("log_z", rows)


def small(system: System) -> System:
    """The same with a handful of chains and levels."""
    settings = {
        label: replace(setting, levels=6, chains=20, seeds=(0, 1), pilot_chains=8)
        for label, setting in system.settings.items()
    }
    integration = replace(system.integration, nodes=4, chains=4, steps=10)
    return replace(system, settings=settings, integration=integration)


if __name__ == "__main__":
    benchmark(main, quick={"SYSTEMS": {"dw4": small(SYSTEMS["dw4"])}, "systems": ["dw4"]})
