"""The working stages of `orbitwise conformers`: search, learn, draw, relax. Each is a function of what came before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.data.handedness import relabel, stereo_elements
from orbitwise.data.molecules import embed, to_batch
from orbitwise.energies.counted import Counted
from orbitwise.errors import EnergyError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.base import Group
from orbitwise.groups.product import Product
from orbitwise.groups.so3 import SO3
from orbitwise.networks import EGNN
from orbitwise.objectives.denoiser import Denoiser, coordinate_scale
from orbitwise.objectives.denoising import Denoising
from orbitwise.processes.gaussian import GaussianProcess
from orbitwise.processes.sampling import Heun, edm_grid, sample
from orbitwise.search.base import Kernel, State
from orbitwise.search.cycle import Cycle
from orbitwise.search.hmc import HMC
from orbitwise.search.quench import minimise
from orbitwise.search.run import run
from orbitwise.search.stereo import KeepStereo, Stereo
from orbitwise.search.tempering import ReplicaExchange, geometric_ladder
from orbitwise.search.torsion_move import TorsionMove, rotatable_bonds
from orbitwise.search.warmup import warmup
from orbitwise.training import Progress, ProgressBar, TrainConfig, estimate_step_seconds, train

HOTTEST = 1000.0  # K; torsional barriers of a few kcal/mol are a few kT there
FRAMES = 20_000  # frames of the search that the learner sees
UNREACHED = 20.0  # kT above the highest energy of the search
OVERHEAD = 1.3  # a kernel's own arithmetic on top of its energy calls
CHUNK = 500  # samples drawn at a time
NETWORK = {
    "hidden": 64,
    "vectors": 16,
    "layers": 4,
    "pair": 24,
    "radial": 16,
}  # a small one learns more in minutes
LARGEST_GROUP = 216  # automorphisms enumerated in every training step


class Effort(BaseModel):
    """How much of everything: decided once from the budget and the measured speed, then kept with the results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chains: int
    rungs: int
    leapfrog: int
    search_steps: int
    train_steps: int
    batch_size: int
    denoise_steps: int
    relax_steps: int

    def energy_calls(self, n: int) -> int:
        """Expected evaluations of search and relaxation; clustering adds some 50 a structure."""
        step = self.leapfrog + 1
        return step * (self.search_steps * self.rungs * self.chains + self.relax_steps * n) + 50 * (n + 4000)


@dataclass(frozen=True)
class System:
    """A molecule with its energy at one temperature, ready to be moved."""

    mol: object
    energy: Counted
    temperature: float
    device: torch.device
    dtype: torch.dtype

    def kernel(self, stereo: Stereo, leapfrog: int) -> Kernel:
        """HMC, and torsion jumps where a bond can turn; both keep the stereo class."""
        moves: list[Kernel] = [KeepStereo(HMC(0.015, leapfrog, jitter=0.2), stereo)]
        if rotatable_bonds(self.mol):
            moves.append(KeepStereo(TorsionMove.from_mol(self.mol), stereo))
        return Cycle(tuple(moves)) if len(moves) > 1 else moves[0]

    @property
    def hottest(self) -> float:
        """The highest temperature of the search, in K."""
        return max(HOTTEST, 2 * self.temperature)

    def rungs(self) -> int:
        """Temperatures needed so that neighbours swap about every third try: energy fluctuations grow with the
        square root of the number of degrees of freedom."""
        spread = math.log(self.hottest / self.temperature)
        return 1 + math.ceil(0.5 * spread * math.sqrt(3 * self.mol.GetNumAtoms()))

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)


