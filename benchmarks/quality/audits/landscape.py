"""Curvature of the two loss terms at trained models: condition numbers, extreme eigenvalues,
landscapes.

    python -m benchmarks.quality.audits.landscape [forces protein voxels]   two to five minutes each

Of the base runs of equivariance_dynamics. Condition numbers are over the linear last layer,
in which the squared loss is exactly quadratic; eigenvalues by Lanczos and landscapes over all
parameters, with the same items and group elements at every point, and once with fresh ones as in
the published landscapes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.quality.equivariance_dynamics import BASE_STEPS, FILES, TINY, base_run
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.places import kept
from benchmarks.tools.rows import Row, write_rows
from orbitwise.audit import AuditBatch, Quadrature
from orbitwise.audit.landscape.conditioning import condition_numbers, conditioning
from orbitwise.audit.landscape.loss_surface import LossTerms
from orbitwise.audit.landscape.plane import loss_landscape
from orbitwise.audit.landscape.spectrum import hessian_spectrum
from orbitwise.methods.audits.landscape_figures import landscape_figure, spectrum_figure
from orbitwise.methods.dynamics.dynamics import trained
from orbitwise.report.canvas import save

TASKS = ("forces", "protein", "voxels")
SETTINGS = ()  # of the base runs
HEADS = ("readout", "out")  # what networks call their last linear layer
LEVEL = {"protein": 0.9}  # the noise level with the largest share; the other tasks have one
POINTS, FEW = 11, 8  # of a landscape along each axis; items of all but the condition numbers
PROBES, TOLERANCE = 4, 1e-2  # of the extreme eigenvalues


def in_double(value):
    """Tensors of floating point in float64, whatever holds them."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(in_double(part) for part in value)
    if isinstance(value, AuditBatch):
        return AuditBatch(**{name: in_double(part) for name, part in vars(value).items()})
    if hasattr(value, "__dataclass_fields__"):
        return replace(
            value, **{name: in_double(getattr(value, name)) for name in value.__dataclass_fields__}
        )
    return value


def head_of(model: nn.Module) -> str:
    """Prefix of the names of the last layer's parameters."""
    layers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in HEADS]
    return layers[-1]


def convolution_hessians(
    model: nn.Module, group, batches: list[AuditBatch]
) -> tuple[Tensor, Tensor]:
    """Of total and twirled error over one output channel of a last convolution, ``(n, P, P)`` for n
    batches, up to one factor: second moments of its features, brought back from all elements of the
    group, and of their mean over it. The channels do not couple and have the same one."""
    head = model.get_submodule(head_of(model))
    features: list[Tensor] = []
    hook = head.register_forward_hook(lambda module, given, answer: features.append(given[0]))
    g = group.enumerate()[0]
    total, twirled = [], []
    with torch.no_grad():
        for batch in batches:
            sums = [0.0, 0.0]
            for x in batch.x:
                features.clear()
                model(group.act(g, x))
                h = torch.nn.functional.pad(features[0], [1] * 6)
                h = (
                    h.unfold(2, 3, 1)
                    .unfold(3, 3, 1)
                    .unfold(4, 3, 1)
                    .movedim((5, 6, 7), (2, 3, 4))
                    .flatten(1, 4)
                )
                h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
                h = group.act(group.inverse(g), h).flatten(2)  # (elements, P, voxels)
                sums[0] = sums[0] + (h @ h.mT).mean(0)
                sums[1] = sums[1] + h.mean(0) @ h.mean(0).T
            total.append(sums[0] / len(batch))
            twirled.append(sums[1] / len(batch))
    hook.remove()
    return torch.stack(total), torch.stack(twirled)


def measure(task_name: str, run: Path) -> None:
    begin = time.monotonic()
    task, model = trained(run)
    model = task.audited(model).double().eval()
    batches = [in_double(batch) for batch in task.batches if batch.level == LEVEL.get(task_name)]
    rows: list[Row] = []

    def row(what: str, value: float, error: float | None = None, note: str | None = None) -> None:
        seconds = time.monotonic() - begin
        rows.append(Row(f"{task_name}.{what}", value, error, seconds=seconds, note=note))
        write_rows("dynamics", rows[-1:])

    def loss(parts: list[AuditBatch], parameters: list[str] | None, polyhedron: str) -> LossTerms:
        nodes = None if task.group.finite else Quadrature(polyhedron)
        g = torch.Generator().manual_seed(0)
        return LossTerms(
            model,
            task.group,
            parts,
            outputs=task.outputs,
            parameters=parameters,
            nodes=nodes,
            generator=g,
            chunk=512,
        )

    if task.group.finite:
        found = conditioning(*convolution_hessians(model, task.group, batches))
    else:
        found = condition_numbers(loss(batches, [head_of(model)], "icosahedral"))
    note = (
        f"last layer, {found.dimension} parameters, eigenvalues above {found.floor:g} of the"
        " largest"
    )
    for term in ("total", "twirled", "equivariance"):
        part = getattr(found, term)
        row(
            f"condition_{term}",
            part.value.value,
            part.value.error,
            f"{note}; {part.unresolved} below",
        )
    for name in ("total", "twirled"):
        ratio = getattr(found, f"{name}_over_equivariance")
        row(f"condition_{name}_over_equiv", ratio.value, ratio.error, note)

    few = [batch[torch.arange(min(len(batch), max(2, FEW // len(batches))))] for batch in batches]
    whole = loss(few, None, "tetrahedral")
    spectra = [
        hessian_spectrum(whole, term, k=1, probes=PROBES, tolerance=TOLERANCE)
        for term in ("total", "equivariance")
    ]
    for spectrum in spectra:
        note = f"all {spectrum.dimension:,} parameters, {spectrum.products} Hessian-vector products"
        row(
            f"largest_eigenvalue_{spectrum.term}",
            spectrum.largest.value,
            spectrum.largest.error,
            note,
        )
        row(
            f"smallest_eigenvalue_{spectrum.term}",
            spectrum.smallest.value,
            spectrum.smallest.error,
            note,
        )
    directions = spectra[0].extreme_directions
    smooth = loss_landscape(whole, directions, count=POINTS)
    fresh = loss_landscape(
        whole,
        directions,
        count=POINTS,
        span=float(smooth.axis[-1]),
        fresh=torch.Generator().manual_seed(1),
    )
    for name, surface in (("common", smooth), ("fresh", fresh)):
        for term in ("twirled", "equivariance"):
            fit = surface.fit(term)
            row(f"landscape_{name}.{term}.r_squared", fit.r_squared)
            row(f"landscape_{name}.{term}.neighbour_correlation", fit.neighbour_correlation)
    images = kept("docs/images/audit")
    images.mkdir(parents=True, exist_ok=True)
    save(
        landscape_figure(smooth, fresh, f"{task_name}: both terms about the trained model"),
        images / f"{task_name}_landscape.png",
    )
    save(
        spectrum_figure(spectra, f"{task_name}: extreme eigenvalues"),
        images / f"{task_name}_spectrum.png",
    )


def main(
    tasks: Sequence[Literal["forces", "protein", "voxels"]] = tuple(TASKS),
    *,
    steps: int = BASE_STEPS,
) -> None:
    for name in tasks:
        measure(name, base_run(name, steps, SETTINGS))


if __name__ == "__main__":
    benchmark(
        main,
        needs=[FILES[name] for name in TASKS],
        quick={
            "POINTS": 4,
            "FEW": 2,
            "PROBES": 2,
            "TOLERANCE": 0.3,
            "SETTINGS": TINY,
            "steps": 10,
            "tasks": ["forces"],
        },
    )
