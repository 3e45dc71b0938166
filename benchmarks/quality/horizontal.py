"""Predictions and noise that turn nothing: steps to equal held-out loss, and the samples.

    python -m benchmarks.quality.horizontal train --runs RUNS       # repeat to resume
    python -m benchmarks.quality.horizontal evaluate --runs RUNS    # whatever is finished

Two arms, ``horizontal: false`` and ``true``, from the same weights, batches and noise: aspirin
(rMD17) by ``orbit_diffusion`` and Cα traces by ``protein_backbones``, with the exact target, plain
transformers, a constant learning rate, and held-out losses of the averaged weights at fixed noise.
``steps_ratio``: the steps of the projected arm over those of the other to the lowest loss that both
reach, geometric mean and its standard error over the seeds. ``after``: the unprojected weights with
the projection in use only. The target has no turning part, so all that a projection takes from a
given network is error: ``turning_share`` is its part of the final loss.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import orbitwise as ow
from benchmarks.quality import orbit_diffusion as frames
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.molecules import orbit_diffusion
from orbitwise.methods.proteins import backbones
from orbitwise.methods.proteins.sampling import draw as draw_chains
from orbitwise.molecules.metrics.comparison import compare
from orbitwise.molecules.molecule import to_batch
from orbitwise.objectives import Denoiser, Denoising
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.proteins.chain import chain_batch
from orbitwise.proteins.judge import JudgeConfig, judge
from orbitwise.runs.config import load
from orbitwise.training import TrainConfig, load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME
from orbitwise.training.loop import Moment

CHAINS = SHARED / "protein_small_chains" / "protein_small_chains.npz"
System = Literal["molecules", "proteins"]
SEEDS: tuple[int, ...] = (0, 1, 2)
STEPS = {"molecules": 2000, "proteins": 1000}
EVERY = 50  # steps between two looks at the held-out loss
HELD_OUT = {"molecules": 384, "proteins": 248}  # items, with their noise
SAMPLES = {"molecules": 500, "proteins": 64}
ARMS = {"plain": False, "projected": True}
TRAIN = ["train.schedule=constant", "train.ema_decay=0.995", "train.checkpoint_every=200"]


@dataclass(frozen=True)
class Case:
    """What a system and arm stand for; ``quality(seed)``: figures of the samples by name."""

    denoiser: Denoiser
    objective: Denoising
    data: Any
    held_out: Any
    train: TrainConfig
    quality: Callable[[int], dict[str, float]]


def case(system: System, projected: bool, seed: int) -> Case:
    given = [
        *TRAIN,
        f"train.steps={STEPS[system]}",
        f"train.seed={seed}",
        f"horizontal={str(projected).lower()}",
    ]
    return (aspirin if system == "molecules" else chains)(given)


def aspirin(given: Sequence[str]) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        file = frames.frames_file("aspirin", Path(folder))
        size = ["network.name=transformer", "train.batch_size=64", "train.learning_rate=1e-3"]
        source = [f"data={file}", f"smiles={frames.SMILES['aspirin']}"]
        # one split for all seeds: the held-out frames are the same
        config = load("orbit_diffusion/default", [*source, *size, *given])
        split = config.model_copy(update={"train": config.train.model_copy(update={"seed": 0})})
        ensemble = orbit_diffusion.parts(split).ensemble
        made = orbit_diffusion.parts(config)

    def quality(seed: int) -> dict[str, float]:
        drawn = config.sampling.draw(
            made.denoiser,
            ensemble.mol,
            SAMPLES["molecules"],
            seed,
            "cpu",
            horizontal=config.horizontal,
        )
        c = compare(ensemble.mol, drawn.positions_angstrom, ensemble.held_out, ensemble.training)
        return {
            "distance_w1_angstrom": c.distances.w1_angstrom,
            "distance_tv": c.distances.total_variation,
            "bond_error_angstrom": c.bond_error_angstrom,
        }

    train, held_out = (
        to_batch(ensemble.mol, x, dtype=torch.float32)
        for x in (ensemble.training, ensemble.held_out)
    )
    return Case(made.denoiser, made.objective, train, held_out, config.train, quality)


def chains(given: Sequence[str]) -> Case:
    config = load("protein_backbones/ca", [f"data={CHAINS}", *given])
    made = backbones.parts(config)
    lengths = [len(c) for c in made.data.training]

    def quality(seed: int) -> dict[str, float]:
        drawn = draw_chains(
            made.denoiser,
            config.sampling,
            lengths,
            SAMPLES["proteins"],
            seed,
            "cpu",
            horizontal=config.horizontal,
        )
        verdict = judge(
            drawn.chains,
            made.data.held_out,
            made.data.training,
            config=JudgeConfig(),
            evaluations=drawn.evaluations,
            seed=seed,
        )
        return {
            "ca_ca_w1_angstrom": verdict.geometry[0].w1,
            "clash_free_share": verdict.samples.clean.value,
            "size_w1": verdict.size_w1,
        }

    held_out = chain_batch(made.data.held_out)
    return Case(made.denoiser, made.objective, made.batch, held_out, config.train, quality)


@dataclass(frozen=True)
class HeldOut:
    """Held-out items with their noise and targets, the same for every arm and seed."""

    objective: Denoising
    batch: Any
    t: Tensor
    xt: Tensor
    target: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, made: Case, items: int) -> HeldOut:
        generator = torch.Generator().manual_seed(12345)
        batch = made.held_out[torch.arange(items) % len(made.held_out)]
        t = made.objective.draw_times(items, made.denoiser.data_scale, generator).to(batch.x)
        xt, target = made.objective.pair(batch.x, t, batch.mask, generator)
        return cls(made.objective, batch, t, xt, target)

    @torch.no_grad()
    def loss(self, denoiser: Denoiser) -> float:
        scale = denoiser.data_scale.to(self.t)
        weight = Preconditioning.of(self.objective.process, self.t, scale).weight
        losses = []
        for part in torch.arange(len(self.t)).split(64):
            batch = self.batch[part]
            found = denoiser(self.xt[part], self.t[part], batch)
            target = self.target[part]
            losses.append(self.objective.loss(found, target, weight[part], batch.mask))
        return float(torch.cat(losses).mean())


def losses(held_out: HeldOut, denoiser: Denoiser, projected: bool) -> dict[str, float]:
    """By name: ``loss`` as the arm is, and where it is plain ``after``: projected in use only."""
    found = {"loss": held_out.loss(denoiser)}
    if not projected:
        denoiser.horizontal = True
        found["after"] = held_out.loss(denoiser)
        denoiser.horizontal = False
    return found


def run_one(system: System, arm: str, seed: int, runs: Path) -> None:
    """Trains, or goes on, and leaves ``curve.json`` (``step -> losses``) and ``quality.json``."""
    folder = runs / f"{system}_{arm}_{seed}"
    if (folder / "quality.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    made = case(system, ARMS[arm], seed)
    held_out = HeldOut.of(made, HELD_OUT[system])
    path = folder / "curve.json"
    curve: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def look(moment: Moment) -> None:
        if moment.step % EVERY and moment.step != made.train.steps:
            return
        moment.ema.eval()
        curve[str(moment.step)] = losses(held_out, moment.ema, ARMS[arm])
        path.write_text(json.dumps(curve, indent=1))

    trained = fit(
        made.denoiser, made.objective, made.data, made.train, folder, {"arm": arm}, on_step=look
    )
    load_weights(folder / NAME, made.denoiser)
    quality = made.quality(seed) | {"step_seconds": trained.seconds / trained.steps}
    (folder / "quality.json").write_text(json.dumps(quality, indent=1))
    print(folder.name, curve[str(made.train.steps)], quality, flush=True)


@torch.no_grad()
def noise_along_the_orbit(system: System) -> tuple[float, float | None]:
    """Of the loss's part that is the noise of the target of augmentation, ``E |g·x_1 − E[g·x_1 |
    x_t]|²/c_out²``: the share that turns ``x_t``, which a projection takes out and the exact target
    never has. With its error over items (jackknife)."""
    made = case(system, False, 0)
    exact = HeldOut.of(made, HELD_OUT[system])
    other = HeldOut.of(
        replace(made, objective=replace(made.objective, target="augmentation")), HELD_OUT[system]
    )
    assert torch.equal(exact.xt, other.xt)
    noise = other.target - exact.target
    turning = noise - ow.horizontal(exact.xt, noise, exact.batch.mask)
    scale = made.denoiser.data_scale.to(exact.t)
    weight = Preconditioning.of(made.objective.process, exact.t, scale).weight
    part, whole = (
        made.objective.loss(y, torch.zeros_like(y), weight, exact.batch.mask).double()
        for y in (turning, noise)
    )
    without = (part.sum() - part) / (whole.sum() - whole)
    spread = (len(part) - 1) / len(part) * (without - without.mean()).square().sum()
    return float(part.sum() / whole.sum()), float(spread.sqrt())


def steps_to(level: float, curve: dict[int, float]) -> float:
    """The first step at which the loss is ``level``, between two looks in a straight line."""
    before: tuple[int, float] | None = None
    for step, loss in sorted(curve.items()):
        if loss <= level:
            if before is None:
                return float(step)
            share = (before[1] - level) / (before[1] - loss)
            return before[0] + share * (step - before[0])
        before = step, loss
    return math.inf


def log_ratio(first: dict[int, float], second: dict[int, float]) -> float:
    """Of the steps to the lowest loss that both reach."""
    level = max(min(first.values()), min(second.values()))
    return math.log(max(1.0, steps_to(level, first)) / max(1.0, steps_to(level, second)))


def geometric(logs: Sequence[float]) -> tuple[float, float | None]:
    """Mean ratio and its standard error."""
    mean = math.exp(statistics.fmean(logs))
    if len(logs) < 2:
        return mean, None
    return mean, mean * statistics.stdev(logs) / math.sqrt(len(logs))


def rows_of(system: System, runs: Path) -> list[Row]:
    """Of the seeds whose two arms are finished."""
    seeds = [
        seed
        for seed in SEEDS
        if all((runs / f"{system}_{arm}_{seed}" / "quality.json").exists() for arm in ARMS)
    ]
    if not seeds:
        print(f"{system}: no seed has both arms yet")
        return []

    def curves(arm: str, name: str) -> list[dict[int, float]]:
        files = [runs / f"{system}_{arm}_{seed}" / "curve.json" for seed in seeds]
        return [{int(k): v[name] for k, v in json.loads(f.read_text()).items()} for f in files]

    def qualities(arm: str) -> list[dict[str, float]]:
        files = [runs / f"{system}_{arm}_{seed}" / "quality.json" for seed in seeds]
        return [json.loads(f.read_text()) for f in files]

    about = "aspirin of rMD17" if system == "molecules" else "Cα traces of up to 64 residues"
    note = (
        f"{about}, plain transformer, exact target, {STEPS[system]} steps at a constant rate,"
        f" averaged weights, looks every {EVERY} steps"
    )
    row = partial(Row, seeds=seeds, note=note)
    arms = {
        "plain": curves("plain", "loss"),
        "after": curves("plain", "after"),
        "projected": curves("projected", "loss"),
    }
    last = STEPS[system]
    found = []
    for name, one, other in (
        ("steps_ratio", "projected", "plain"),
        ("steps_ratio_over_after", "projected", "after"),
        ("steps_ratio_after", "after", "plain"),
    ):
        pairs = zip(arms[one], arms[other], strict=True)
        value, error = geometric([log_ratio(a, b) for a, b in pairs])
        goal = "< 1" if name == "steps_ratio" else None
        found.append(row(f"horizontal.{name}_{system}", value, error, goal=goal))
    for name, one, other in (
        ("final_loss_ratio", "projected", "plain"),
        ("final_loss_ratio_after", "after", "plain"),
    ):
        logs = [math.log(a[last] / b[last]) for a, b in zip(arms[one], arms[other], strict=True)]
        value, error = geometric(logs)
        found.append(row(f"horizontal.{name}_{system}", value, error))
    shares = [1 - a[last] / p[last] for a, p in zip(arms["after"], arms["plain"], strict=True)]
    found.append(row(f"horizontal.turning_share_{system}", *mean_of(shares)))
    share = noise_along_the_orbit(system)
    found.append(
        Row(
            f"horizontal.augmentation_noise_along_orbit_{system}",
            *share,
            note=f"{about}; share of the weighted noise of the target g·x1 that turns x_t",
        )
    )
    for arm in ARMS:
        samples = qualities(arm)
        values = {key: [q[key] for q in samples] for key in samples[0]}
        values["final_loss"] = [c[last] for c in arms[arm]]
        for key, each in values.items():
            found.append(row(f"horizontal.{system}.{arm}.{key}", *mean_of(each)))
    return found


def mean_of(values: Sequence[float]) -> tuple[float, float | None]:
    """And its standard error."""
    if len(values) < 2:
        return statistics.fmean(values), None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def main(
    what: Literal["train", "evaluate"] | None = None,
    *,
    systems: Sequence[System] = ("molecules", "proteins"),
    runs: Path | None = None,
) -> None:
    """Both steps when none is given. Seed after seed, both arms and systems of it."""
    runs = runs or kept("runs/horizontal")
    if what != "evaluate":
        for seed in SEEDS:
            for system in systems:
                for arm in ARMS:
                    run_one(system, arm, seed, runs)
    if what != "train":
        for system in systems:
            write_rows("library", rows_of(system, runs))


if __name__ == "__main__":
    benchmark(
        main,
        needs=[CHAINS, frames.DATA],
        quick={
            "SEEDS": (0,),
            "STEPS": {"molecules": 3, "proteins": 3},
            "EVERY": 1,
            "HELD_OUT": {"molecules": 4, "proteins": 4},
            "SAMPLES": {"molecules": 8, "proteins": 4},
        },
    )
