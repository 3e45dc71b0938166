"""Relax: a short Markov chain from every sample of the learner."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orbitwise.errors import EnergyError
from orbitwise.methods.conformers.clock import Clock, shown
from orbitwise.methods.conformers.diffusion.draw import Drawn
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.system import Effort, System
from orbitwise.molecules.handedness import stereo_elements
from orbitwise.molecules.search.stereo import Stereo
from orbitwise.runs.stages import Kept, Pipeline, Step
from orbitwise.search.base import State
from orbitwise.search.run import run
from orbitwise.search.warmup import warmup

UNREACHED = 20.0  # kT above the highest energy of the search


@dataclass(frozen=True)
class Relaxed(Kept):
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
    with system.energy.stage("relaxation"), shown("relax") as show:
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


@dataclass(frozen=True)
class Relax(Step[Relaxed]):
    """``relax`` as a stage."""

    system: System
    n: int
    seed: int

    name, makes = "relax", Relaxed

    def make(self, pipe: Pipeline) -> Relaxed:
        return relax(self.system, pipe[Effort], pipe[Found], pipe[Drawn], self.n, self.seed)
