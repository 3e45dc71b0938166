"""Integrated autocorrelation time of torsions in the replica exchange of `orbitwise conformers`,
in energy calls, with and without proposals from fitted von Mises mixtures.

    python -m benchmarks.quality.torsion_moves [NAME ...] [--calls N] [--seeds N]

For each molecule (MMFF94, 300 K, 16 chains a temperature): quenched embeddings, warm-up, and
frames of all temperatures from HMC and torsion moves, as in the search of the command; mixtures are
fitted to these frames. Then, from the same state and with equally many energy calls per chain,
three cycles: HMC + one torsion move (the default), HMC + five torsion moves, HMC + one torsion move
+ four mixture moves. The figure of a cycle is the largest statistical inefficiency of sine and
cosine of any torsion at 300 K, times the calls of a step; the ratio is to the default.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import build_system
from orbitwise.methods.conformers.system import System
from orbitwise.metrics.mixing import split_rhat, statistical_inefficiency
from orbitwise.molecules import KeepStereo, MixtureMove, Rotors, Stereo, TorsionMove, embed
from orbitwise.search import HMC, Cycle, ReplicaExchange, geometric_ladder, run, warmup
from orbitwise.search.quench import minimise
from orbitwise.search.tempering import ReplicaState

MOLECULES = {
    "pentane": "CCCCC",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "sildenafil": "CCCc1nn(C)c2c1nc([nH]c2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1",
}
CHAINS, LEAPFROG, FRAMES = 16, 8, 400
CYCLES = {"default": (1, 0), "torsions": (5, 0), "mixtures": (1, 4)}


class Bench:
    """One molecule and seed up to the fit."""

    def __init__(self, system: System, seed: int) -> None:
        self.system, self.seed, mol = system, seed, system.mol
        self.betas = geometric_ladder(system.temperature, system.hottest, system.rungs())
        generator = system.generator(seed)
        starts = torch.as_tensor(embed(mol, CHAINS, seed), dtype=system.dtype)
        self.stereo, self.rotors = Stereo.from_mol(mol, starts[0]), Rotors.from_mol(mol)
        starts = minimise(starts, system.energy, tolerance=5.0, max_steps=100).x
        starts = starts - starts.mean(-2, keepdim=True)

        kernel = ReplicaExchange(system.kernel(self.stereo, LEAPFROG), self.betas)
        x = starts.expand(len(self.betas), *starts.shape).contiguous()
        state = warmup(
            kernel, kernel.init(x, system.energy), system.energy, FRAMES // 2, generator=generator
        )
        state, angles = self.torsions(kernel, state, FRAMES, generator, slice(None))
        self.state: ReplicaState = state
        self.mixtures = MixtureMove.from_angles(self.rotors, angles, seed=seed)

    def torsions(
        self,
        kernel: ReplicaExchange,
        state: ReplicaState,
        steps: int,
        generator: torch.Generator,
        row: int | slice,
    ) -> tuple[ReplicaState, torch.Tensor]:
        """The state after ``steps`` and the torsions on the way, ``(steps, ..., R)``."""
        kept: list[torch.Tensor] = []

        def observe(n: int, state: ReplicaState, info: object) -> None:
            kept.append(self.rotors.angles(state.x[row]))

        trace = run(
            kernel,
            state,
            self.system.energy,
            steps,
            generator=generator,
            thin=steps + 1,
            observe=observe,
        )
        return trace.state, torch.stack(kept)

    def calls_per_draw(self, torsion: int, mixture: int, calls: int) -> tuple[float, float]:
        """Energy calls per chain and independent draw of the slowest torsion; R̂."""
        moves = [HMC(0.015, LEAPFROG, jitter=0.2), TorsionMove.from_mol(self.system.mol)]
        repeats = [1, torsion]
        if mixture:
            moves, repeats = [*moves, self.mixtures], [*repeats, mixture]
        cycle = Cycle(tuple(KeepStereo(m, self.stereo) for m in moves), tuple(repeats))
        kernel = ReplicaExchange(cycle, self.betas)
        state = kernel.init(self.state.x, self.system.energy)
        state = replace(state, step_size=self.state.step_size)
        cost = LEAPFROG + torsion + mixture
        generator = self.system.generator(self.seed + 100)
        _, angles = self.torsions(kernel, state, calls // cost, generator, 0)
        arms = torch.stack([angles.sin(), angles.cos()], -1).transpose(0, 1)  # (C, steps, R, 2)
        return float(statistical_inefficiency(arms).max()) * cost, float(split_rhat(arms).max())


def main(
    names: Sequence[str] = tuple(MOLECULES),
    *,
    calls: int = 12_000,
    seeds: int = 3,
) -> None:
    for name in names:
        begin = time.monotonic()
        found: dict[str, list[float]] = {kind: [] for kind in CYCLES}
        system, _ = build_system(ConformersConfig(smiles=MOLECULES[name]))
        rhat = 0.0
        for seed in range(seeds):
            bench = Bench(system, seed)
            for kind, (torsion, mixture) in CYCLES.items():
                value, mixed = bench.calls_per_draw(torsion, mixture, calls)
                found[kind].append(value)
                rhat = max(rhat, mixed)
                print(f"{name}, seed {seed}, {kind}: {value:.0f} calls a draw, R-hat {mixed:.3f}")

        values = {kind: torch.tensor(v, dtype=torch.float64) for kind, v in found.items()}
        common = {
            "seeds": list(range(seeds)),
            "energy_calls": sum(c.energy for c in system.energy.counts.values()),
            "seconds": round(time.monotonic() - begin, 1),
        }
        note = f"{calls} calls a chain and cycle, largest R-hat {rhat:.3f}"
        rows = []
        for kind, what in (("mixtures", "ratio"), ("torsions", "ratio_more_torsion_moves")):
            ratio = values[kind] / values["default"]
            rows.append(
                Row(
                    f"von_mises.torsion_autocorrelation_{what}.{name}",
                    float(ratio.mean()),
                    error=float(ratio.std() / seeds**0.5) if seeds > 1 else None,
                    goal="<= 0.5" if kind == "mixtures" else None,
                    note=f"{note}; {float(values[kind].mean()):.0f} against"
                    f" {float(values['default'].mean()):.0f} calls a draw",
                    **common,
                )
            )
        write_rows("conformers", rows)


if __name__ == "__main__":
    quick = {"CHAINS": 4, "FRAMES": 20, "names": ["pentane"], "calls": 200, "seeds": 1}
    benchmark(main, quick=quick)
