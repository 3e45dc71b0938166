"""The working stages of `orbitwise conformers`: search, learn, draw, relax. Each is a function of
what came before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from orbitwise.errors import EnergyError
from orbitwise.methods.conformers.learner import build_learner
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.handedness import StereoElements, relabel, stereo_elements
from orbitwise.molecules.molecule import embed, to_batch
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.molecules.symmetry import symmetry
from orbitwise.objectives.denoiser import Denoiser
from orbitwise.processes.sampling import Heun, edm_grid, sample
from orbitwise.search.base import State
from orbitwise.search.quench import minimise
from orbitwise.search.run import run
from orbitwise.search.tempering import ReplicaExchange, geometric_ladder
from orbitwise.search.warmup import warmup
from orbitwise.training import Progress, ProgressBar, TrainConfig, train

FRAMES = 20_000  # frames of the search that the learner sees
CHUNK = 500  # samples drawn at a time
UNREACHED = 20.0  # kT above the highest energy of the search


# ---- search
@dataclass(frozen=True)
class Found:
    """What the search left: ``x: (S, C, N, 3)`` and ``energy: (S, C)`` at the target temperature,
    in order of time; swap rate per neighbouring pair, round trips, acceptance per rung, moves
    refused for stereochemistry."""

    x: Tensor
    energy: Tensor
    step_size: float
    info: dict


def search(system: System, effort: Effort, seed: int, frames: int = FRAMES) -> Found:
    """Replica exchange from quenched ETKDG embeddings; the first quarter is warm-up and is thrown
    away. About ``frames`` frames of the target temperature are kept."""
    betas = geometric_ladder(system.temperature, system.hottest, effort.rungs).to(system.device)
    generator = system.generator(seed)
    starts = torch.as_tensor(
        embed(system.mol, effort.chains, seed), device=system.device, dtype=system.dtype
    )
    stereo = Stereo.from_mol(system.mol, starts[0])
    with system.energy.stage("search"):
        starts = minimise(starts, system.energy, tolerance=5.0, max_steps=100).x
        starts = starts - starts.mean(-2, keepdim=True)
        kernel = ReplicaExchange(system.kernel(stereo, effort.leapfrog), betas)
        state = kernel.init(starts.expand(len(betas), *starts.shape).contiguous(), system.energy)
        warm = effort.search_steps // 4
        with ProgressBar("search") as show:
            clock = Clock(show, effort.search_steps)
            state = warmup(
                kernel,
                state,
                system.energy,
                warm,
                generator=generator,
                observe=lambda n, s, i: clock(n),
            )
            steps = effort.search_steps - warm
            thin = max(1, round(steps * effort.chains / frames))
            trace = run(
                kernel,
                state,
                system.energy,
                steps,
                generator=generator,
                thin=thin,
                row=0,
                observe=lambda n, s, i: clock(warm + n),
            )
    if trace.interrupted:
        raise KeyboardInterrupt
    info = {
        "temperatures": (system.temperature / betas).tolist(),
        "acceptance": trace.acceptance.mean(-1).tolist(),
        "swap_rate": trace.rates.swap_rate.tolist(),
        "round_trips": int(trace.state.round_trips.sum()),
        "stereo_rejections": trace.count("left_class"),
        "frames_every": thin,
        "steps": steps,
    }
    return Found(trace.x, trace.energy, float(trace.state.step_size[0].mean()), info)


class Clock:
    """Calls a progress bar with the rate and the time left."""

    def __init__(self, show: Callable[[Progress], None], steps: int):
        self.show, self.steps, self.begin, self.shown = show, steps, time.monotonic(), 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self.shown > 0.2 or done >= self.steps:
            self.shown = now
            rate = done / max(now - self.begin, 1e-9)
            self.show(
                Progress(
                    done, self.steps, rate=rate, seconds_left=(self.steps - done) / max(rate, 1e-9)
                )
            )


# ---- learn
def learn(system: System, effort: Effort, found: Found, seed: int, folder: Path) -> Denoiser:
    """Train on the frames of the search with exact orbit targets; continues a training that was
    begun."""
    x = found.x.flatten(0, 1)
    batch = to_batch(system.mol, x - x.mean(-2, keepdim=True), dtype=torch.float32)
    learner, objective = build_learner(batch, symmetry(system.mol, x[0]), seed)
    config = TrainConfig(
        steps=effort.train_steps,
        batch_size=effort.batch_size,
        learning_rate=3e-3,
        ema_decay=max(0.9, min(0.999, 1 - 10 / effort.train_steps)),
        seed=seed,
        checkpoint_every=max(50, effort.train_steps // 20),
    )
    result = train(learner, objective, batch, config, folder, {"frames": len(batch)})
    return result.ema


# ---- draw
@dataclass(frozen=True)
class Drawn:
    """All samples of the learner as they came: ``x: (M, N, 3)``, ``energy: (M,)``, ``usable: (M,)``
    (finite energy and the right stereochemistry), network evaluations per sample."""

    x: Tensor
    energy: Tensor
    usable: Tensor
    evaluations: int


def draw(
    system: System, effort: Effort, learner: Denoiser, like: Tensor, n: int, seed: int
) -> Drawn:
    """Samples until ``n`` are usable, at most about three times as many; ``like: (N, 3)`` a frame
    of the right stereochemistry."""
    generator = system.generator(seed)
    learner = learner.eval().to(system.device)
    label = to_batch(system.mol, like[None].to(system.device), dtype=torch.float32)
    grid = edm_grid(learner.process, effort.denoise_steps, noise_min=0.01, noise_max=20.0)
    elements = stereo_elements(system.mol)
    wanted = n + max(5, n // 50)  # a few may not survive the relaxation
    parts, energies, usable, enough = [], [], [], 0
    with ProgressBar("draw") as show, system.energy.stage("samples"):
        clock = Clock(show, wanted)
        while enough < wanted and len(parts) * CHUNK < 3 * n + CHUNK:
            size = min(CHUNK, max(50, wanted - enough))
            batch = label[torch.zeros(size, dtype=torch.long, device=system.device)]
            drawn = sample(
                lambda x, t, batch=batch: learner(x, t, batch),
                learner.process,
                (size, *like.shape),
                grid=grid,
                stepper=Heun(),
                mask=batch.mask,
                generator=generator,
                device=system.device,
                dtype=torch.float32,
            )
            x, same = renumber(system, drawn.x, like, elements)
            parts.append(x)
            energies.append(system.energy(x))
            usable.append(torch.isfinite(energies[-1]) & same)
            enough += int(usable[-1].sum())
            clock(min(enough, wanted))
    return Drawn(torch.cat(parts), torch.cat(energies), torch.cat(usable), drawn.evaluations)


def renumber(
    system: System, x: Tensor, like: Tensor, elements: StereoElements
) -> tuple[Tensor, Tensor]:
    """Equal atoms of a sample come with random labels: each gets those of ``like: (N, 3)``, or it
    is another isomer. Positions in the system's precision, and which of them are sound molecules of
    this isomer ``(M,)``."""
    named = relabel(system.mol, x.cpu().double().numpy(), like.cpu().double().numpy())
    same = torch.as_tensor(named.same_isomer & elements.enclosed(named.positions))
    moved = torch.as_tensor(named.positions).to(device=system.device, dtype=system.dtype)
    return moved, same.to(system.device)


# ---- relax
@dataclass(frozen=True)
class Relaxed:
    """``x: (m, N, 3)``, ``energy: (m,)`` after the relaxation of the drawn samples ``start: (m,)``,
    the mean energy along it ``trend: (steps,)``, and how many chains were left out at the end
    because they had not come down (``lost: ()``)."""

    x: Tensor
    energy: Tensor
    start: Tensor
    trend: Tensor
    lost: Tensor


def relax(system: System, effort: Effort, found: Found, drawn: Drawn, n: int, seed: int) -> Relaxed:
    """Short Markov chains at the target temperature, one from each usable sample; the first ``n``
    sound ones.

    Chains start off equilibrium (a bond a few hundredths of an Å too long costs many kT), so in the
    first third each has its own step size. A chain that ends far above anything the search has
    seen, or with a centre outside its tetrahedron, started from no molecule: it is left out and
    counted.
    """
    generator = system.generator(seed)
    x, step_size = drawn.x[drawn.usable], found.step_size
    if len(x) < 2:
        raise EnergyError(
            f"only {len(x)} of {len(drawn.x)} samples of the learner are usable; give it more time"
            " (--budget)"
        )
    kernel = system.kernel(Stereo.from_mol(system.mol, x[0]), effort.leapfrog)
    trend: list[float] = []
    with system.energy.stage("relaxation"), ProgressBar("relax") as show:
        clock = Clock(show, effort.relax_steps)

        def observe(n: int, state: State, info) -> None:
            trend.append(float(state.energy.mean()))
            clock(len(trend))

        state = kernel.init(x, system.energy)
        state = replace(state, step_size=torch.full_like(state.energy, step_size))
        third = effort.relax_steps // 3
        state = warmup(kernel, state, system.energy, third, generator=generator, observe=observe)
        state = replace(state, step_size=torch.full_like(state.energy, step_size))
        rest = effort.relax_steps - third
        trace = run(
            kernel,
            state,
            system.energy,
            rest,
            generator=generator,
            observe=observe,
            thin=effort.relax_steps,
        )
    if trace.interrupted:
        raise KeyboardInterrupt
    x, energy = trace.state.x, trace.state.energy
    whole = torch.as_tensor(stereo_elements(system.mol).enclosed(x.cpu().double().numpy())).to(
        x.device
    )
    sound = whole & (energy < found.energy.max() + UNREACHED)
    if int(sound.sum()) < 2:
        raise EnergyError(
            "no sample relaxed to a molecule: the learner had too little time; raise --budget"
        )
    start = drawn.usable.nonzero().flatten()[sound][:n]
    return Relaxed(x[sound][:n], energy[sound][:n], start, torch.tensor(trend), (~sound).sum())
