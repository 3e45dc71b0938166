"""What the exact posterior costs where others train: mixed groups, large groups, many points, and
beside the step of a published crystal network.

    python -m benchmarks.speed.posterior_in_loops          about five minutes

``mixed_orders_over_split``: 64 items of 10 points, one with 5,040 permutations and 63 with one,
over the two kinds in calls of their own. ``aut_1296_over_so3``: SO(3) times the 1,296 automorphisms
of tert-butanol over SO(3) alone, ETKDG conformers, noise of the training of ``orbit_diffusion``
(times of each batch stratified over the whole interval); ``.batchB`` and ``.tT``: other batches,
one time. ``n1000_over_svd``: the mean for clouds of 1,000 points over an alignment by SVD of the
same float32 points, without centring. ``peer_step_share``: of a training step of a CSPNet of
published size (512 wide, 6 layers: DiffCSP), crystals of MP-20, what the exact target over
translations, and over permutations where there are at most 24, adds to noising alone;
``.translations``: over these alone; ``.gibbs``: with chains over the permutations of the other
crystals, which are no exact target. Processor time of one thread, the median of rounds in which all
take turns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows
from orbitwise.crystals.crystal import crystal_batch
from orbitwise.crystals.files.read import read_crystals
from orbitwise.methods.crystals.structure import CrystalStructureConfig, objective
from orbitwise.molecules.molecule import embed
from orbitwise.objectives import Denoising
from orbitwise.runs.config import load

CRYSTALS = SHARED / "mp20_subset" / "mp20_subset.npz"
ROUNDS = 15
BATCHES = (8, 64)  # the row is of the first
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
HIDDEN, LAYERS, PEER_BATCH = 512, 6, 16
FLOW = ow.GaussianProcess.flow(zero_com=True)


def medians(*jobs: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Processor seconds of each job over those of the first: median of the rounds, and its standard
    error from the quartiles."""
    taken = []
    for turn in range(rounds + 1):
        seconds = []
        for job in jobs:
            start = time.process_time()
            job()
            seconds.append(time.process_time() - start)
        if turn:  # the first round warms up
            taken.append([s / seconds[0] for s in seconds])
    low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75], axis=0)
    errors = 1.25 * (high - low) / 1.35 / math.sqrt(rounds)
    return list(zip(middle.tolist(), errors.tolist(), strict=True))


def mixed_orders() -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(64, 1)
    labels[17, :7] = 0
    group = ow.ItemPermutations.within(labels)
    x1 = torch.randn(64, 10, 3, generator=generator)
    t = torch.rand(64, generator=generator)
    xt = FLOW.perturb(x1, t, generator=generator)
    few = torch.tensor([17])
    many = torch.tensor([i for i in range(64) if i != 17])

    def solve(own: ow.ItemPermutations, of: Tensor | slice, rotations: bool) -> Tensor:
        whole = ow.Product(ow.SO3(), own) if rotations else own
        return ow.orbit_posterior(whole, FLOW, x1[of], xt[of], t[of]).mean

    rows = []
    for name, rotations in (("mixed_orders_over_split", False), ("mixed_orders_so3", True)):

        def split(rotations=rotations) -> None:
            solve(group[few], few, rotations)
            solve(group[many], many, rotations)

        def whole(rotations=rotations) -> None:
            solve(group, slice(None), rotations)

        _, ratio = medians(split, whole, rounds=ROUNDS)
        rows.append(Row(f"posterior.{name}", *ratio, goal="<= 1.3", seeds=[0]))
    return rows