def plan_effort(system: System, config) -> Effort:
    """Share the budget out: a fifth of it searches, an eighth relaxes, most of the rest learns and draws."""
    rungs, chains, leapfrog, batch_size, denoise_steps = system.rungs(), 16, 8, 64, 12
    x = torch.as_tensor(embed(system.mol, 1, config.seed), device=system.device, dtype=system.dtype)
    x = x.expand(rungs * chains, -1, -1)
    with system.energy.stage("planning"):
        one = seconds_of(lambda: system.energy.value_and_grad(x[:1]))
        slow = one * rungs * chains > 2.0  # a calculator without batches: do not ask it for a whole batch
        many = one * rungs * chains if slow else seconds_of(lambda: system.energy.value_and_grad(x))
    budget = 60.0 * config.budget
    steps = 0.2 * budget / (OVERHEAD * many * (leapfrog + 1))
    while steps < 400 and chains > 2:  # a slow energy: fewer chains rather than chains that go nowhere
        chains, steps = chains // 2, steps * 2
    relax = 0.12 * budget / (OVERHEAD * many / x.shape[0] * (leapfrog + 1) * config.n)
    step = Probe.of(system, x[:batch_size].cpu()).train_seconds(batch_size)
    drawing = (
        config.n * (2 * denoise_steps - 1) * step / (3 * batch_size)
    )  # a step is some three forward passes
    return Effort(
        chains=chains,
        rungs=rungs,
        leapfrog=leapfrog,
        search_steps=rounded(steps, 40, 40_000),
        train_steps=rounded(max(0.25 * budget, 0.6 * budget - drawing) / step, 50, 20_000),
        batch_size=batch_size,
        denoise_steps=denoise_steps,
        relax_steps=rounded(relax, 4, 400),
    )


