"""What exact symmetry at test time buys: the trained force network plain, twirled and with frames.

    python -m benchmarks.quality.audits.wrappers    a minute, after the base run of
    equivariance_dynamics

Held-out loss under random rotations, what is left of the equivariance error, and seconds per
structure, each wrapper over the plain model in the same run.
"""

from __future__ import annotations

import statistics
import time

import torch

import orbitwise as ow
from benchmarks.quality.equivariance_dynamics import BASE_STEPS, FILES, TINY, base_run
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.audit import AuditBatch, Haar, Quadrature
from orbitwise.groups.polyhedral import icosahedral, tetrahedral
from orbitwise.methods.dynamics.dynamics import trained

STEPS, SETTINGS = BASE_STEPS, ()
ITEMS, REPEATS = 48, 5


def seconds_per_item(model, x: torch.Tensor) -> float:
    with torch.no_grad():
        model(x)
        times = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - begin)
    return statistics.median(times) / len(x)


def main() -> None:
    task, model = trained(base_run("forces", STEPS, SETTINGS))
    model = task.audited(model).eval()
    x = torch.cat([batch.x for batch in task.batches])[:ITEMS]
    y = torch.cat([batch.target for batch in task.batches])[:ITEMS]
    g = torch.Generator().manual_seed(0)
    group = ow.SO3()
    ways = {
        "plain": model,
        "twirl_12": ow.twirl(model, group, nodes=tetrahedral(), generator=g),
        "twirl_60": ow.twirl(model, group, nodes=icosahedral(), generator=g),
        "twirl_12_haar": ow.twirl(model, group, 12, generator=g),
        "frames": ow.framed(model, group),
    }
    rows = []
    seconds_per_item(model, x)  # the first calls are slow
    for name, way in ways.items():
        random = name.startswith("twirl")
        # draws anew at each call, so it cannot be audited by its answers to one input; average the
        # loss
        if random:
            losses = []
            for _ in range(8):
                R = group.sample((len(x),), generator=g)
                with torch.no_grad():
                    losses.append((way(x @ R.mT) - y @ R.mT).square().mean((1, 2)))
            total = torch.stack(losses).mean(0)
            value, error, left = float(total.mean()), float(total.std() / len(total) ** 0.5), None
        else:
            row = ow.audit_equivariance(
                way,
                group,
                AuditBatch(x, y),
                nodes=Haar(8) if name == "frames" else Quadrature(),
                generator=g,
            ).rows[0]
            value, error, left = row.total.value, row.total.error, row.percent
        cost = seconds_per_item(way, x) / seconds_per_item(model, x)
        note = f"{len(x)} structures of aspirin, loss in units of the mean square force"
        rows.append(Row(f"forces.wrapper_{name}.loss", value, error, note=note))
        rows.append(Row(f"forces.wrapper_{name}.seconds_over_plain", cost, note=note))
        if left is not None:
            rows.append(Row(f"forces.wrapper_{name}.percent", left.value, left.error, note=note))
    write_rows("dynamics", rows)


if __name__ == "__main__":
    benchmark(
        main,
        needs=[FILES["forces"]],
        quick={"ITEMS": 4, "REPEATS": 1, "STEPS": 10, "SETTINGS": TINY},
    )
