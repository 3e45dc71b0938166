"""All (batch x time) states in one network call, and gradients on some of the steps, against one
call per step.

    python -m benchmarks.speed.path_batching [--repeats 7]

Many-well-32 with an MLP, LJ13 with an equivariant network.

The sequential way keeps the graph of all T steps, as published codes do. Same network, batch, T and
paths; half of the paths are the learner's own, half lead back from samples.
"""

from __future__ import annotations

import copy
import statistics
import time
from itertools import pairwise

import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import LennardJones, ManyWell
from orbitwise.methods.samplers.targets import identical
from orbitwise.networks import EGNN, MLP
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.path import (
    bridges,
    first_state,
    log_weight,
    roll_out,
    with_log_ratio,
)
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Decaying
from orbitwise.objectives.paths.trajectory_balance import VarGrad
from orbitwise.search import HMC, GaussianPrior, run, warmup

T = 100
PRETRAINING, TRAINING, PATHS = 1000, 120, 2000  # of the comparison of gaps
STARTS = 64  # of the chains that fill the buffer of LJ13
WARMUP = 150


def sequential_loss(sampler, energy, buffer, count, generator):
    """Half the variance of the residual; every step of every path is a network call whose graph is
    kept."""
    own = count // 2
    times = sampler.times()
    index = buffer.draw(count - own, generator)
    back = bridges(sampler, energy, buffer.x[index], buffer.energy[index], generator, times)
    x, ratio = first_state(sampler, own, times[0], generator), 0.0
    other = 0.0
    for k, (t, after) in enumerate(pairwise(times)):
        now, then = t.expand(own), after.expand(own)
        kernel = sampler.forward_kernel(x, now, then)
        new = (kernel.mean + kernel.variance.sqrt() * sampler.normal(own, generator)).detach()
        ratio = ratio + kernel.log_density(new)
        now, then = t.expand(count - own), after.expand(count - own)
        other = other + sampler.forward_kernel(back.x[k], now, then).log_density(back.x[k + 1])
        if float(t) > 0:
            ratio = ratio - sampler.backward_kernel(
                new, t.expand(own), after.expand(own)
            ).log_density(x)
            other = other - sampler.backward_kernel(back.x[k + 1], now, then).log_density(back.x[k])
        x = new
    residual = torch.cat([ratio + energy(x), other + back.energy])
    return 0.5 * (residual - residual.mean().detach()).square().mean()


def many_well():
    torch.manual_seed(0)
    energy = ManyWell(32)
    g = torch.Generator().manual_seed(0)
    buffer = ReplayBuffer(20_000, (32,))
    x = energy.sample((20_000,), generator=g)
    buffer.add(x, *energy.value_and_grad(x))
    network = MLP((32,), hidden=272, blocks=3)
    return (
        energy,
        buffer,
        DiffusionSampler(
            network, (32,), Decaying(T, first=0.02, last=2e-3), noise=2.0, data_scale=1.42
        ),
    )


def lennard_jones():
    torch.manual_seed(0)
    energy = LennardJones(13)
    g = torch.Generator().manual_seed(0)
    x = GaussianPrior((13, 3), 1.5, True).sample((STARTS,), generator=g)
    x = x[energy(x).argsort()[:16]]
    kernel = HMC(0.03, 10)
    state = warmup(kernel, kernel.init(x, energy), energy, WARMUP, generator=g)
    trace = run(kernel, state, energy, 100, generator=g, gradients=True)
    buffer = ReplayBuffer(20_000, (13, 3))
    buffer.add(trace.x.flatten(0, 1), trace.energy.flatten(), trace.grad.flatten(0, 1))
    network = EGNN(
        hidden=68, heads=4, vectors=16, layers=4, pair=24, radial=32, chiral=False, graph=False
    )
    options = {"noise": 1.0, "data_scale": 0.7, "zero_com": True, "labels": identical(13, 3)}
    return (
        energy,
        buffer,
        DiffusionSampler(network, (13, 3), Decaying(T, first=0.02, last=1e-3), **options),
    )


