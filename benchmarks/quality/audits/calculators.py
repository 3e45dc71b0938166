"""ASE calculators audited on held-out frames of aspirin: GFN2-xTB, and a trained force network
without symmetry.

    python -m benchmarks.quality.audits.calculators    a minute, after the base run of
    equivariance_dynamics

CHGNet joins where it is installed (``pip install 'orbitwise[chgnet]'``), on rattled rock salt,
without a reference.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch

import orbitwise as ow
from benchmarks.quality.equivariance_dynamics import BASE_STEPS, FILES, TINY, base_run
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.audit import AuditReport
from orbitwise.audit.calculator import (
    CALCULATORS,
    CalculatorModel,
    ModelCalculator,
    structure_batches,
)
from orbitwise.data.structures import Structure
from orbitwise.methods.dynamics.dynamics import trained

STEPS, SETTINGS = BASE_STEPS, ()
FRAMES = 24


def audited(
    calculator, structures: list[Structure], outputs: tuple[str, ...], reference: bool
) -> AuditReport:
    batches = structure_batches(structures, outputs, reference=reference)
    kinds = {"energy": "invariant", "forces": "vector", "stress": "tensor"}
    return ow.audit_equivariance(
        CalculatorModel(calculator, outputs),
        ow.SO3(),
        batches,
        outputs={name: kinds[name] for name in outputs},
        generator=torch.Generator().manual_seed(0),
    )


def rows_of(name: str, report: AuditReport, note: str) -> list[Row]:
    found = []
    for row in report.rows:
        where = f"calculators.{name}.{row.output}"
        found.append(
            Row(
                f"{where}_percent",
                row.percent.value,
                row.percent.error,
                seconds=report.seconds,
                note=note,
            )
        )
        found.append(
            Row(
                f"{where}_relative_deviation",
                row.relative_deviation,
                seconds=report.seconds,
                note=note,
            )
        )
    return found


def main() -> None:
    task, model = trained(base_run("forces", STEPS, SETTINGS))
    x = torch.cat([batch.x for batch in task.batches])[:FRAMES]
    forces = torch.cat([batch.target for batch in task.batches])[:FRAMES] * model.scale
    numbers = model.network.species[0].numpy()
    frames = [
        Structure(
            numbers,
            p.double().numpy(),
            np.zeros((3, 3)),
            np.zeros(3, bool),
            f"frame {k}",
            forces=f.numpy(),
        )
        for k, (p, f) in enumerate(zip(x, forces, strict=True))
    ]
    note = f"{len(frames)} held-out frames of aspirin against PBE forces"
    own = ModelCalculator(lambda species, positions, cell: model(positions.float()))
    rows = rows_of("trained_without_symmetry", audited(own, frames, ("forces",), True), note)
    rows += rows_of("xtb", audited(CALCULATORS["xtb"](), frames, ("forces",), True), note)
    if find_spec("chgnet"):
        from ase.build import bulk

        salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
        salt.rattle(0.05, seed=0)
        made = Structure(salt.numbers, salt.positions, salt.cell.array, salt.pbc, "NaCl")
        report = audited(CALCULATORS["chgnet"](), [made], ("energy", "forces", "stress"), False)
        rows += rows_of(
            "chgnet", report, "8 atoms of rattled NaCl, share of the size of the prediction"
        )
    write_rows("audits", rows)


if __name__ == "__main__":
    benchmark(main, needs=[FILES["forces"]], quick={"FRAMES": 2, "STEPS": 10, "SETTINGS": TINY})
