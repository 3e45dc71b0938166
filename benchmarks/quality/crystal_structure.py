"""Crystal structure prediction on Perov-5, an MP-20 subset and Carbon-24.

    python -m benchmarks.quality.crystal_structure table [--targets exact ...] [--seeds 0 1 2]
        [--steps 1000]
    python -m benchmarks.quality.crystal_structure run perov5|mp20_subset|carbon24 [key=value ...]
        [--label _NAME]

``table``: the four targets of the papers with the same network, steps and seeds; match rate and
RMSE of one guess against the steps trained, seconds per step; an interrupted command goes on.
``run``: one configuration of the method, trained, sampled and matched, with its ceiling. Reads
../shared/data.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.crystals.crystal import crystal_batch
from orbitwise.crystals.denoising import CrystalDenoising
from orbitwise.crystals.domain import Domain
from orbitwise.crystals.files.read import read_crystals, to_structure
from orbitwise.crystals.matching.cells import CellMatcher
from orbitwise.crystals.matching.match import match
from orbitwise.methods.crystals import structure as crystal_structure
from orbitwise.methods.crystals.evaluation import matched
from orbitwise.methods.crystals.guesses import GuessedCrystals, guess
from orbitwise.methods.crystals.model import CrystalModel, load_model
from orbitwise.methods.crystals.parts import CrystalModelConfig, CrystalSamplingConfig
from orbitwise.runs.config import load
from orbitwise.training import TrainConfig
from orbitwise.training import train as fit

Target = Literal["augmentation", "snis_uniform", "snis_wrapped", "exact"]
TARGETS = get_args(Target)
TEST, GUESSES, REPEATS = 600, 2, 10
SPLITS = {
    "perov5": ("[train_dev,val]", "test"),
    "mp20_subset": ("[train]", "test"),
    "carbon24": ("[val]", "test"),
}


def perov5(split: list[str]) -> list:
    return read_crystals(SHARED / "perov5" / "perov5.npz", split=split).crystals


def judge(
    denoiser, batch, truth: list, domain: Domain, sampling: CrystalSamplingConfig
) -> tuple[float, float]:
    """Match rate and RMSE of one guess, averaged over ``GUESSES`` guesses for each of the test
    compositions."""
    model = CrystalModel(copy.deepcopy(denoiser).eval(), sampling, domain)
    rates, distances = [], []
    for k in range(GUESSES):
        drawn, calls = model.draw(batch, torch.Generator().manual_seed(1000 + k))
        found = GuessedCrystals(
            batch, drawn.frac[None], drawn.lattice[None], calls, k, 0.0
        ).crystals()
        guesses = [[None if c is None else to_structure(c) for c in row] for row in found]
        result = match(guesses, truth)
        rates.append(result.rate(1).value)
        distances.append(result.rmse(1).value)
    return float(np.mean(rates)), float(np.mean(distances))


def parts(target: str, data, seed: int) -> tuple:
    """The network and the loss of the table."""
    config = CrystalModelConfig(hidden=96, layers=3, centred=False)
    return config.fitted(data, seed), CrystalDenoising(
        config.process(), target, proposals=1000, times="choosing"
    )


def cost(target: str) -> dict[str, tuple[float, float]]:
    """CPU ms of the targets of 128 crystals, and of a training step of 64 (noise, target, network,
    gradient)."""
    data = crystal_batch(perov5(["train_dev"])[:128])
    denoiser, objective = parts(target, data, 0)
    generator = torch.Generator().manual_seed(0)

    def targets() -> None:
        objective.pair(data, objective.draw_times(128, data.frac, generator), generator)

    def step() -> None:
        objective(denoiser, data[torch.arange(64)], generator=generator).mean().backward()

    found = {}
    for name, work in (("target_ms", targets), ("step_ms", step)):
        work()
        taken = []
        for _ in range(REPEATS):
            begin = time.process_time()
            work()
            taken.append(1000 * (time.process_time() - begin))
        found[name] = float(np.mean(taken)), float(np.std(taken, ddof=1) / math.sqrt(REPEATS))
    return found


def one(target: str, seed: int, steps: int, work: Path) -> dict:
    """Train and judge one target with one seed; the answer is kept in ``work``."""
    kept = work / f"{target}-{seed}-{steps}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    train = perov5(["train_dev", "val"])
    test = perov5(["test"])
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:TEST].tolist()
    test = [test[i] for i in chosen]
    batch, truth = crystal_batch(test), [to_structure(c) for c in test]
    sampling = CrystalSamplingConfig(steps=50)
    data, domain = crystal_batch(train), Domain.of(train, "Perov-5")
    denoiser, objective = parts(target, data, seed)
    settings = TrainConfig(
        steps=steps,
        batch_size=64,
        learning_rate=2e-3,
        weight_decay=0.01,
        ema_decay=0.995,
        seed=seed,
        checkpoint_every=200,
        accelerator="cpu",
    )
    looks: dict[str, tuple[float, float]] = {}
    when = [steps // 4, steps // 2, steps]
    log = work / f"{target}-{seed}-{steps}"

    def look(moment) -> None:
        if moment.step in when:
            looks[str(moment.step)] = judge(moment.ema, batch, truth, domain, sampling)
            (log.with_suffix(".looks")).write_text(json.dumps(looks))

    log.mkdir(parents=True, exist_ok=True)
    if log.with_suffix(".looks").exists():
        looks.update(json.loads(log.with_suffix(".looks").read_text()))
    fit(denoiser, objective, data, settings, log, {"target": target}, on_step=look)
    answer = {"looks": looks, "parameters": sum(p.numel() for p in denoiser.parameters())}
    kept.write_text(json.dumps(answer))
    return answer


def table(targets: Sequence[Target], seeds: Sequence[int], steps: int, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for target in targets:
            one(target, seed, steps, work)
    rows = []
    for target in targets:
        answers = [one(target, seed, steps, work) for seed in seeds]
        note = (
            f"CSPNet of {answers[0]['parameters']:,} parameters, scores not centred, batch 64, 50"
            f" network calls, {TEST} test structures x {GUESSES} guesses; error over seeds"
        )
        for step in answers[0]["looks"]:
            values = np.array([a["looks"][step] for a in answers])
            error = (
                values.std(0, ddof=1) / math.sqrt(len(values))
                if len(values) > 1
                else [math.nan] * 2
            )
            for k, name in enumerate(("match1", "rmse1")):
                what = f"perov5.table.{target}.{name}_at_{step}"
                rows.append(
                    Row(
                        what,
                        float(values[:, k].mean()),
                        float(error[k]),
                        seeds=list(seeds),
                        note=note,
                    )
                )
        for name, (value, error) in cost(target).items():
            words = (
                "of noise and targets of 128 crystals"
                if name == "target_ms"
                else "of a training step of 64"
            )
            rows.append(
                Row(
                    f"perov5.table.{target}.{name}",
                    value,
                    error,
                    seeds=[0],
                    note=f"CPU time {words}",
                )
            )
    write_rows("crystals", rows)


def swapped_matches(truth: list) -> float:
    """Share of structures that still match when the first two atoms (A and B of ABX3) change
    places: expected rate of a guesser who cannot know which arrangement is in the test set is half
    of one plus this."""
    matcher = CellMatcher()
    hits = 0
    for structure in truth:
        other = structure.copy()
        a, b = structure[0].specie, structure[1].specie
        other.replace(0, b)
        other.replace(1, a)
        hits += not math.isnan(matcher.rms(matcher.reduce(other), matcher.reduce(structure)))
    return hits / len(truth)


def not_in_training(guesses: GuessedCrystals, rms: np.ndarray, train: list) -> np.ndarray:
    """Distance of the first guess that is none of the training structures of its composition,
    ``(items,)``; the first guess where all are."""
    matcher = CellMatcher()
    known: dict[tuple, list] = {}
    for crystal in train:
        known.setdefault(tuple(np.sort(crystal.species)), []).append(
            matcher.reduce(to_structure(crystal))
        )
    chosen = np.zeros(len(rms), dtype=int)
    for i, row in enumerate(guesses.crystals()):
        for k, crystal in enumerate(row):
            others = [] if crystal is None else known.get(tuple(np.sort(crystal.species)), [])
            cell = matcher.reduce(to_structure(crystal)) if others else None
            if crystal is not None and all(
                math.isnan(matcher.rms(cell, other)) for other in others
            ):
                chosen[i] = k
                break
    return rms[np.arange(len(rms)), chosen]


def rate_rows(name: str, rms: np.ndarray) -> list[tuple]:
    """Match rate and RMSE with their errors of one distance for each item."""
    hit = ~np.isnan(rms)
    rate = float(hit.mean())
    return [
        (f"match1{name}", rate, math.sqrt(rate * (1 - rate) / len(rms))),
        (
            f"rmse1{name}",
            float(rms[hit].mean()),
            float(rms[hit].std(ddof=1) / math.sqrt(hit.sum())),
        ),
    ]


def one_guess(folder: Path, config) -> list[tuple]:
    """The consensus of 14 draws of 7 network calls, that end at a noise of 0.025 of the cell, as
    the one guess."""
    sampling = config.sampling.model_copy(update={"steps": 7, "consensus": 14, "last": 0.65})
    model = dataclasses.replace(load_model(folder), sampling=sampling)
    data = crystal_structure.test_set(config)
    found = guess(model, data.batch, 1, 0, folder / "one_guess")
    result = matched(found, data.crystals, config.workers, folder / "one_guess" / "matches.npz")
    return [*rate_rows("", result.rms[:, 0]), ("nfe", found.evaluations, None)]


def run(name: str, overrides: Sequence[str], work: Path, label: str) -> None:
    """Train, sample and evaluate one data set with the method's own commands, and write its
    rows."""
    begin = time.perf_counter()
    splits, test = SPLITS[name]
    given = [
        f"data={SHARED / name / f'{name}.npz'}",
        f"splits={splits}",
        f"test_split={test}",
        *overrides,
    ]
    config = load(f"crystal_structure/{name}", given)
    folder = work / (name + label)
    trained = crystal_structure.train(config, folder)
    crystal_structure.sample(folder)
    told = crystal_structure.evaluate(folder).result
    note = (
        f"{trained.result.steps} steps of batch {config.train.batch_size},"
        f" {trained.result.seconds:.0f} s of training, {told.items} test structures,"
        f" {told.evaluations} network calls for each guess"
    )
    rows = [
        ("match1", told.match1.value, told.match1.error),
        ("rmse1", told.rmse1.value, told.rmse1.error),
    ]
    if name == "perov5":
        data = crystal_structure.test_set(config)
        found = GuessedCrystals.load(folder / "guesses", data.batch)
        rms = matched(found, data.crystals, config.workers, folder / "matches.npz").rms
        train = crystal_structure.training_set(config).crystals
        rows = rate_rows("_not_in_training", not_in_training(found, rms, train))
        rows += one_guess(folder, config)
        truth = [to_structure(c) for c in data.crystals]
        rows.append(("ceiling1", 0.5 * (1 + swapped_matches(truth)), None))
        note += "; match1 and rmse1: of 14 draws of 7 calls the one that the others agree with"
    else:
        rows.append(("nfe", told.evaluations, None))
    if told.guesses > 1:
        rows.append((f"match{told.guesses}", told.match_all.value, told.match_all.error))
        rows.append((f"rmse{told.guesses}", told.rmse_all.value, told.rmse_all.error))
        rows.append((f"nfe{told.guesses}", told.evaluations, None))
    rows.append(("invalid", told.invalid / (told.items * told.guesses), None))
    if told.ceiling is not None:
        rows.append(("ceiling_drawn", told.ceiling.drawn, None))
        rows.append(("several_known", told.ceiling.several, None))
        rows.append(("in_training", told.ceiling.in_training, None))
        rows.append(("ceiling_repeated", told.ceiling.repeated, None))
    goals = {
        "match1": ">= 0.524",
        "rmse1": "<= 0.06",
        "match20": ">= 0.986",
        "rmse20": "<= 0.013",
        "nfe": "<= 100",
    }
    seconds = time.perf_counter() - begin
    write_rows(
        "crystals",
        [
            Row(
                f"{name}{label}.{what}",
                float(value),
                error,
                goals.get(what) if name == "perov5" else None,
                [config.train.seed],
                seconds=seconds,
                note=note,
            )
            for what, value, error in rows
        ],
    )


def main(
    what: Literal["table", "run"] | None = None,
    name: Literal["perov5", "mp20_subset", "carbon24"] | None = None,
    overrides: Sequence[str] = (),
    *,
    targets: Sequence[Target] = TARGETS,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 1000,
    label: str = "",
    work: Path | None = None,
) -> None:
    """Both parts when none is given, which takes hours on two cores. ``label`` is added to the
    names of the rows of a run, as ``_augmentation``."""
    work = work or kept("runs/crystals")
    if what != "run":
        table(targets, seeds, steps, work)
    if what != "table":
        for each in [name] if name else SPLITS:
            run(each, overrides, work, label)


if __name__ == "__main__":
    benchmark(
        main,
        needs=[SHARED / name / f"{name}.npz" for name in SPLITS],
        quick={
            "TEST": 3,
            "GUESSES": 1,
            "REPEATS": 2,
            "targets": ["exact"],
            "seeds": [0],
            "steps": 4,
            "name": "perov5",
            "overrides": ["train.steps=2", "test_items=3", "workers=1"],
        },
    )
