"""How fast plain networks learn rotations: share of the held-out loss that is equivariance error,
along a training.

    python -m benchmarks.quality.equivariance_dynamics [forces forces_3bpa protein voxels]
        [--what base sizes data optimisers targets efficiency] [--steps 10000]

One setting at a time is changed about the base (the preset ``dynamics/TASK``): model sizes (about a
quarter and four times the parameters), data sizes, optimiser settings, targets; ``forces_3bpa``
(trained at 300 K, audited at 300, 600 and 1200 K) has a base alone. ``efficiency`` (forces):
seconds of training until the held-out loss first falls below one level, for the equivariant
network, the plain one, the plain one whose loss is averaged over a quadrature of rotations (12 per
item, a twelfth of the items: equal cost of a step), and the twirled plain one (its twirled error:
the limit of many rotations at test time, whose cost is not counted).

Finished runs are kept in runs/dynamics and used again; a run that was cut off goes on. Rows:
``TASK.percent_at_1k``, ``_10k``, ``_final`` of the base, ``TASK.VARIANT.percent_...`` of the
others, and what the course was. Reads ../shared/data; ``--set key=value`` changes the settings of
all runs. About three to five minutes a run on one core.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.audit import read_audits
from orbitwise.methods.dynamics import dynamics
from orbitwise.methods.dynamics.figures import (
    Curve,
    dynamics_figure,
    efficiency_figure,
    variants_figure,
)
from orbitwise.report.canvas import save
from orbitwise.runs.config import load, load_run
from orbitwise.training import estimate_step_seconds

Task = Literal["forces", "forces_3bpa", "protein", "voxels"]
Part = Literal["base", "sizes", "data", "optimisers", "targets", "efficiency"]
FILES = {
    "forces": SHARED / "rmd17/aspirin.npz",
    "forces_3bpa": SHARED / "3bpa/3bpa.npz",
    "protein": SHARED / "protein_small_chains/protein_small_chains.npz",
    "voxels": SHARED / "qm9_small/qm9_small.npz",
}
TINY = (  # settings of a run that only shows that it runs
    "network.hidden=16",
    "network.layers=1",
    "train.batch_size=8",
    "train.warmup=2",
    "train.accelerator=cpu",
    "held_out=8",
    "items=24",
    "audit.per_decade=2",
)
NO_GRADIENTS = "audit.gradients=false"


@dataclass(frozen=True)
class Grid:
    """Variants about the base of a task: name -> settings; ``base`` names the base in the legends
    of a group."""

    groups: dict[str, dict[str, list[str]]]
    base: dict[str, str]


OPTIMISERS = {
    "lr_high": ["train.learning_rate=3e-3"],
    "lr_low": ["train.learning_rate=1e-4"],
    "cosine": ["train.schedule=cosine"],
    "sgd": ["train.optimiser=sgd", "train.learning_rate=0.05"],
}
BASE_NAMES = {
    "sizes": "size_base",
    "data": "data_base",
    "optimisers": "adam 1e-3",
    "targets": "augmentation",
}

GRIDS = {
    "forces": Grid(
        {
            "sizes": {"size_small": ["network.hidden=16"], "size_large": ["network.hidden=112"]},
            "data": {"data_100": ["items=100"], "data_8000": ["items=8000"]},
            "optimisers": OPTIMISERS,
            # equal network evaluations per step: 24 items, or 2 items in 12 orientations
            "targets": {
                "target_none": ["target=none"],
                "target_haar": ["target=haar", "proposals=12", "train.batch_size=2"],
                "target_exact": ["target=exact", "train.batch_size=2"],
            },
        },
        BASE_NAMES | {"data": "data_1000"},
    ),
    "protein": Grid(
        {
            "sizes": {
                "size_small": ["network.hidden=16", "network.heads=4"],
                "size_large": ["network.hidden=112"],
            },
            "data": {"data_100": ["items=100"], "data_400": ["items=400"]},
            "optimisers": OPTIMISERS,
            "targets": {
                "target_none": ["target=none"],
                "target_snis": ["target=snis"],
                "target_exact": ["target=exact"],
            },
        },
        BASE_NAMES | {"data": "data_1368"},
    ),
    "voxels": Grid(
        {
            "sizes": {"size_small": ["network.hidden=4"], "size_large": ["network.hidden=16"]},
            "data": {"data_100": ["items=100"], "data_400": ["items=400"]},
            "optimisers": OPTIMISERS,
            # of positions, before they become densities: none, the 24 rotations of the cube, all
            # (the base)
            "targets": {"target_none": ["target=none"], "target_octahedral": ["target=octahedral"]},
        },
        BASE_NAMES | {"data": "data_1809"},
    ),
}
BASE_STEPS = 10_000
DENSE = "audit.per_decade=8"
EFFICIENCY = {  # forces alone
    "equivariant": ["network.name=egnn", "network.hidden=48", "target=none", DENSE, NO_GRADIENTS],
    "plain": [DENSE, NO_GRADIENTS],
    "plain_exact": ["target=exact", "train.batch_size=2", DENSE, NO_GRADIENTS],
}


class Bench:
    """The runs of one task; ``given``: settings of all of them."""

    def __init__(self, task: str, steps: int, given: Sequence[str]):
        self.task, self.given = task, [f"train.steps={steps}", *given]
        self.folder = kept("runs/dynamics") / (
            task if not given else f"{task}-{'-'.join(sorted(given)).replace('/', '_')}"
        )

    def run(self, variant: str, changes: list[str]) -> Path:
        """The folder of a variant, trained if that was not done; a constant schedule may be
        continued."""
        out = self.folder / f"{variant}_{self.given[0].partition('=')[2]}"
        config = load(f"dynamics/{self.task}", [f"data={FILES[self.task]}", *self.given, *changes])
        print(f"{self.task} {variant}: {', '.join(changes) or 'base'}")
        print("\n".join(dynamics.train(config, out).lines))
        return out

    def rows(self, variant: str | None, out: Path) -> list[Row]:
        found = json.loads((out / "summary.json").read_text())
        s, config = found["summary"], found["config"]
        note = (
            f"{config['network']['name']}, {s['parameters']:,} parameters, {s['steps']:,} steps of "
        )
        note += f"{config['train']['batch_size']} items, target {config['target']}"
        name = self.task if variant is None else f"{self.task}.{variant}"
        course, final = s["course"], s["course"]["final"]
        at = {f"percent_at_{k}k": s["percent_at"][str(1000 * k)] for k in (1, 10)}
        values = {
            **at,
            "percent_smallest": course["smallest"],
            "first_below_2_percent": course["first_below"],
            "percent_largest_after": course["largest_after"],
            "held_out_loss": s["total"],
            "held_out_loss_twirled": s["twirled"],
            **{k: v for k, v in s["numbers"].items() if v is not None and math.isfinite(v)},
        }
        common = {"seeds": [config["train"]["seed"]], "seconds": s["seconds"], "note": note}
        rows = [Row(f"{name}.percent_final", final["value"], _finite(final["error"]), **common)]
        rows += [Row(f"{name}.{k}", v, **common) for k, v in values.items() if v is not None]
        for level, part in s["levels"].items() if variant is None else ():
            end = part["course"]["final"]
            rows.append(
                Row(
                    f"{name}.level_{level}.percent_final",
                    end["value"],
                    _finite(end["error"]),
                    **common,
                )
            )
        return rows

    def base(self) -> Path:
        out = self.run("base", [])
        write_rows("dynamics", self.rows(None, out))
        audits = read_audits(out)
        levels = [row.level for row in audits[-1].rows]
        parts = [dynamics.curve_of(audits, str(v), v) for v in levels] if len(levels) > 1 else []
        whole = dynamics.curve_of(audits, "all")
        self.draw("base", dynamics_figure(parts or [whole], whole, f"{self.task}: base"))
        return out

    def group(self, what: str, grid: Grid) -> None:
        """A group of variants beside the base."""
        base = Bench(self.task, BASE_STEPS, self.given[1:])  # the variants may stop earlier
        curves = [_curve(grid.base[what], base.run("base", []))]
        for variant, changes in grid.groups[what].items():
            out = self.run(variant, [*changes, NO_GRADIENTS])
            write_rows("dynamics", self.rows(variant, out))
            curves.append(_curve(variant, out))
        self.draw(what, variants_figure(curves, f"{self.task}: {what}"))

    def efficiency(self, level: float | None) -> None:
        """Seconds to one held-out loss, by default the lowest that all methods reach, and 2 %
        more."""
        runs = {k: self.run(f"efficiency_{k}", changes) for k, changes in EFFICIENCY.items()}
        price = step_seconds(runs)
        curves = {k: _curve(k, run) for k, run in runs.items()}
        curves = {k: replace(curve, seconds=price[k] * curve.steps) for k, curve in curves.items()}
        plain = curves["plain"]
        curves["plain_twirled"] = replace(plain, name="plain_twirled", total=plain.twirled)
        level = level or 1.02 * max(float(c.total.min()) for c in curves.values())
        rows = []
        for name, curve in curves.items():
            note = (
                f"held-out loss {level:.4g} (1 = predicting zero); lowest {curve.total.min():.4g}"
                " after at most "
            )
            note += (
                f"{curve.seconds[-1]:.0f} s of training,"
                f" {1000 * curve.seconds[-1] / curve.steps[-1]:.1f} ms a step"
            )
            common = {"seeds": [0], "seconds": float(curve.seconds[-1]), "note": note}
            rows.append(Row(f"{self.task}.lowest_loss_{name}", float(curve.total.min()), **common))
            if (reached := seconds_to(curve, level)) is not None:
                rows.append(Row(f"{self.task}.seconds_to_loss_{name}", reached, **common))
        write_rows("dynamics", rows)
        title = f"{self.task}: held-out loss against training time"
        self.draw("efficiency", efficiency_figure(list(curves.values()), level, title))

    def draw(self, what: str, figure) -> None:
        own = self.folder.name != self.task
        folder = self.folder if own else kept("docs/images/audit")
        folder.mkdir(parents=True, exist_ok=True)
        print(save(figure, folder / f"{self.task}_{what}.png"))


def base_run(task: str, steps: int, given: Sequence[str] = ()) -> Path:
    """The base run of a task, trained where that was not done."""
    return Bench(task, steps, given).run("base", [])


def step_seconds(runs: dict[str, Path], rounds: int = 7) -> dict[str, float]:
    """Median seconds of a training step of each run, the runs taking turns so that a busy machine
    is unfair to none."""
    tasks = {name: dynamics.trained(run)[0] for name, run in runs.items()}
    settings = {name: load_run(run).train for name, run in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, task in tasks.items():
            found[name].append(
                estimate_step_seconds(task.model, task.objective, task.data, settings[name])
            )
    return {name: statistics.median(values) for name, values in found.items()}


def seconds_to(curve: Curve, level: float) -> float | None:
    """Training seconds at which the loss first falls below ``level``, between audits linear in both
    logarithms."""
    below = np.flatnonzero(curve.total <= level)
    if not len(below):
        return None
    k = int(below[0])
    if k == 0 or curve.seconds[k - 1] <= 0:
        return float(curve.seconds[k])
    a, b = np.log(curve.total[k - 1 : k + 1])
    s, t = np.log(curve.seconds[k - 1 : k + 1])
    return math.exp(s + (a - math.log(level)) / (a - b) * (t - s))


def _curve(name: str, run: Path) -> Curve:
    return dynamics.curve_of(read_audits(run), name)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def main(
    tasks: Sequence[Task] = tuple(FILES),
    *,
    what: Sequence[Part] = ("base", "sizes", "data", "optimisers", "targets", "efficiency"),
    steps: int = BASE_STEPS,
    level: float | None = None,
    set_: Sequence[str] = (),
) -> None:
    """``level``: the held-out loss to which efficiency is timed."""
    for task in tasks:
        bench, grid = Bench(task, steps, set_), GRIDS.get(task)
        for part in what:
            if part == "base":
                bench.base()
            elif part == "efficiency":
                if task == "forces":
                    bench.efficiency(level)
            elif grid is not None and part in grid.groups:
                bench.group(part, grid)


if __name__ == "__main__":
    benchmark(
        main,
        needs=list(FILES.values()),
        quick={
            "BASE_STEPS": 12,
            "steps": 12,
            "set_": TINY,
            "tasks": ["forces"],
            "what": ["base", "efficiency"],
        },
    )
