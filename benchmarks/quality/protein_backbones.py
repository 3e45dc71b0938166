"""Protein backbones on small PDB chains (at most 64 residues): geometry, structure, diversity and
novelty of samples.

    python -m benchmarks.quality.protein_backbones train ca exact          # repeat to resume
    python -m benchmarks.quality.protein_backbones judge ca exact          # draws and evaluates

The preset ``protein_backbones/MODE`` with one of the targets; everything else, seed included, is
the same. Chains of the split "train" are trained on, those of "val" are held out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED, kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.proteins import backbones as method
from orbitwise.proteins.chain import ATOMS, chain_batch
from orbitwise.proteins.judge import Mean, ProteinVerdict
from orbitwise.runs.config import load
from orbitwise.training.checkpoint import NAME, load_weights, read_checkpoint

DATA = SHARED / "protein_small_chains" / "protein_small_chains.npz"
SETTINGS: list[str] = []
SAMPLES = 128
DRAWS = 40  # of noise per held-out chain, for the loss


def configuration(mode: str, target: str):
    return load(f"protein_backbones/{mode}", [f"data={DATA}", f"target={target}", *SETTINGS])


def rows(verdict: ProteinVerdict, prefix: str, held: str, note: str, seconds: float) -> list[Row]:
    """The figures of one run, and those of the held-out chains by themselves."""
    s, h = verdict.samples, verdict.held_out

    def row(name: str, value: float, error: float | None = None, of: str = prefix) -> Row:
        error = None if error is None or not math.isfinite(error) else error
        return Row(
            f"{of}.{name}",
            value,
            error,
            seeds=[0],
            seconds=seconds if of == prefix else None,
            note=note,
        )

    def mean(name: str, value: Mean, of: str = prefix) -> list[Row]:
        return [row(name, value.value, value.error, of)] if value.count else []

    found = [
        row("nfe", verdict.evaluations),
        row("size_w1", verdict.size_w1),
        row("size_w1", verdict.size_halves, of=held),
    ]
    for g in verdict.geometry:
        unit = "angstrom" if g.unit == "Å" else "degrees"
        found += [
            row(f"{g.name}_w1_{unit}", g.w1, g.w1_error),
            row(f"{g.name}_w1_{unit}", g.w1_halves, of=held),
            row(f"{g.name}_w1_training_{unit}", g.w1_training, of=held),
        ]
    bond = verdict.geometry[0]
    found += [
        row("ca_ca_spread_angstrom", bond.spread),
        row("ca_ca_spread_angstrom", bond.held_out_spread, of=held),
    ]
    for own, of in ((s, prefix), (h, held)):
        found += [
            *mean("clashes_per_100_residues", own.clashes, of),
            *mean("clash_free_share", own.clean, of),
            *mean("helix_share", own.helix, of),
            *mean("strand_share", own.strand, of),
        ]
        if own.turns:
            share = own.right
            found.append(
                row("right_handed_share", share, math.sqrt(share * (1 - share) / own.turns), of)
            )
    found += mean(
        "log_size_excess", s.size
    )  # that of the held-out chains, which the law is fitted to, is 0
    found += mean("diversity_tm", verdict.diversity) + mean(
        "diversity_tm", verdict.diversity_training, held
    )
    found += mean("nearest_training_tm", verdict.novelty) + mean(
        "nearest_training_tm", verdict.novelty_held_out, held
    )
    return found


def held_out_loss(run: Path, mode: str) -> tuple[float, float]:
    """Loss of the averaged weights on held-out chains against the exact target, the same noise for
    every run; its error is over chains."""
    made = method.parts(configuration(mode, "exact"))
    load_weights(run / NAME, made.denoiser)
    chains = chain_batch(made.data.held_out)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = torch.stack(
            [made.objective(made.denoiser, chains, generator) for _ in range(DRAWS)]
        )
    of_chains = losses.mean(0)
    return float(of_chains.mean()), float(of_chains.std() / len(of_chains) ** 0.5)


def judged(run: Path, mode: str, target: str) -> None:
    saved, config = read_checkpoint(run / NAME), configuration(mode, target)
    if saved.step < config.train.steps:
        raise SystemExit(f"{run}: the training stands at step {saved.step} of {config.train.steps}")
    method.train(
        config, run
    )  # nothing is left to train: the preset's settings of sampling are taken over
    method.sample(run, n=SAMPLES, seed=0)
    verdict = method.evaluate(run).result.verdict
    parameters = method.plan(config).parameters
    note = (
        f"{mode}, chains of {config.shortest} to {config.longest} residues,"
        f" {verdict.samples.chains} samples beside {verdict.held_out.chains} held-out chains;"
        f" {parameters:,} parameters, {saved.step} steps of {config.train.batch_size},"
        f" {verdict.evaluations} network calls per sample; helix by P-SEA; TM to training chains"
        " gapless (a lower bound)"
    )
    held = f"proteins.held_out.{mode}"
    prefix = f"proteins.{mode}.{target}"
    loss = Row(
        f"{prefix}.held_out_loss",
        *held_out_loss(run, mode),
        seeds=[0],
        seconds=saved.seconds,
        note=note,
    )
    write_rows("proteins", [*rows(verdict, prefix, held, note, saved.seconds), loss])


def main(
    what: Literal["train", "judge"] | None = None,
    mode: Literal["ca", "backbone"] | None = None,
    target: Literal["exact", "augmentation", "aligned", "snis"] = "exact",
    *,
    runs: Path | None = None,
) -> None:
    """Both steps and both modes when none is given."""
    for each in [mode] if mode else ATOMS:
        run = (runs or kept("runs/protein_backbones")) / f"{each}_{target}"
        if what != "judge":
            print(*method.train(configuration(each, target), run).lines, sep="\n")
        if what != "train":
            judged(run, each, target)


if __name__ == "__main__":
    benchmark(
        main,
        needs=[DATA],
        quick={"SAMPLES": 4, "DRAWS": 1, "SETTINGS": ["train.steps=3", "longest=30"], "mode": "ca"},
    )
