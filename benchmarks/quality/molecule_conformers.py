"""One model over many molecules: four targets with the same network and steps, ETKDGv3, and a
longer training.

    python -m benchmarks.quality.molecule_conformers train --target exact --seed 0 --runs RUNS
    python -m benchmarks.quality.molecule_conformers train --longer --runs RUNS
    python -m benchmarks.quality.molecule_conformers evaluate --runs RUNS
    python -m benchmarks.quality.molecule_conformers targets

``train`` is resumed by repeating it. ``evaluate`` scores whatever runs are in the folder and writes
the rows: recall AMR of held-out molecules of at most 20 atoms, hydrogens counted (test molecules of
both data sets together), and recall and precision on each test set, and on GEOM-Drugs, which
nothing is trained on. ``targets`` measures how far each target is from the exact posterior mean, in
the units of the loss, without any network. Reads ../shared/data.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.molecules.many import conformers
from orbitwise.methods.molecules.many.evaluation import Scores, comparable, embedded, score
from orbitwise.methods.molecules.many.parts import build, data_scale
from orbitwise.methods.molecules.many.sampling import HandednessKept, draw
from orbitwise.molecules.batch import ConformerData
from orbitwise.molecules.files.sets import Conformers, read_conformer_set
from orbitwise.molecules.metrics.coverage import Coverage, average
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.orbits.posterior.entrance import orbit_posterior
from orbitwise.processes.sampling import STEPPERS
from orbitwise.runs.config import load

FILES = {
    "openff": SHARED / "openff_conformers" / "openff_conformers.npz",
    "spice": SHARED / "spice_des_monomers" / "spice_des_monomers.npz",
    "geom": SHARED / "geom_drugs_crest" / "geom_drugs_crest.npz",
}
Target = Literal["augmentation", "aligned", "snis", "exact"]
TARGETS = get_args(Target)
SEEDS = (0, 1, 2)
SHORT = [  # settings of the comparison
    "max_atoms=24",
    "network.layers=3",
    "train.steps=1500",
    "train.ema_decay=0.996",
    "buckets=2",
]
LONGER: list[str] = []
SMALLEST = [
    "max_atoms=14",
    "network.layers=1",
    "network.hidden=16",
    "train.steps=2",
    "train.batch_size=4",
    "sampling.steps=3",
]
SMALL, LARGEST = 20, 40  # atoms: what "small" means, and how far the models are asked to reach
MOST_MOLECULES = None  # of a test set
BATCHES, BATCH = 40, 128  # to measure the targets
MOST_REFERENCES = 20  # of a molecule, evenly picked (SPICE has 50 of each, GEOM up to 700)
GOAL_EXACT = "lowest of the four targets, and below ETKDGv3"


def configuration(target: str, seed: int, longer: bool):
    given = [f"data={FILES['openff']},{FILES['spice']}", f"target={target}", f"train.seed={seed}"]
    return load("molecule_conformers/openff", given + (LONGER if longer else SHORT))


def folder_name(target: str, seed: int, longer: bool) -> str:
    return f"{'longer_' if longer else ''}{target}_{seed}"


@dataclass(frozen=True)
class TestSet:
    """Molecules to score, the scores of ETKDGv3, and how many samples of each to draw."""

    name: str
    molecules: list[Conformers]
    baseline: Scores
    counts: list[int]

    def at(self, which: list[int]) -> TestSet:
        """Some of the molecules."""
        b = self.baseline
        scores = Scores(
            b.name, tuple(b.coverage[k] for k in which), tuple(b.handedness[k] for k in which)
        )
        return TestSet(
            self.name, [self.molecules[k] for k in which], scores, [self.counts[k] for k in which]
        )

    def small(self) -> list[int]:
        return [k for k, m in enumerate(self.molecules) if m.atoms <= SMALL]


def once(path: Path, key: dict, make) -> Scores:
    """``make()``, or what it gave before for the same ``key``."""
    if path.is_file() and (saved := json.loads(path.read_text()))["key"] == key:
        return Scores(
            saved["name"],
            tuple(
                Coverage(**{k: tuple(v) if isinstance(v, list) else v for k, v in c.items()})
                for c in saved["coverage"]
            ),
            tuple(HandednessKept(**h) for h in saved["handedness"]),
        )
    scores = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": key, **asdict(scores)}))
    return scores


def thinned(m: Conformers) -> Conformers:
    """At most ``MOST_REFERENCES`` conformers, evenly picked."""
    pick = np.unique(np.linspace(0, len(m) - 1, min(len(m), MOST_REFERENCES)).round().astype(int))
    return replace(m, positions_angstrom=m.positions_angstrom[pick])


def embeddings_of(molecules: list[Conformers], counts: list[int]) -> Scores:
    """Scores of ETKDGv3; a molecule that RDKit cannot embed has an entry without samples."""
    samples, failed = embedded(molecules, counts)
    fine = [k for k in range(len(molecules)) if k not in set(failed)]
    some = score("etkdg", [molecules[k] for k in fine], [samples[k] for k in fine])
    at = {k: i for i, k in enumerate(fine)}
    nothing = Coverage(np.inf, np.inf, (), (), (), 0, 0)
    return Scores(
        "etkdg",
        tuple(some.coverage[at[k]] if k in at else nothing for k in range(len(molecules))),
        tuple(
            some.handedness[at[k]] if k in at else HandednessKept(0.0, 0.0)
            for k in range(len(molecules))
        ),
    )


def test_sets(runs: Path) -> list[TestSet]:
    config = configuration("exact", 0, False).model_copy(update={"max_atoms": LARGEST})
    held_out = config.read("test").molecules
    trained = config.read("train", "val")
    geom = read_conformer_set(
        FILES["geom"], skip_bad=True, max_atoms=LARGEST, splits=("train", "val", "test")
    )
    groups = {
        name: [m for m in held_out if m.where.startswith(str(FILES[name]))]
        for name in ("spice", "openff")
    }
    groups["geom"] = geom.without(trained).molecules
    found = []
    for name, molecules in groups.items():
        molecules = [thinned(molecules[k]) for k in comparable(molecules)[:MOST_MOLECULES]]
        counts = [2 * len(m) for m in molecules]
        key = {"molecules": [m.smiles for m in molecules], "counts": counts}
        scores = once(
            runs / f"etkdg_{name}.json", key, lambda m=molecules, c=counts: embeddings_of(m, c)
        )
        embeds = [k for k, c in enumerate(scores.coverage) if c.samples]
        print(
            f"{name}: {len(embeds)} molecules of {len(molecules)} (the others cannot be embedded)",
            flush=True,
        )
        found.append(TestSet(name, molecules, scores, counts).at(embeds))
    return found


@dataclass(frozen=True)
class Trained:
    """A run: its scores on every test set, network calls per sample, seconds of training."""

    target: str
    seed: int
    scores: dict[str, Scores]
    evaluations: int
    note: str


def scored(run: Path, target: str, seed: int, sets: list[TestSet]) -> Trained:
    config, made, step = conformers.load(run)
    sampling = configuration(
        target, seed, False
    ).sampling  # the same for all, whenever they were trained
    begin, found = time.perf_counter(), {}
    calls = STEPPERS[sampling.stepper].calls * (sampling.steps - 1) + 1
    for test in sets:
        key = {
            "step": step,
            "sampling": sampling.resolved(),
            "molecules": [m.smiles for m in test.molecules],
            "counts": test.counts,
        }

        def samples_of(test=test) -> Scores:
            drawn = draw(made.denoiser, test.molecules, test.counts, sampling, seed=1000 + seed)
            assert drawn.evaluations == calls
            return score(target, test.molecules, drawn.positions)

        found[test.name] = once(run / f"scores_{test.name}.json", key, samples_of)
    parameters = sum(p.numel() for p in made.denoiser.parameters())
    note = (
        f"{step} steps of {config.train.batch_size}, molecules up to {config.max_atoms} atoms,"
        f" {parameters:,} parameters, {config.prior} prior, {calls} network calls per sample, 2"
        f" samples for each of at most {MOST_REFERENCES} reference conformers"
    )
    print(f"{run.name}: scored in {time.perf_counter() - begin:.0f} s", flush=True)
    return Trained(target, seed, found, calls, note)


def small_recall(sets: list[TestSet], scores: dict[str, Scores]) -> np.ndarray:
    """Recall AMR of every held-out molecule of at most 20 atoms; GEOM is another kind of set and
    not among them."""
    return np.array(
        [scores[s.name].coverage[k].recall_amr for s in sets if s.name != "geom" for k in s.small()]
    )


def rows_of(
    sets: list[TestSet], runs: list[Trained], prefix: str, tables: tuple[str, ...]
) -> list[Row]:
    """The figure of each method over molecules and seeds; errors hold the spread of both."""
    baseline = {s.name: s.baseline for s in sets}
    methods = {t: [r for r in runs if r.target == t] for t in TARGETS}
    rows, exact = [], methods["exact"]
    for target, own in methods.items():
        if not own:
            continue
        values = np.stack([small_recall(sets, r.scores) for r in own])
        seeds, note = [r.seed for r in own], own[0].note
        rows.append(
            Row(
                f"conformers.{prefix}recall_amr_{target}",
                float(values.mean()),
                spread(values),
                goal=GOAL_EXACT if target == "exact" else None,
                seeds=seeds,
                note=f"{values.shape[1]} molecules; {note}",
            )
        )
        others = {"etkdg": small_recall(sets, baseline)[None]}
        if target != "exact" and exact:
            others = {"exact": np.stack([small_recall(sets, r.scores) for r in exact])}
        for other, theirs in others.items() if target == "exact" or exact else ():
            gap = (
                values.mean(0) - theirs.mean(0)
                if target == "exact"
                else theirs.mean(0) - values.mean(0)
            )
            found = average(torch.from_numpy(gap))
            name = f"exact_minus_{other if target == 'exact' else target}"
            rows.append(
                Row(
                    f"conformers.{prefix}small.recall_amr_{name}",
                    found.mean,
                    found.error,
                    goal="below 0",
                    seeds=seeds,
                    note=(
                        "molecule by molecule, the same molecules; error over molecules (bootstrap)"
                    ),
                )
            )
        for s in (s for s in sets if s.name in tables):
            rows += table(s.name, prefix, target, [r.scores[s.name] for r in own], seeds, note)
    values = small_recall(sets, baseline)
    rows.append(
        Row(
            "conformers.recall_amr_etkdg",
            float(values.mean()),
            average(torch.from_numpy(values)).error,
            seeds=[0],
            note=f"{len(values)} molecules, RDKit ETKDGv3 as it comes, as many samples",
        )
    )
    for s in (s for s in sets if s.name in tables):
        rows += table(s.name, "", "etkdg", [s.baseline], [0], "RDKit ETKDGv3, as many samples")
    return rows


def spread(values: np.ndarray) -> float:
    """Standard error of the mean of ``values: (seeds, molecules)``: over molecules, and over
    seeds."""
    over = average(torch.from_numpy(values.mean(0))).error
    seeds = values.mean(1).std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(np.hypot(over, seeds))


def table(
    name: str, prefix: str, method: str, scores: list[Scores], seeds: list[int], note: str
) -> list[Row]:
    found = [s.figures() for s in scores]
    wanted = {
        "recall_amr": "recall_amr",
        "precision_amr": "precision_amr",
        "isomer": "right_isomer",
    }
    thresholds = ("0.75", "1.25") if name == "geom" else ("0.5",)
    for side in ("recall", "precision"):
        wanted |= {f"{side}_cov_{d}": f"{side}_cov_{d.replace('.', '_')}" for d in thresholds}
    n = len(scores[0].coverage)
    return [
        Row(
            f"conformers.{name}.{prefix}{method}.{called}",
            float(np.mean([f[key].mean for f in found])),
            float(np.mean([f[key].error for f in found])),
            seeds=seeds,
            note=f"{n} molecules, median {np.mean([f[key].median for f in found]):.4g}; {note}",
        )
        for key, called in wanted.items()
    ]


def target_rows() -> list[Row]:
    """Mean of |target − E[g·x1 | x_t]|²/c_out² over the training molecules and the training's noise
    levels: what a target adds to the loss that no network can learn (alignment: its bias)."""
    rows, begin = [], time.perf_counter()
    for prior in ("harmonic", "gaussian"):
        configs = {
            t: configuration(t, 0, False).model_copy(update={"prior": prior}) for t in TARGETS
        }
        data = ConformerData(
            configs["exact"].read("train").molecules, max_group=configs["exact"].max_group
        )
        scale = data_scale(data, prior)
        found: dict[str, list[float]] = {t: [] for t in TARGETS[:3]}
        for step in range(BATCHES):
            generator = torch.Generator().manual_seed(step)
            index = torch.randint(len(data), (BATCH,), generator=generator)
            for part in data[index].parts:
                for target in found:
                    objective = build(configs[target], scale).objective.objective.on(part)
                    exact = objective.process
                    t = objective.draw_times(len(part), torch.tensor(scale), generator).to(part.x)
                    xt, y = objective.pair(part.x, t, part.mask, generator)
                    post = orbit_posterior(objective.group, exact, part.x, xt, t, part.mask)
                    weight = Preconditioning.of(exact, t, scale).weight
                    found[target] += objective.loss(y, post.mean, weight, part.mask).tolist()
        for target, values in found.items():
            rows.append(
                Row(
                    f"conformers.target_error.{prior}.{target}",
                    float(np.mean(values)),
                    float(np.std(values) / len(values) ** 0.5),
                    seeds=list(range(BATCHES)),
                    seconds=time.perf_counter() - begin,
                    note=(
                        f"{len(values)} draws, molecules up to {configs[target].max_atoms} atoms,"
                        " in units of the loss (1 = the variance of the data);"
                        f" {configs[target].proposals} proposals for snis; 0 for exact"
                    ),
                )
            )
    return rows


def train(target: str, seed: int, longer: bool, runs: Path) -> None:
    config = configuration(target, seed, longer)
    print("\n".join(conformers.train(config, runs / folder_name(target, seed, longer)).lines))


def evaluate(runs: Path) -> None:
    """Score what is in the folder and write its rows."""
    sets = test_sets(runs)
    only_small = [s.at(s.small()) if s.name == "openff" else s for s in sets if s.name != "geom"]
    for longer, prefix, own, tables in (
        (False, "", only_small, ("spice",)),
        (True, "best.", sets, ("spice", "openff", "geom")),
    ):
        found = [
            scored(run, target, seed, own)
            for target in TARGETS
            for seed in range(10)
            if (run := runs / folder_name(target, seed, longer)).is_dir()
        ]
        if found:
            write_rows("molecules", rows_of(own, found, prefix, tables))


def main(
    what: Literal["train", "evaluate", "targets"] | None = None,
    *,
    target: Target = "exact",
    seed: int = 0,
    longer: bool = False,
    runs: Path | None = None,
) -> None:
    """Everything when ``what`` is not given; ``longer``: with the preset's own size and steps."""
    runs = runs or kept("runs/molecule_conformers")
    if what == "train":
        train(target, seed, longer, runs)
    elif what is None:
        for each in SEEDS:
            for one in TARGETS:
                train(one, each, False, runs)
        train("exact", 0, True, runs)
    if what in ("targets", None):
        write_rows("molecules", target_rows())
    if what in ("evaluate", None):
        evaluate(runs)


if __name__ == "__main__":
    benchmark(
        main,
        needs=list(FILES.values()),
        quick={
            "SEEDS": (0,),
            "TARGETS": ("augmentation", "exact"),
            "SHORT": SMALLEST,
            "LONGER": SMALLEST,
            "LARGEST": 30,
            "MOST_MOLECULES": 2,
            "MOST_REFERENCES": 2,
            "BATCHES": 1,
            "BATCH": 4,
        },
    )