def step_seconds(make_loss, sampler, repeats) -> list[float]:
    """Processor seconds of training steps (one thread), the first one not counted."""
    optimiser = torch.optim.Adam(sampler.parameters(), lr=1e-4)
    times = []
    for k in range(repeats + 1):
        begin = time.perf_counter()
        loss = make_loss(k)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - begin)
    return times[1:]


def timings(name, energy, buffer, sampler, count, repeats) -> list[Row]:
    """One row per way, the ways taking turns so that a busy machine is unfair to none."""

    def generator(k):
        return torch.Generator().manual_seed(k)

    whole = VarGrad(energy, buffer, on_policy=0.5)
    some = VarGrad(energy, buffer, on_policy=0.5, time_steps=10)
    ways = {
        "sequential": lambda k: sequential_loss(sampler, energy, buffer, count, generator(k)),
        "batched": lambda k: whole(sampler, range(count), generator(k)).mean(),
        "batched_10_steps": lambda k: some(sampler, range(count), generator(k)).mean(),
    }
    seconds = {way: [] for way in ways}
    for _ in range(repeats):
        for way, loss in ways.items():
            seconds[way] += step_seconds(loss, sampler, 1)
    middle = {way: statistics.median(v) for way, v in seconds.items()}
    size = sum(p.numel() for p in sampler.network.parameters())
    note = (
        f"{size:,} parameters, batch {count}, T {T}, {torch.get_num_threads()} threads, median of"
        f" {repeats}"
    )
    rows = [Row(f"path_batching.{name}.{way}_seconds", s, note=note) for way, s in middle.items()]
    goal = "2" if name == "many_well_32" else "5"
    for way in ("batched", "batched_10_steps"):
        ratio = middle["sequential"] / middle[way]
        rows.append(Row(f"path_batching.{name}.{way}_speedup", ratio, goal=goal, note=note))
    return rows


@torch.no_grad()
def gap(energy, sampler) -> float:
    n, g = PATHS, torch.Generator().manual_seed(77)
    x = energy.sample((n,), generator=g)
    forward = log_weight(roll_out(sampler, energy, n, g))
    back = log_weight(with_log_ratio(sampler, bridges(sampler, energy, x, energy(x), g)))
    return float(back.mean() - forward.mean())


def gaps(energy, buffer, sampler) -> list[Row]:
    """The gap after the same number of training steps with all and with ten of the steps
    differentiated."""
    g = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(sampler.parameters(), lr=2e-3)
    likelihood = MaximumLikelihood(energy, buffer, forces=True, steps=T)
    for _ in range(PRETRAINING):
        optimiser.zero_grad()
        likelihood(sampler, range(256), g).mean().backward()
        optimiser.step()
    rows = [Row("path_batching.gap.before", gap(energy, sampler))]
    for way, chosen in (("all_steps", None), ("10_steps", 10)):
        made = copy.deepcopy(sampler)
        objective = VarGrad(energy, buffer, on_policy=0.5, time_steps=chosen)
        optimiser = torch.optim.Adam(made.parameters(), lr=2e-4)
        g = torch.Generator().manual_seed(1)
        for _ in range(TRAINING):
            optimiser.zero_grad()
            objective(made, range(300), g).mean().backward()
            torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimiser.step()
        rows.append(
            Row(
                f"path_batching.gap.{way}", gap(energy, made), note=f"{TRAINING} steps of batch 300"
            )
        )
    return rows


def main(*, repeats: int = 7) -> None:
    wells, clusters = many_well(), lennard_jones()
    rows = timings("many_well_32", *wells, 300, repeats) + timings("lj13", *clusters, 32, repeats)
    write_rows("samplers", rows)
    write_rows("samplers", gaps(*many_well()))


if __name__ == "__main__":
    benchmark(
        main,
        quick={"T": 12, "PRETRAINING": 2, "TRAINING": 2, "PATHS": 50, "WARMUP": 5, "repeats": 1},
    )
