"""MMFF94 against RDKit: largest differences over 240 drug-like molecules, and throughput as machine
code, by torch and by RDKit.

    python -m benchmarks.speed.mmff94          about one minute

Throughput is energy-and-gradient evaluations per second of alanine dipeptide (22 atoms) on one
thread, all in one run, alternating, best of ten; RDKit's loop takes and returns numpy
arrays, as a sampler needs.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, rdForceFieldHelpers

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows
from orbitwise.molecules import MMFF94
from orbitwise.molecules.mmff.compiled import Kernel

DATA = SHARED / "smiles"
SOURCES = ("spice_train", "zinc250k_test")
PER_SOURCE = 125
SCALES = (0.0, 0.05, 0.1, 0.2)  # Å, distortions per coordinate
BATCHES = (1, 16, 64, 128, 1024)
ROUNDS, CALLS = 10, 1000  # evaluations in a round, at least
PEPTIDE = "CC(=O)NC(C)C(=O)NC"


def embedded(smiles: str) -> Chem.Mol | None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    typed = AllChem.EmbedMolecule(
        mol, randomSeed=7
    ) == 0 and rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol)
    return mol if typed else None


def molecules() -> list[Chem.Mol]:
    found = []
    for source in SOURCES:
        with gzip.open(DATA / f"{source}.smi.gz", "rt") as lines:
            every = [line.split()[0] for line in lines if line.strip()]
        found += [embedded(s) for s in every[:: len(every) // PER_SOURCE]]
    return [mol for mol in found if mol is not None]


def rdkit_loop(
    mol: Chem.Mol, variant: str = "MMFF94"
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    mol = Chem.Mol(mol)
    rdForceFieldHelpers.MMFFSanitizeMolecule(
        mol
    )  # without it the typing depends on what was done to mol before
    typing = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, typing, nonBondedThresh=1e6)

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, grad = np.empty(len(x)), np.empty_like(x)
        for k, row in enumerate(x.reshape(len(x), -1)):
            flat = row.tolist()
            value[k] = field.CalcEnergy(flat)
            grad[k] = np.reshape(field.CalcGrad(flat), (-1, 3))
        return value, grad

    return evaluate


def accuracy() -> list[Row]:
    start = time.perf_counter()
    gen = torch.Generator().manual_seed(0)
    worst = {"energy": 0.0, "gradient": 0.0, "energy32": 0.0}
    elements, count, calls = set(), 0, 0
    for mol in molecules():
        base = torch.from_numpy(mol.GetConformer().GetPositions())
        x = torch.stack(
            [base + s * torch.randn(base.shape, generator=gen, dtype=base.dtype) for s in SCALES]
        )
        for variant in ("MMFF94", "MMFF94s"):
            energy = MMFF94(mol, variant=variant)
            expected, slope = map(torch.from_numpy, rdkit_loop(mol, variant)(x.numpy()))
            value, grad = energy.value_and_grad(x)
            single = energy(x[:2].float()).double()
            found = {
                "energy": (value * energy.kcal_per_kT - expected).abs().max(),
                "gradient": (grad * energy.kcal_per_kT - slope).abs().max(),
                "energy32": (single * energy.kcal_per_kT - expected[:2]).abs().max(),
            }
            worst = {key: max(worst[key], float(found[key])) for key in worst}
            calls += len(x)
        elements |= {a.GetSymbol() for a in mol.GetAtoms()}
        count += 1
    note = (
        f"{count} molecules ({', '.join(sorted(elements))}), {len(SCALES)} geometries each, MMFF94"
        " and MMFF94s"
    )
    common = {"seeds": [0], "energy_calls": calls, "seconds": time.perf_counter() - start}
    return [
        Row("mmff94.max_energy_error_kcal", worst["energy"], goal="<= 1e-4", note=note, **common),
        Row(
            "mmff94.max_gradient_error_kcal", worst["gradient"], goal="<= 1e-4", note=note, **common
        ),
        Row(
            "mmff94.max_energy_error_float32_kcal",
            worst["energy32"],
            note=note.replace(
                f"{len(SCALES)} geometries", "the embedded geometry and one distorted by 0.05 Å"
            ),
            **common,
        ),
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
    start = time.perf_counter()
    torch.set_num_threads(1)
    mol = embedded(PEPTIDE)
    base = torch.from_numpy(mol.GetConformer().GetPositions())
    gen = torch.Generator().manual_seed(0)
    x = base + 0.05 * torch.randn(max(BATCHES), *base.shape, generator=gen, dtype=base.dtype)
    energy, loop, first = MMFF94(mol), rdkit_loop(mol), x[:200].numpy()
    jobs = {"rdkit": (lambda: loop(first), len(first))}
    for dtype in (torch.float32, torch.float64):
        for size in BATCHES:
            part = x[:size].to(dtype)
            jobs[f"{size} {dtype}"] = (lambda part=part: energy.value_and_grad(part), size)
            jobs[f"{size} {dtype} torch"] = (lambda part=part: energy._by_torch(part), size)
    found = rates(jobs)
    seconds = time.perf_counter() - start
    note = "alanine dipeptide, energy and gradient, one thread, processor time"
    rows = [Row("mmff94.rdkit_per_s", found["rdkit"], seconds=seconds, note=note)]
    for dtype, suffix in ((torch.float32, ""), (torch.float64, "_float64")):
        for size in BATCHES:
            rate = found[f"{size} {dtype}"]
            name = f"mmff94.b{size}"
            more = f"{note}; {str(dtype).removeprefix('torch.')}"
            goal = "> 30000" if (size, suffix) == (1024, "") else None
            rows.append(Row(f"{name}_per_s{suffix}", rate, goal=goal, seconds=seconds, note=more))
            for other, theirs in (
                ("rdkit", found["rdkit"]),
                ("torch", found[f"{size} {dtype} torch"]),
            ):
                goal = ">= 4" if (size, suffix, other) == (128, "", "torch") else None
                name_over = f"{name}_over_{other}{suffix}"
                rows.append(Row(name_over, rate / theirs, goal=goal, seconds=seconds, note=more))
    return rows


def preparation() -> Row:
    """What the first call of a process takes longer than the later ones."""
    begin = time.perf_counter()
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        Kernel(torch.float32)
        found.append(time.process_time() - start)
    note = "the machine code of float32 energies written and compiled; nothing is kept on disk"
    return Row(
        "mmff94.preparation_seconds",
        float(np.median(found)),
        goal="<= 1",
        seconds=time.perf_counter() - begin,
        note=note,
    )


def main() -> None:
    write_rows("mmff94", [*accuracy(), *throughput(), preparation()])


if __name__ == "__main__":
    benchmark(
        main, needs=[DATA], quick={"PER_SOURCE": 2, "BATCHES": (1, 16), "ROUNDS": 1, "CALLS": 16}
    )
