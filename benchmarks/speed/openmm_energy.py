"""OpenMM Systems in torch against OpenMM itself: largest differences, and energies with forces per
second.

    python -m benchmarks.speed.openmm_energy   under two minutes

Differences are from the Reference platform (double precision), for three peptides in every force
field and solvent. Throughput is that of alanine dipeptide (ff14SB) on one thread: a loop over an
OpenMM Context that takes and returns numpy arrays, as a sampler needs it, on the Reference and the
CPU platform, and torch at batch 1, 64 and 1024. Both sides run in one go, alternating; processor
time, best of the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.molecules import OpenMMEnergy, alanine_peptide

COMBINATIONS = [
    ("ff14SB", "vacuum"),
    ("ff14SB", "obc2"),
    ("ff14SB", "gbn2"),
    ("ff96", "vacuum"),
    ("ff96", "obc"),
    ("charmm36", "vacuum"),
    ("charmm36", "gbn2"),
]
SCALES = (0.0, 0.03, 0.06, 0.1)  # Å, distortions per coordinate
BATCHES = (1, 64, 1024)
RESIDUES = (1, 2, 3)
SOLVENTS = ("vacuum", "obc2", "gbn2")
LOOP = 60  # geometries per round of the loop
ROUNDS, CALLS = 8, 256  # evaluations in a round, at least


def context_loop(system, platform: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """``(B, N, 3)`` nm -> energies in kJ/mol and forces in kJ/mol/nm."""
    import openmm

    properties = {"Threads": "1"} if platform == "CPU" else {}
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen, properties)

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, force = np.empty(len(x)), np.empty_like(x)
        for k, row in enumerate(x):
            context.setPositions(row)
            state = context.getState(getEnergy=True, getForces=True)
            value[k] = state.getPotentialEnergy()._value
            force[k] = state.getForces(asNumpy=True)._value
        return value, force

    return evaluate


def accuracy() -> list[Row]:
    begin, calls = time.perf_counter(), 0
    worst = {"energy": 0.0, "force": 0.0, "energy_float32": 0.0}
    generator = torch.Generator().manual_seed(0)
    for residues in RESIDUES:
        for field, solvent in COMBINATIONS:
            made = alanine_peptide(residues, field, solvent)
            noise = torch.randn(
                len(SCALES), *made.positions.shape[1:], generator=generator, dtype=torch.float64
            )
            x = made.positions + torch.tensor(SCALES, dtype=torch.float64)[:, None, None] * noise
            energy = OpenMMEnergy(made.system)
            expected, force = map(
                torch.from_numpy, context_loop(made.system, "Reference")(x.numpy() / 10)
            )
            value, grad = energy.value_and_grad(x)
            single = energy(x[:3].float()).double()
            found = {
                "energy": (value * energy.kj_per_kT - expected).abs().max(),
                "force": (grad * energy.kj_per_kT * 10 + force).abs().max(),
                "energy_float32": (single * energy.kj_per_kT - expected[:3]).abs().max(),
            }
            worst = {key: max(worst[key], float(found[key])) for key in worst}
            calls += len(x)
    note = "di-, tri- and tetrapeptide; " + ", ".join("/".join(c) for c in COMBINATIONS)
    common = {
        "seeds": [0],
        "energy_calls": calls,
        "seconds": time.perf_counter() - begin,
        "note": note,
    }
    return [
        Row("openmm_torch.max_energy_error_kj", worst["energy"], goal="<= 1e-4", **common),
        Row("openmm_torch.max_force_error_kj_nm", worst["force"], goal="<= 1e-4", **common),
        Row("openmm_torch.max_energy_error_float32_kj", worst["energy_float32"], **common),
    ]


def rates(jobs: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Evaluations per second of each job (function, evaluations per call): processor time, best of
    the rounds."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, (job, size) in jobs.items():
            repeats = max(1, CALLS // size)
            start = time.process_time()
            for _ in range(repeats):
                job()
            best[name] = min(best[name], (time.process_time() - start) / (repeats * size))
    return {name: 1.0 / seconds for name, seconds in best.items()}


def throughput() -> list[Row]:
    begin = time.perf_counter()
    jobs = {}
    for solvent in SOLVENTS:
        made = alanine_peptide(1, "ff14SB", solvent)
        energy, base = OpenMMEnergy(made.system), made.positions
        noise = torch.randn(
            max(BATCHES), *base.shape[1:], generator=torch.Generator().manual_seed(0)
        )
        x = base + 0.05 * noise.double()
        for platform in ("Reference", "CPU"):
            loop, some = context_loop(made.system, platform), x[:LOOP].numpy() / 10
            jobs[f"{solvent}.{platform}"] = (lambda loop=loop, some=some: loop(some), LOOP)
        for dtype in (torch.float32, torch.float64):
            for size in BATCHES:
                part = x[:size].to(dtype)
                jobs[f"{solvent}.{size}.{dtype}"] = (
                    lambda e=energy, part=part: e.value_and_grad(part),
                    size,
                )
    found = rates(jobs)
    seconds = time.perf_counter() - begin
    rows = []
    for solvent in SOLVENTS:
        name, loops = f"openmm.dipeptide_{solvent}", {}
        for platform in ("Reference", "CPU"):
            loops[platform] = found[f"{solvent}.{platform}"]
            note = f"loop over a Context of the {platform} platform, one thread, processor time"
            rows.append(
                Row(f"{name}.{platform.lower()}_per_s", loops[platform], seconds=seconds, note=note)
            )
        fastest = max(loops, key=loops.get)
        for dtype, suffix in ((torch.float32, ""), (torch.float64, "_float64")):
            for size in BATCHES:
                rate = found[f"{solvent}.{size}.{dtype}"]
                kind = str(dtype).removeprefix("torch.")
                note = f"{kind}, energy and forces, one thread, processor time"
                rows.append(Row(f"{name}.b{size}_per_s{suffix}", rate, seconds=seconds, note=note))
                note = f"{kind} over the faster loop ({fastest} platform)"
                rows.append(
                    Row(
                        f"{name}.speedup_b{size}{suffix}",
                        rate / loops[fastest],
                        seconds=seconds,
                        note=note,
                    )
                )
    largest = max(BATCHES)
    value = {row.what: row.value for row in rows}[f"openmm.dipeptide_obc2.speedup_b{largest}"]
    note = "alanine dipeptide, ff14SB + OBC2, float32, over the faster Context loop"
    return [*rows, Row(f"openmm_torch.b{largest}_over_openmm", value, seconds=seconds, note=note)]


def main() -> None:
    torch.set_num_threads(1)
    write_rows("openmm", accuracy() + throughput())


if __name__ == "__main__":
    benchmark(
        main,
        needs=["openmm"],
        quick={
            "COMBINATIONS": [("ff14SB", "vacuum"), ("ff96", "obc")],
            "RESIDUES": (1,),
            "SOLVENTS": ("obc2",),
            "BATCHES": (1, 8),
            "LOOP": 2,
            "ROUNDS": 1,
            "CALLS": 8,
        },
    )
