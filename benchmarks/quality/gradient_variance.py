"""Theorem 1 on real data: how noisy the training gradient is with each denoising target (rMD17).

    python -m benchmarks.quality.gradient_variance

For a fixed noise level σ/α the gradient of one item's loss with respect to the weights is J(x_t)ᵀ c
(D − y). All targets y are pulled back through the same J at the same x_t (same molecule, pose and
noise), one vector- Jacobian product each, so their differences carry no other noise. With G_T the
gradient of target T:

    variance   tr Cov(G_T), everything included: data, noise, symmetry
    removed    E|G_aug − G_exact|² = E tr Cov(G_aug | x_t, orbit), the part Theorem 1 takes away.
               Its share of tr Cov(G_aug) (``symmetry_share``) and exact/augmentation must add up to
               1: measured apart
    left       E|G_T − G_exact|² / removed: the symmetry's noise (aligned: the error) that target T
    keeps bias²      |E(G_T − G_exact)|², the noise of the mean subtracted, in units of tr
    Cov(G_exact): from batches
               of 1/bias² items on, the bias is larger than the noise of the gradient

Errors are jackknife errors over blocks of items.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, commit_id, device_name, write_rows
from orbitwise.data.batch import PointBatch
from orbitwise.molecules.bonds import perceive_bonds
from orbitwise.molecules.molecule import to_batch
from orbitwise.networks.points.egnn import EGNN
from orbitwise.networks.points.transformer import PointTransformer
from orbitwise.objectives.denoiser import Denoiser, Preconditioning, coordinate_scale
from orbitwise.objectives.denoising import Denoising

DATA = SHARED / "rmd17"
RATIOS = (0.1, 0.3, 1.0, 3.0)  # σ/α in Å
NETWORKS = {"egnn": EGNN, "transformer": PointTransformer}
TARGETS = ("augmentation", "exact", "aligned", "snis16", "snis256", "haar256")
BLOCK, BLOCKS = 16, 12  # items per block, and per call
STEPS = 300  # of training
SEED = 0


@dataclass(frozen=True)
class Case:
    """A molecule with the group whose noise is to be removed."""

    name: str
    batch: PointBatch
    group: ow.groups.base.Group
    scale: float


def cases() -> list[Case]:
    """Ethanol with rotations and with its automorphisms (the three methyl hydrogens), aspirin with
    rotations."""
    found = []
    for molecule in ("ethanol", "aspirin"):
        raw = np.load(DATA / f"{molecule}.npz")
        x = raw["positions"] - raw["positions"].mean(1, keepdims=True)
        mol = perceive_bonds(raw["atomic_numbers"], x[:200]).mol
        batch = to_batch(mol, x)
        scale = coordinate_scale(batch.x)
        found.append(Case(molecule, batch, ow.SO3(), scale))
        if molecule == "ethanol":
            both = ow.Product(ow.SO3(), ow.Automorphism.from_mol(mol, positions=x[0]))
            found.append(Case("ethanol_automorphisms", batch, both, scale))
    return found


PROCESS = ow.GaussianProcess.flow(zero_com=True)


def targets(case: Case, batch: PointBatch, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """``x_t (B, N, 3)`` and one target per name in TARGETS ``(T, B, N, 3)``, on common random
    numbers."""

    def made(target: str, proposals: int = 1) -> tuple[Tensor, Tensor]:
        objective = Denoising(PROCESS, case.group, target, proposals)
        return objective.pair(batch.x, t, batch.mask, torch.Generator().manual_seed(seed))

    pairs = [made(name) for name in TARGETS[:3]] + [made("snis", 16), made("snis", 256)]
    xt = pairs[0][0]
    assert all(torch.equal(xt, other) for other, _ in pairs)
    haar = ow.orbit_posterior(  # without the point that made x_t among the proposals
        case.group,
        PROCESS,
        batch.x,
        xt,
        t,
        batch.mask,
        "snis",
        proposals=256,
        generator=torch.Generator().manual_seed(seed + 10**6),
    )
    return xt, torch.stack([y for _, y in pairs] + [haar.mean])


def block_gradients(
    denoiser: Denoiser, batch: PointBatch, t: Tensor, xt: Tensor, ys: Tensor
) -> Tensor:
    """Per-item gradients ``(B, T, P)`` of the weighted squared loss for the targets ``ys (T, B, N,
    3)``."""
    params = {k: p.detach() for k, p in denoiser.named_parameters()}
    weight = Preconditioning.of(PROCESS, t, denoiser.data_scale).weight

    def one(
        x: Tensor, time: Tensor, species: Tensor, bonds: Tensor, mask: Tensor, y: Tensor, w: Tensor
    ):
        item = PointBatch(x[None], species[None], bonds[None], mask[None])
        d, pull = vjp(
            lambda p: functional_call(denoiser, p, (x[None], time[None], item))[0], params
        )
        residual = 2 * w * (d - y) * mask[:, None] / (3 * mask.sum())  # (T, N, 3)
        (grads,) = vmap(pull)(residual)
        return torch.cat([g.flatten(1) for g in grads.values()], 1)

    return vmap(one, in_dims=(0, 0, 0, 0, 0, 1, 0))(
        xt, t, batch.species, batch.bonds, batch.mask, ys, weight
    )


@dataclass(frozen=True)
class Sums:
    """What the statistics need, block by block: Gram matrices of block sums, and sums of
    squares."""

    gram: Tensor  # (T, R, R) of Σ G_T
    square: Tensor  # (T, R) of Σ |G_T|²
    gap_gram: Tensor  # (T, R, R) of Σ (G_T − G_exact)
    gap_square: Tensor  # (T, R)

    def statistics(self, keep: Tensor) -> dict[str, Tensor]:
        """Each ``(T,)``, from the blocks ``keep: (R,)`` of BLOCK items each."""
        n = BLOCK * keep.sum()
        square, gap = self.square @ keep, self.gap_square @ keep
        mean_square = (keep @ self.gram @ keep - square) / (n * (n - 1))  # unbiased |E G|²
        gap_mean_square = (keep @ self.gap_gram @ keep - gap) / (n * (n - 1))
        variance = square / n - mean_square
        exact = variance[TARGETS.index("exact")]
        return {
            "over_augmentation": variance / variance[0],
            "symmetry_noise_left": gap / gap[0],
            "bias2_over_exact_variance": gap_mean_square / exact,
            "removed_share": (gap / n) / variance,
        }

    def with_errors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Values and jackknife standard errors over the blocks."""
        blocks = self.square.shape[1]
        whole = torch.ones(blocks, dtype=torch.float64)
        value = self.statistics(whole)
        without = [
            self.statistics(whole - torch.eye(blocks, dtype=torch.float64)[r])
            for r in range(blocks)
        ]
        out = {}
        for key in value:
            spread = torch.stack([s[key] for s in without])
            error = ((blocks - 1) / blocks * (spread - spread.mean(0)).square().sum(0)).sqrt()
            out[key] = (value[key], error)
        return out


