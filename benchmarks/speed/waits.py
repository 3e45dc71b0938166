"""What a training step waits for: operations whose result Python has to see.

    python -m benchmarks.speed.waits

One step of the shipped loop (`orbitwise.training.loop`): batch, noise, exact posterior over SO(3)
as target, loss of the equivariant network, backward, clipping, AdamW, averaged weights. Counted on
the CPU are the operations for which an accelerator would have to wait: numbers read by Python,
`nonzero`, `equal`, `unique`, selection by booleans, and the eigenvalues, whose success torch looks
at. Not counted are the counters of optimiser and averaged weights, which torch keeps on the CPU
whatever the device, and what is looked at only where the tensors are on the CPU. A count, not a
measurement on an accelerator.
"""

from __future__ import annotations

import collections
import contextlib
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import orbitwise as ow
from benchmarks.tools.benchmark import benchmark
from benchmarks.tools.rows import Row, write_rows

BATCH, POINTS, SEED = 16, 9, 0
WAITS = frozenset(
    {
        "_linalg_eigh",
        "_local_scalar_dense",
        "_unique2",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    }
)
INDEXED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
BOOLEAN = (torch.bool, torch.uint8)


class Waits(TorchDispatchMode):
    """Counts by ``(operation, place in the package)``, but for reading one of the tensors ``apart``
    or what is made of those alone."""

    def __init__(self, apart: list[torch.Tensor]) -> None:
        super().__init__()
        self.apart = {tensor.data_ptr(): tensor for tensor in apart}
        self.seen: collections.Counter[tuple[str, str]] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        waits = name in WAITS and not self._is_apart(args[0])
        if name in INDEXED:
            waits = any(index is not None and index.dtype in BOOLEAN for index in args[1])
        if waits:
            self.seen[name, _place()] += 1
        found = func(*args, **(kwargs or {}))
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        if isinstance(found, torch.Tensor) and tensors and all(map(self._is_apart, tensors)):
            self.apart[found.data_ptr()] = found  # kept: its place must not be used again
        return found

    def _is_apart(self, x: torch.Tensor) -> bool:
        return x.data_ptr() in self.apart


def _place() -> str:
    package = str(Path(ow.__file__).parent)
    inside = [f for f in traceback.extract_stack() if f.filename.startswith(package)]
    return f"{Path(inside[-1].filename).relative_to(package)}:{inside[-1].lineno}"


@contextlib.contextmanager
def as_off_the_cpu() -> Iterator[None]:
    """Without what is looked at only where the tensors are on the CPU."""
    from orbitwise.objectives import denoising
    from orbitwise.orbits.posterior import matrix_fisher
    from orbitwise.processes import gaussian

    def all_nodes(gaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return matrix_fisher._quadrature(gaps, matrix_fisher.NODES[1])

    with (
        mock.patch.object(matrix_fisher, "bingham", all_nodes),
        mock.patch.object(gaussian, "refuse_outside", lambda t: None),
        mock.patch.object(denoising, "looks_at_values", lambda x: False),
    ):
        yield


def counted() -> collections.Counter[tuple[str, str]]:
    """Of the second step."""
    from orbitwise.data.batch import PointBatch
    from orbitwise.networks.points.egnn import EGNN
    from orbitwise.objectives import denoising
    from orbitwise.objectives.denoiser import Denoiser
    from orbitwise.training.config import TrainConfig
    from orbitwise.training.loop import _Run

    x = torch.randn(4 * BATCH, POINTS, 3, generator=torch.Generator().manual_seed(SEED))
    kinds = torch.full(x.shape[:2], 6)
    bonds = torch.diag_embed(torch.ones(POINTS - 1, dtype=torch.long), 1)
    bonds = (bonds + bonds.T).expand(len(x), -1, -1).contiguous()
    data = PointBatch(x, kinds, bonds, torch.ones(x.shape[:2], dtype=torch.bool))

    process = ow.GaussianProcess.flow()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        denoiser = Denoiser(EGNN(), process, 1.5)
    config = TrainConfig(steps=10, batch_size=BATCH, seed=SEED, accelerator="cpu")
    run = _Run(denoiser, denoising.Denoising(process, ow.SO3()), data, config)
    run.advance()  # tables and the optimiser's state are made in the first
    apart = [state["step"] for o in run.optimisers for state in o.state.values()]
    with as_off_the_cpu(), Waits([*apart, run.ema.n_averaged]) as waits:
        run.advance()
    return waits.seen


def main() -> None:
    start = time.perf_counter()
    shipped = counted()
    places = ", ".join(f"{n} {name} {place}" for (name, place), n in sorted(shipped.items()))
    row = Row(
        "posterior.syncs_per_training_step",
        shipped.total(),
        goal="<= 2",
        seeds=[SEED],
        seconds=time.perf_counter() - start,
        note=f"counted on the CPU: {places}",
    )
    write_rows("library", [row])


if __name__ == "__main__":
    benchmark(main)
