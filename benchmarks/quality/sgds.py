"""Diffusion samplers from an energy alone: every row of the tables, one command per row.

    python -m benchmarks.quality.sgds many_well_32 --seeds 0 1 2
    python -m benchmarks.quality.sgds many_well_32 --method pis --calls 120000

Runs are kept in runs/sgds and finished ones are reused. Other methods than sgds are settings of the
same preset with the same network, at the number of energy calls that ``--calls`` gives.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Literal

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.samplers import sgds
from orbitwise.runs.config import load

Method = Literal["sgds", "mle", "pis", "tb", "tb_lp", "subtb", "gafn", "adjoint"]
GOALS = {
    "many_well_32": {"gap": "3.85 at 20 M calls (SGDS)"},
    "many_well_64": {"gap": "16.26 at 20 M calls (SGDS)"},
    "many_well_128": {"gap": "70.35 at 20 M calls (SGDS)"},
    "forty_gaussians": {"modes": "40", "total_variation": "0.02", "ess": "0.9"},
    "lj13": {"gap": "1.5", "energy_w2": "0.8", "calls": "150000"},
    "lj55": {"symmetric_w2": "4.0", "energy_w2": "28"},
    "alanine_dipeptide": {"rama_w2": "0.25", "rama_kl": "0.05"},
}


def overrides(method: str, calls: int | None, preset: str) -> list[str]:
    """The settings that turn the preset into ``method`` with about ``calls`` energy calls."""
    base = load(f"sgds/{preset}")
    batch, steps = base.balance.batch_size, base.sampler.schedule.steps
    alone = ["search.method=none", "likelihood_steps=0"]
    scale = [f"sampler.data_scale={SCALES.get(preset, 1.0)}"]
    if method == "sgds":
        return []
    if method == "mle":
        return ["balance_steps=0"]
    per_step = {
        "pis": batch,
        "tb": batch,
        "subtb": batch,
        "tb_lp": batch * (steps + 1),
        "gafn": batch,
    }
    if method == "adjoint":
        rounds = max(1, calls // 256)
        extra = ["objective.endpoints=256", "objective.refresh=25", "balance.learning_rate=0.001"]
        return (
            alone
            + scale
            + [f"balance_steps={25 * rounds}", "objective.name=adjoint_matching", *extra]
        )
    names = {
        "pis": "reverse_kl",
        "tb": "trajectory_balance",
        "tb_lp": "trajectory_balance",
        "subtb": "subtrajectory_balance",
        "gafn": "augmented_flow",
    }
    count = max(1, calls // per_step[method])
    found = [
        *alone,
        *scale,
        f"balance_steps={count}",
        f"objective.name={names[method]}",
    ]
    found += [] if method == "pis" else ["objective.on_policy=1"]  # reverse KL has no other paths
    found += ["balance.learning_rate=0.001"]
    return found + (["sampler.langevin=true"] if method == "tb_lp" else [])


SHORT = ["double_well", "forty_gaussians", "many_well_32", "many_well_64", "many_well_128"]
# root mean square coordinate of the targets: what a search would have found, given to the methods
# without one
SCALES = {
    "many_well_32": 1.42,
    "many_well_64": 1.42,
    "many_well_128": 1.42,
    "forty_gaussians": 23.0,
    "lj13": 0.68,
}


def one(
    preset: str, label: str, method: Method, seed: int, extra: Sequence[str], calls: int | None
) -> dict:
    """``summary.json`` of a run, trained and evaluated where it is not there yet."""
    folder = kept("runs/sgds") / f"{label}-{method}-{seed}"
    config = load(f"sgds/{preset}", [*overrides(method, calls, preset), f"seed={seed}", *extra])
    path = folder / "summary.json"
    if path.exists() and json.loads(path.read_text())["config"] == config.resolved():
        return json.loads(path.read_text())
    sgds.train(config, folder)
    for line in sgds.evaluate(folder).lines:
        print(line)
    return json.loads(path.read_text())


def figures(summary: dict) -> dict[str, float]:
    """The numbers of one run that go into the table."""
    verdict = summary["verdict"]
    evidence = verdict["evidence"]
    found = {k: evidence[k] for k in ("elbo", "eubo", "gap", "log_z", "log_z_bridge", "ess")}
    if evidence["log_z_true"] is not None:
        found["log_z_error"] = abs(evidence["log_z"] - evidence["log_z_true"])
    for name in ("energy_w1", "energy_w2", "symmetric_w2", "distance_w1"):
        compared = verdict.get(name)
        if compared:
            found[name] = compared["value"]
            found[f"{name}_floor"] = compared["floor"]
    found |= mode_figures(verdict)
    counts = summary["evaluations"]
    found["calls"] = sum(counts.get(stage, (0, 0))[0] for stage in ("search", "training"))
    found["seconds"] = sum(
        v for k, v in summary["seconds"].items() if not k.startswith("reference")
    )
    return {k: v for k, v in found.items() if v is not None}


def mode_figures(verdict: dict) -> dict[str, float]:
    """Coverage of known modes and of torsion maps."""
    found = {}
    modes = verdict.get("modes") or {}
    if "minor" in modes:
        found["minor_mass"] = statistics.fmean(modes["minor"])
        found["minor_mass_spread"] = modes["rms"]["value"]
        found["minor_wells_tv"] = modes["total_variation"]["value"]
    elif modes:
        found["modes"] = sum(c > 0 for c in modes["count"])
        found["total_variation"] = modes["total_variation"]["value"]
        found["largest_deviation"] = modes["largest"]["value"]
    for entry in verdict.get("torsions", [])[:1]:
        found |= {"rama_kl": entry["kl"]["value"], "rama_kl_floor": entry["kl"]["floor"]}
        found |= {"rama_w2": entry["w2"]["value"], "rama_w2_floor": entry["w2"]["floor"]}
    return found


def main(
    preset: str | None = None,
    *,
    method: Method = "sgds",
    seeds: Sequence[int] = (0,),
    calls: int | None = None,
    set_: Sequence[str] = (),
    label: str | None = None,
) -> None:
    """Without a preset those that take a few minutes. ``calls``: energy calls of the methods
    without a search; ``label``: name in the rows, where ``--set`` changes the preset."""
    for each in [preset] if preset else SHORT:
        measure(each, label or each, method, seeds, set_, calls)


def measure(
    preset: str,
    label: str,
    method: Method,
    seeds: Sequence[int],
    extra: Sequence[str],
    calls: int | None,
) -> None:
    """The rows of one preset and method over the seeds."""
    runs = [figures(one(preset, label, method, seed, extra, calls)) for seed in seeds]
    name = label if label != preset or method == "sgds" else f"{preset}.{method}"
    rows = []
    for key in runs[0]:
        values = [run[key] for run in runs if key in run]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        rows.append(
            Row(
                what=f"sgds.{name}.{key}",
                value=statistics.fmean(values),
                error=error,
                goal=GOALS.get(preset, {}).get(key) if method == "sgds" else None,
                seeds=list(seeds),
                energy_calls=round(statistics.fmean(run["calls"] for run in runs)),
                seconds=statistics.fmean(run["seconds"] for run in runs),
            )
        )
    write_rows("samplers", rows)


if __name__ == "__main__":
    benchmark(
        main,
        quick={
            "preset": "double_well",
            "set_": [
                "likelihood_steps=3",
                "balance_steps=2",
                "search.steps=5",
                "search.warmup=5",
                "evaluation.paths=20",
                "evaluation.paths_back=20",
                "evaluation.reference=20",
            ],
        },
    )