def measure(case: Case, denoiser: Denoiser, ratio: float, blocks: int) -> Sums:
    """``blocks`` blocks of BLOCK items at the noise level σ/α = ``ratio`` Å."""
    generator = torch.Generator().manual_seed(SEED)
    sums, square, gaps, gap_square = [], [], [], []
    for r in range(blocks):
        index = torch.randint(len(case.batch), (BLOCK,), generator=generator)
        t = torch.full((BLOCK,), 1 / (1 + ratio))
        batch = case.batch[index]
        xt, ys = targets(case, batch, t, seed=SEED + 1 + r)
        g = block_gradients(denoiser, batch, t, xt, ys)
        sums.append(g.sum(0))
        square.append(torch.linalg.vector_norm(g, dim=-1).double().square().sum(0))
        gap = g.sub_(g[:, [TARGETS.index("exact")]])
        gaps.append(gap.sum(0))
        gap_square.append(torch.linalg.vector_norm(gap, dim=-1).double().square().sum(0))
    s, d = torch.stack(sums, 1).double(), torch.stack(gaps, 1).double()
    return Sums(s @ s.mT, torch.stack(square, 1), d @ d.mT, torch.stack(gap_square, 1))


def fit(case: Case, denoiser: Denoiser, steps: int) -> None:
    """Brief training with the exact target, so that the gradient is no longer dominated by its
    mean."""
    objective = Denoising(PROCESS, case.group, "exact")
    generator = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = case.batch[torch.randint(len(case.batch), (64,), generator=generator)]
        loss = objective(denoiser, batch, generator).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def main() -> None:
    device, commit = device_name(), commit_id()
    rows = []
    for case in cases():
        for network, build in NETWORKS.items():
            with torch.random.fork_rng():
                torch.manual_seed(SEED)
                denoiser = Denoiser(build(), PROCESS, case.scale)
            for state in ("init", "trained"):
                begin = time.perf_counter()
                if state == "trained":
                    fit(case, denoiser, STEPS)
                print(
                    case.name,
                    network,
                    state,
                    f"fit {time.perf_counter() - begin:.1f} s",
                    flush=True,
                )
                for ratio in RATIOS:
                    begin = time.perf_counter()
                    stats = measure(case, denoiser, ratio, BLOCKS).with_errors()
                    seconds = time.perf_counter() - begin
                    where = f"{network}.{state}.sigma{ratio:g}"

                    def row(
                        figure: str,
                        key: str,
                        target: str,
                        where=where,
                        seconds=seconds,
                        stats=stats,
                    ):
                        value, error = (v[TARGETS.index(target)].item() for v in stats[key])
                        what = f"gradient_variance.{case.name}.{figure}.{where}"  # noqa: B023
                        return Row(
                            what,
                            value,
                            error,
                            seeds=[SEED],
                            seconds=seconds,
                            device=device,
                            commit=commit,
                        )

                    rows.append(row("symmetry_share", "removed_share", "augmentation"))
                    for target in TARGETS[1:]:
                        ratio_row = row(f"{target}_over_augmentation", "over_augmentation", target)
                        ratio_row.goal = "< 1" if target == "exact" else None
                        rows.append(ratio_row)
                    for target in TARGETS[2:]:
                        rows.append(
                            row(f"{target}_symmetry_noise_left", "symmetry_noise_left", target)
                        )
                        rows.append(row(f"{target}_bias2", "bias2_over_exact_variance", target))
    write_rows("gradient_variance", rows)


if __name__ == "__main__":
    benchmark(main, needs=[DATA], quick={"RATIOS": (1.0,), "BLOCK": 2, "BLOCKS": 3, "STEPS": 2})
