"""What the targets for crystals leave of the symmetry's noise, and what they cost.

    python -m benchmarks.quality.crystal_targets [perov5 mp20 carbon24]

x_t is made from a Haar point of the orbit: a shift, and a permutation within each species. The
figure is the mean square per coordinate of σ·(target - exact mean over shifts and permutations):
the part of the target's variance that belongs to the symmetry, which no network can predict. Its
error is over crystals. Targets: ``diffcsp`` the score of the noise that was drawn;
``snis_uniform1000`` and ``snis_wrapped1000`` its mean over 1000 shifts with that of x_t among them,
uniform and wrapped normal of 2σ, as published; ``translations`` the exact mean over shifts;
``gibbs32`` 32 states; ``mode`` the best shift and permutation; ``exact`` over both. All get
float32.

Perov-5: 128 crystals. MP-20: 64 that have at most 24 permutations. Carbon-24: 16 of 8 to 24 atoms,
where the mean over the permutations is not to be had: ``gibbs1024`` stands for it, and its own
error is the difference of two of them. Milliseconds are CPU time on one thread for a batch of 128
at mixed σ, the median of three.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Literal

import torch

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows
from orbitwise.crystals.crystal import crystal_batch
from orbitwise.crystals.files.read import read_crystals

SIGMAS = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5)
SEED, ENUMERATED = 0, 24
BATCH = 128  # crystals that are timed
SHIFTS, PROCESS = ow.PeriodicTranslation(), ow.WrappedNormalProcess(min(SIGMAS), max(SIGMAS))
SETS = {  # file, split, crystals, atoms
    "perov5": ("perov5/perov5.npz", "train_dev", 128, (5, 5)),
    "mp20": ("mp20_subset/mp20_subset.npz", "train", 64, (2, 20)),
    "carbon24": ("carbon24/carbon24.npz", "val", 16, (8, 24)),
}


def labels_of(batch) -> torch.Tensor:
    return torch.where(batch.mask, batch.species, -1)


def loaded(name: str, generator: torch.Generator):
    file, split, number, (least, most) = SETS[name]
    crystals = [
        c for c in read_crystals(SHARED / file, split=split).crystals if least <= len(c) <= most
    ]
    batch = crystal_batch(crystals)
    if name != "carbon24":
        small = ow.Permutation(batch.mask.shape[1], labels_of(batch)).log_order < math.log(
            ENUMERATED + 0.5
        )
        batch = batch[small.nonzero().flatten()]
    return batch[torch.randperm(len(batch), generator=generator)[:number]]


def noised(batch, t: torch.Tensor, generator: torch.Generator):
    """A Haar point of every orbit and what noise makes of it."""
    whole = ow.Product(SHIFTS, ow.Permutation(batch.mask.shape[1], labels_of(batch)))
    x1 = whole.act(
        whole.sample(t.shape, generator=generator, dtype=torch.float32), batch.frac, mask=batch.mask
    )
    return x1, PROCESS.perturb(x1, t, generator=generator, mask=batch.mask)


def targets(name: str, batch, generator: torch.Generator) -> dict:
    """Name to ``(x1, x_t, t, mask) -> score``, the reference last."""
    size, labels = batch.mask.shape[1], labels_of(batch)
    chains = ow.Product(SHIFTS, ow.Permutation(size, labels))

    def posterior(group, method="exact", **options):
        options = options | ({} if method in ("exact", "mode") else {"generator": generator})
        return lambda *given: ow.orbit_posterior(group, PROCESS, *given, method, **options).score

    published = {"proposals": 1000, "include_identity": True}
    found = {
        "diffcsp": lambda x1, xt, t, mask: PROCESS.score(xt, x1, t, mask),
        "snis_uniform1000": posterior(SHIFTS, "snis", **published),
        "snis_wrapped1000": posterior(SHIFTS, "snis", **published, proposal_width=2.0),
        "translations": posterior(SHIFTS),
        "mode": posterior(chains, "mode"),
        "gibbs32": posterior(chains, "gibbs", proposals=32),
    }
    if name == "carbon24":
        return found | {"gibbs1024": posterior(chains, "gibbs", proposals=1024)}
    return found | {"exact": posterior(ow.Product(SHIFTS, ow.ItemPermutations.within(labels)))}


def time_of(sigma: float) -> float:
    return math.log(sigma / max(SIGMAS)) / math.log(min(SIGMAS) / max(SIGMAS))


def variances(name: str, batch, generator: torch.Generator) -> list[Row]:
    rows, solvers = [], targets(name, batch, generator)
    reference = list(solvers)[-1]
    count = 3 * batch.atoms.double()
    for sigma in SIGMAS:
        t = torch.full((len(batch),), time_of(sigma))
        x1, xt = noised(batch, t, generator)
        given = (x1, xt, t, batch.mask)
        in_double = (x1.double(), xt.double(), t.double(), batch.mask)
        truth = solvers[reference](*in_double)
        if (
            reference != "exact"
        ):  # of two independent runs, each against the other: twice the error of one
            other = solvers[reference](*in_double)
            found = {reference: (truth - other).square() / 2}
            truth = (truth + other) / 2
        else:
            found = {"exact": (solvers["exact"](*given) - truth).square()}
        found |= {
            key: (solve(*given) - truth).square()
            for key, solve in solvers.items()
            if key != reference
        }
        found["signal"] = truth.square()
        for key, square in found.items():
            each = sigma**2 * square.double().sum((-2, -1)) / count
            what = f"crystal_target.{name}.{key}.variance_sigma_{sigma:g}"
            error = float(each.std() / len(each) ** 0.5)
            rows.append(Row(what, float(each.mean()), error=error, seeds=[SEED]))
    return rows


def timings(name: str, batch, generator: torch.Generator) -> list[Row]:
    batch = batch.repeat(-(-BATCH // len(batch)))[torch.arange(BATCH)]
    t = torch.rand(BATCH, generator=generator)
    given = (*noised(batch, t, generator), t, batch.mask)
    rows = []
    for key, solve in targets(name, batch, generator).items():
        if key == "gibbs1024":
            continue
        solve(*given)
        spans = []
        for _ in range(3):
            start = time.process_time()
            solve(*given)
            spans.append(time.process_time() - start)
        rows.append(Row(f"crystal_target.{name}.{key}.ms", 1e3 * sorted(spans)[1], seeds=[SEED]))
    return rows


def main(names: Sequence[Literal["perov5", "mp20", "carbon24"]] = tuple(SETS)) -> None:
    torch.set_num_threads(1)
    for name in names:
        generator = torch.Generator().manual_seed(SEED)
        batch = loaded(name, generator)
        start = time.process_time()
        rows = variances(name, batch, generator) + timings(name, batch, generator)
        for row in rows:
            row.seconds = time.process_time() - start
        write_rows("crystals", rows)


if __name__ == "__main__":
    benchmark(
        main,
        needs=[SHARED / file for file, *_ in SETS.values()],
        quick={
            "SIGMAS": (0.01, 0.5),
            "BATCH": 4,
            "SETS": {"perov5": ("perov5/perov5.npz", "test", 2, (5, 5))},
            "names": ["perov5"],
        },
    )
