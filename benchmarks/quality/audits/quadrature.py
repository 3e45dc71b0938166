"""Randomised quadrature against Haar sampling in an audit, at equal numbers of answers of the
model.

    python -m benchmarks.quality.audits.quadrature            about a minute

Model: a transformer without built-in symmetry, trained for a few hundred steps under rotation
augmentation on MMFF94 forces of alanine dipeptide. Variance of the equivariance error of one
geometry over the draw of the group elements, averaged over geometries; the ratio to that of
independent rotations of the same number.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows
from orbitwise.audit import LOSSES, AuditBatch, Haar, Quadrature, loss_terms, over_orbit
from orbitwise.data.batch import PointBatch
from orbitwise.groups.so3 import SO3
from orbitwise.molecules import MMFF94
from orbitwise.molecules.molecule import embed, parse_smiles, to_batch
from orbitwise.networks import PointTransformer

ITEMS, REPEATS, STEPS = 5, 120, 800
PLANS = {
    24: [Quadrature("tetrahedral", 2)],
    48: [Quadrature("tetrahedral", 4), Quadrature("octahedral", 2)],
    120: [Quadrature("tetrahedral", 10), Quadrature("octahedral", 5), Quadrature("icosahedral", 2)],
}


def dipeptide(seed: int) -> tuple[PointBatch, Tensor]:
    """1,200 geometries near minima and their MMFF94 forces in units of the rms."""
    g = torch.Generator().manual_seed(seed)
    mol = parse_smiles("CC(=O)N[C@@H](C)C(=O)NC")
    minima = torch.from_numpy(embed(mol, 60, seed=seed))
    x = minima.repeat(20, 1, 1)
    x = x + 0.05 * torch.randn(x.shape, generator=g, dtype=x.dtype)
    x = x - x.mean(1, keepdim=True)
    _, grad = MMFF94(mol).value_and_grad(x)
    return to_batch(mol, x.float().numpy()), (-grad / grad.square().mean().sqrt()).float()


def network_of_forces(data: PointBatch, forces: Tensor, seed: int) -> PointTransformer:
    """Trained under random rotations, so that its remaining error of symmetry is what training
    leaves."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = PointTransformer(hidden=48, layers=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        index = torch.randint(len(data), (32,), generator=g)
        turn = SO3().sample((32,), generator=g)
        batch = data[index]
        answer = network(batch.x @ turn.mT, torch.ones(32), batch)
        loss = (answer - forces[index] @ turn.mT).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"  loss of the last step {loss.item():.3f}")
    return network.eval()


@torch.no_grad()
def variance(network, data: PointBatch, forces: Tensor, nodes, seed: int) -> tuple[Tensor, Tensor]:
    """Of the equivariance error of each item over its draws ``(ITEMS,)``, and its mean."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for item in range(ITEMS):
        index = torch.full((REPEATS,), 37 * item)
        part = data[index]
        batch = AuditBatch(part.x, forces[index], args=(torch.ones(REPEATS), part))
        elements = nodes.draw(SO3(), REPEATS, g, part.x)
        answers = over_orbit(network, SO3(), elements, batch, chunk=6000)["prediction"]
        found.append(
            loss_terms(answers, forces[index], LOSSES["squared"], nodes.blocks).equivariance
        )
    stacked = torch.stack(found)
    return stacked.var(1), stacked.mean(1)


def main() -> None:
    begin = time.monotonic()
    data, forces = dipeptide(0)
    network = network_of_forces(data, forces, 0)
    rows = []
    for cost, plans in PLANS.items():
        plain, mean = variance(network, data, forces, Haar(cost), 1)
        print(
            f"  {cost} answers: Haar, relative error of one item"
            f" {float((plain.sqrt() / mean).mean()):.3f}"
        )
        for plan in plans:
            turned, _ = variance(network, data, forces, plan, 2)
            ratio = turned / plain
            error = float(ratio.std() / len(ratio) ** 0.5)
            name = f"quadrature.{plan.polyhedron}_{cost}.variance_over_haar"
            rows.append(Row(what=name, value=float(ratio.mean()), error=error, seeds=[0]))
            if cost == 24:  # what an audit does unless told otherwise
                rows.append(
                    Row(
                        what="quadrature.variance_over_haar",
                        value=float(ratio.mean()),
                        error=error,
                        goal="1",
                    )
                )
    seconds = time.monotonic() - begin
    write_rows("audits", [row.__class__(**{**vars(row), "seconds": seconds}) for row in rows])


if __name__ == "__main__":
    benchmark(main, quick={"ITEMS": 2, "REPEATS": 4, "STEPS": 3, "PLANS": {24: PLANS[24]}})