def seconds_of(call: Callable[[], object]) -> float:
    """Median of three calls after a first one, a single one where that is slow."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
        if times[0] > 1.0:
            return times[0]
    return sorted(times[1:])[1]


def rounded(value: float, low: int, high: int) -> int:
    """Two significant digits, so that small differences in speed plan the same work."""
    value = max(value, 1.0)
    digit = 10 ** max(0, int(math.log10(value)) - 1)
    return int(min(max(digit * round(value / digit), low), high))


@dataclass(frozen=True)
class Probe:
    """An untrained learner on some frames, to measure what a step costs."""

    learner: Denoiser
    objective: Denoising
    batch: PointBatch

    @staticmethod
    def of(system: System, x: Tensor) -> Probe:
        batch = to_batch(system.mol, x, dtype=torch.float32)
        learner, objective = build_learner(batch, symmetry(system.mol, x[0]), 0)
        return Probe(learner, objective, batch)

    def train_seconds(self, batch_size: int) -> float:
        config = TrainConfig(steps=10, batch_size=batch_size)
        return estimate_step_seconds(self.learner, self.objective, self.batch, config, steps=3)


# ---- search
@dataclass(frozen=True)
class Found:
    """What the search left: ``x: (S, C, N, 3)`` and ``energy: (S, C)`` at the target temperature, in order of time;
    swap rate per neighbouring pair, round trips, acceptance per rung, moves refused for stereochemistry."""

    x: Tensor
    energy: Tensor
    step_size: float
    info: dict


def search(system: System, effort: Effort, seed: int, frames: int = FRAMES) -> Found:
    """Replica exchange from quenched ETKDG embeddings; the first quarter is warm-up and is thrown away.
    About ``frames`` frames of the target temperature are kept."""
    betas = geometric_ladder(system.temperature, system.hottest, effort.rungs).to(system.device)
    generator = system.generator(seed)
    starts = torch.as_tensor(embed(system.mol, effort.chains, seed), device=system.device, dtype=system.dtype)
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
                kernel, state, system.energy, warm, generator=generator, observe=lambda n, s, i: clock(n)
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
                Progress(done, self.steps, rate=rate, seconds_left=(self.steps - done) / max(rate, 1e-9))
            )


# ---- learn
def symmetry(mol, positions: Tensor) -> Group:
    """SO(3), times those automorphisms that torsions can realise, as far as they can be enumerated."""
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    for fixed in ((), heavy):
        group = Automorphism.from_mol(mol, positions.cpu().double(), fixed=fixed)
        if 1 < group.order <= LARGEST_GROUP:
            return Product(SO3(), group)
    return SO3()


def build_learner(batch: PointBatch, group: Group, seed: int) -> tuple[Denoiser, Denoising]:
    """The network and its objective, for frames of one molecule."""
    process = GaussianProcess.edm(zero_com=True)
    with torch.random.fork_rng(devices=[]):  # torch initialises layers from its global stream
        torch.manual_seed(seed)
        network = EGNN(**NETWORK)
    learner = Denoiser(network, process, coordinate_scale(batch.x, batch.mask))
    return learner, Denoising(process, group, target="exact")


def network_size() -> int:
    """Trainable parameters of the learner."""
    return sum(p.numel() for p in EGNN(**NETWORK).parameters())


def restore(system: System, found: Found, seed: int, weights: dict[str, Tensor]) -> Denoiser:
    """The learner with weights from disk."""
    frame = found.x[0, :1].cpu()
    learner, _ = build_learner(to_batch(system.mol, frame, dtype=torch.float32), SO3(), seed)
    learner.load_state_dict(weights)
    return learner


def learn(system: System, effort: Effort, found: Found, seed: int, folder: Path) -> Denoiser:
    """Train on the frames of the search with exact orbit targets; continues a training that was begun."""
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
    """All samples of the learner as they came: ``x: (M, N, 3)``, ``energy: (M,)``, ``usable: (M,)`` (finite energy
    and the right stereochemistry), network evaluations per sample."""

    x: Tensor
    energy: Tensor
    usable: Tensor
    evaluations: int


def draw(system: System, effort: Effort, learner: Denoiser, like: Tensor, n: int, seed: int) -> Drawn:
    """Samples until ``n`` are usable, at most about three times as many; ``like: (N, 3)`` a frame of the right
    stereochemistry."""
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
            # equal atoms come with random labels; give each sample those of the search, or it is another isomer
            named = relabel(system.mol, drawn.x.cpu().double().numpy(), like.cpu().double().numpy())
            x = torch.as_tensor(named.positions).to(device=system.device, dtype=system.dtype)
            parts.append(x)
            energies.append(system.energy(x))
            same = named.same_isomer & elements.enclosed(named.positions)
            usable.append(torch.isfinite(energies[-1]) & torch.as_tensor(same).to(system.device))
            enough += int(usable[-1].sum())
            clock(min(enough, wanted))
    return Drawn(torch.cat(parts), torch.cat(energies), torch.cat(usable), drawn.evaluations)


# ---- relax
@dataclass(frozen=True)
class Relaxed:
    """``x: (m, N, 3)``, ``energy: (m,)`` after the relaxation, the mean energy along it ``trend: (steps,)``, and
    how many chains were left out at the end because they had not come down (``lost: ()``)."""

    x: Tensor
    energy: Tensor
    trend: Tensor
    lost: Tensor


def relax(system: System, effort: Effort, found: Found, drawn: Drawn, n: int, seed: int) -> Relaxed:
    """Short Markov chains at the target temperature, one from each usable sample; the first ``n`` sound ones.

    Chains start off equilibrium (a bond a few hundredths of an Å too long costs many kT), so in the first third
    each has its own step size. A chain that ends far above anything the search has seen, or with a centre outside
    its tetrahedron, started from no molecule: it is left out and counted.
    """
    generator = system.generator(seed)
    x, step_size = drawn.x[drawn.usable], found.step_size
    if len(x) < 2:
        raise EnergyError(
            f"only {len(x)} of {len(drawn.x)} samples of the learner are usable; give it more time (--budget)"
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
            kernel, state, system.energy, rest, generator=generator, observe=observe, thin=effort.relax_steps
        )
    if trace.interrupted:
        raise KeyboardInterrupt
    x, energy = trace.state.x, trace.state.energy
    whole = torch.as_tensor(stereo_elements(system.mol).enclosed(x.cpu().double().numpy())).to(x.device)
    sound = whole & (energy < found.energy.max() + UNREACHED)
    if int(sound.sum()) < 2:
        raise EnergyError("no sample relaxed to a molecule: the learner had too little time; raise --budget")
    return Relaxed(x[sound][:n], energy[sound][:n], torch.tensor(trend), (~sound).sum())