def automorphisms() -> list[Row]:
    mol = Chem.AddHs(Chem.MolFromSmiles("CC(C)(C)O"))
    group = ow.Automorphism.from_mol(mol)
    assert group.order == 1296
    x = torch.as_tensor(embed(mol, 8, seed=0), dtype=torch.float32)
    x = x - x.mean(-2, keepdim=True)
    scale = x.square().mean().sqrt()
    objective = Denoising(FLOW, ow.SO3())
    generator = torch.Generator().manual_seed(0)

    def cost(batch: int, t: Tensor) -> tuple[float, float]:
        x1 = x[torch.arange(batch) % len(x)] / scale
        xt = FLOW.perturb(x1, t.float(), generator=generator)
        both = ow.Product(ow.SO3(), group)
        jobs = [lambda g=g: ow.orbit_posterior(g, FLOW, x1, xt, t).mean for g in (ow.SO3(), both)]
        return medians(*jobs, rounds=ROUNDS)[1]

    rows = []
    for batch in BATCHES:
        t = objective.draw_times(batch, torch.ones(()), generator)
        name = "" if batch == BATCHES[0] else f".batch{batch}"
        row = Row(f"posterior.aut_1296_over_so3{name}", *cost(batch, t), seeds=[0])
        row.goal = "<= 20" if batch == BATCHES[0] else None
        rows.append(row)
    for t in TIMES:
        ratio = cost(BATCHES[0], torch.full((BATCHES[0],), t))
        rows.append(Row(f"posterior.aut_1296_over_so3.t{t:g}", *ratio, seeds=[0]))
    return rows


def thousand_points() -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    process = ow.GaussianProcess.flow()
    x1 = 3 * torch.randn(64, 1000, 3, generator=generator)
    t = torch.rand(64, generator=generator)
    xt = process.perturb(x1, t, generator=generator)

    def aligned() -> Tensor:
        U, _, Vh = torch.linalg.svd(xt.mT @ x1)
        sign = torch.linalg.det(U @ Vh)
        U = torch.cat([U[..., :2], U[..., 2:] * sign[:, None, None]], -1)
        return x1 @ (U @ Vh).mT

    def ours(check: bool = True) -> Tensor:
        return ow.orbit_posterior(ow.SO3(), process, x1, xt, t, check=check).mean

    _, checked, unchecked = medians(aligned, ours, lambda: ours(False), rounds=4 * ROUNDS)
    return [
        Row("posterior.n1000_over_svd", *checked, goal="<= 4", seeds=[0]),
        Row("posterior.n1000_over_svd.unchecked", *unchecked, seeds=[0]),
    ]


def peer_step() -> list[Row]:
    size = [f"model.hidden={HIDDEN}", f"model.layers={LAYERS}", f"data={CRYSTALS}"]
    config = load("crystal_structure/mp20_subset", size)
    assert isinstance(config, CrystalStructureConfig)
    crystals = read_crystals(CRYSTALS, max_atoms=20).crystals[: 16 * PEER_BATCH : 16]
    batch = crystal_batch(crystals)
    denoiser = config.network.denoiser(torch.zeros(6), torch.ones(6))
    optimiser = torch.optim.Adam(denoiser.parameters(), 1e-4)
    generator = torch.Generator().manual_seed(0)
    changes = {
        "": {"target": "exact", "beyond": "translations"},
        ".translations": {"target": "translations"},
        ".gibbs": {"target": "exact", "beyond": "gibbs"},
        ".augmentation": {"target": "augmentation"},
    }
    targets = {k: objective(config.model_copy(update=change)) for k, change in changes.items()}

    def step() -> None:
        optimiser.zero_grad()
        targets[".translations"](denoiser, batch, generator).mean().backward()
        optimiser.step()

    t = torch.linspace(0.02, 0.98, len(crystals))
    jobs = [lambda one=one: one.pair(batch, t, generator) for one in targets.values()]
    _, *shares = medians(step, *jobs, rounds=min(ROUNDS, 7))
    noising, noising_error = shares.pop()
    note = f"batch {len(crystals)}, {int(batch.mask.sum(-1).max())} atoms at most"
    rows = []
    for name, (share, error) in zip(targets, shares, strict=False):
        row = Row(f"posterior.peer_step_share{name}", share - noising, note=note, seeds=[0])
        row.error = math.hypot(error, noising_error)
        row.goal = None if name == ".gibbs" else "<= 0.02"
        rows.append(row)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    for part in (mixed_orders, automorphisms, thousand_points, peer_step):
        write_rows("library", part())


if __name__ == "__main__":
    benchmark(
        main,
        needs=[CRYSTALS],
        quick={
            "ROUNDS": 2,
            "BATCHES": (2,),
            "TIMES": (0.5,),
            "HIDDEN": 16,
            "LAYERS": 1,
            "PEER_BATCH": 2,
        },
    )
