"""Conformer energies against density-functional theory: AIMNet2, GFN2-xTB and MMFF94.

    python -m benchmarks.quality.dft_energies          about five minutes

For molecules of the OpenFF set that nothing was trained on here (its test split): the energies of
their conformers, B3LYP-D3BJ/DZVP minima, relative to one another, and how far above the best
conformer the one is that a method thinks best; of all sizes, and of at most 40 atoms. Errors are
over molecules (bootstrap). AIMNet2 was fitted to ωB97M-D3BJ with a larger basis, so that a part of
its deviation is the reference's own. Then how much a batch of geometries gains over one after the
other. Reads ../shared/data.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from rdkit import Chem

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import SHARED
from benchmarks.tools.rows import Row, write_rows
from orbitwise.errors import OrbitwiseError
from orbitwise.methods.conformers.energy import build_energy
from orbitwise.molecules.files.conformers import npz_records
from orbitwise.molecules.molecule import embed, parse_smiles
from orbitwise.units import KCAL_PER_MOL_K

DATA = SHARED / "openff_conformers" / "openff_conformers.npz"
METHODS = ("aimnet2", "xtb", "mmff94")
MOLECULES, SMALL, SEED, BOOTSTRAP = 40, 40, 0, 2000  # SMALL: atoms, hydrogens counted
PEPTIDE, BATCH, ROUNDS = "CC(=O)N[C@@H](C)C(=O)NC", 64, 9
TEMPERATURE = 300.0
GOALS = {"aimnet2.loss": "<= 0.15"}


def held_out() -> list[tuple[Chem.Mol, torch.Tensor, np.ndarray]]:
    """Molecules of the test split, their conformers ``(C, N, 3)`` and energies ``(C,)`` in
    kcal/mol."""
    with np.load(DATA) as file:
        test = np.flatnonzero(file["split"] == "test")
        energy, offsets = file["relative_energy_kcal"], file["conformer_offsets"]
    found = []
    for i, record in zip(test, npz_records(DATA, ["test"], None), strict=True):
        mol = record.mol.build(record.smiles)
        Chem.SanitizeMol(mol)
        x = torch.as_tensor(record.positions, dtype=torch.float64)
        found.append((mol, x, energy[offsets[i] : offsets[i + 1]]))
    return found


def compared(largest: int | None) -> Iterator[dict[str, tuple[float, float]]]:
    """Of each molecule and method: root mean square deviation from the reference up to a constant,
    and the reference energy of the conformer it thinks best above the lowest, in kcal/mol."""
    molecules = held_out()
    order = np.random.default_rng(SEED).permutation(len(molecules))
    drawn = [molecules[k] for k in order]
    done = 0
    for mol, x, reference in drawn:
        if done == MOLECULES:
            return
        if largest is not None and mol.GetNumAtoms() > largest:
            continue
        try:
            energies = {name: build_energy(mol, name, TEMPERATURE) for name in METHODS}
        except OrbitwiseError as error:  # an element or a type that one of them does not know
            print(f"left out: {error}")
            continue
        found = {}
        for name, energy in energies.items():
            kcal = KCAL_PER_MOL_K * TEMPERATURE * energy(x).numpy()
            off = (kcal - kcal.mean()) - (reference - reference.mean())
            loss = float(reference[kcal.argmin()] - reference.min())
            found[name] = float(np.sqrt(np.mean(off**2))), loss
        done += 1
        yield found


def accuracy(largest: int | None) -> list[Row]:
    """Means over molecules; the deviations are at the geometries of the reference, not relaxed."""
    begin = time.monotonic()
    found = list(compared(largest))
    seconds = time.monotonic() - begin

    again = np.random.default_rng(SEED).integers(len(found), size=(BOOTSTRAP, len(found)))
    suffix = "" if largest is None else f"_up_to_{largest}_atoms"
    rows = []
    for name in METHODS:
        for column, what in enumerate(("rmse", "loss")):
            v = np.array([molecule[name][column] for molecule in found])
            rows.append(
                Row(
                    f"dft.{name}.{what}{suffix}",
                    float(v.mean()),
                    error=float(v[again].mean(1).std()),
                    goal=GOALS.get(f"{name}.{what}"),
                    seeds=[SEED],
                    seconds=round(seconds, 1),
                    note=f"kcal/mol, mean of {len(found)} molecules, median {np.median(v):.2f},"
                    f" largest {v.max():.2f}",
                )
            )
    return rows


def speed() -> list[Row]:
    """Energies and gradients of a batch against one after another, in turn."""
    mol = parse_smiles(PEPTIDE)
    gen = torch.Generator().manual_seed(SEED)
    x = torch.as_tensor(embed(mol, 1, SEED), dtype=torch.float32).expand(BATCH, -1, -1)
    x = x + 0.03 * torch.randn(x.shape, generator=gen)
    energy = build_energy(mol, "aimnet2", TEMPERATURE)

    def milliseconds(points: torch.Tensor) -> float:
        begin = time.perf_counter()
        energy.value_and_grad(points)
        return 1e3 * (time.perf_counter() - begin) / len(points)

    milliseconds(x[:1]), milliseconds(x)
    both = np.array([(milliseconds(x[:1]), milliseconds(x)) for _ in range(ROUNDS)])
    single, batched = np.median(both, 0)
    note = f"{PEPTIDE}: {single:.1f} ms one by one, {batched:.1f} ms in batches of {BATCH}"
    return [
        Row("dft.aimnet2.batch_speed_ratio", float(single / batched), goal=">= 3", note=note),
        Row("dft.aimnet2.milliseconds", float(batched), note="energy and gradient of a geometry"),
    ]


def main() -> None:
    rows = [row for largest in (None, SMALL) for row in accuracy(largest)]
    write_rows("conformers", rows + speed())


if __name__ == "__main__":
    benchmark(
        main,
        needs=[DATA, "Auto3D", "tblite"],
        quick={"MOLECULES": 2, "BOOTSTRAP": 20, "ROUNDS": 2},
    )
