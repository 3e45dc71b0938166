"""The one training loop, on Lightning Fabric: CPU, one GPU or many.

Randomness. Nothing random is kept between steps: the data order of an epoch is a function of (seed,
epoch), the noise of a step of (seed, step, shard). A step's batch is cut into ``shards`` equal
parts, each with its own generator; the processes share the shards out and accumulate their
gradients. So a run that was killed and resumed draws the same numbers as an unbroken one, and the
same ``shards`` give the same gradients on any number of processes, up to the order of summation.
"""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.networks.former import upgraded
from orbitwise.training import checkpoint as files
from orbitwise.training.config import NEUTRAL, TrainConfig, learning_rate_at
from orbitwise.training.device import training_device
from orbitwise.training.ema import averaged_model
from orbitwise.training.interrupt import deferred_interrupt
from orbitwise.training.log import MetricLog, Metrics
from orbitwise.training.optimisers import optimisers
from orbitwise.training.order import EpochOrder, mix
from orbitwise.training.progress import Progress, ProgressBar
from orbitwise.training.ranks import together


class Data(Protocol):
    """Training data in memory: ``orbitwise.data.batch.PointBatch`` is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor) -> Any: ...  # a batch, with ``.to(device)``


Objective = Callable[
    [nn.Module, Any, torch.Generator], Tensor
]  # (model, batch, generator) -> losses (B,)


class DivergedError(OrbitwiseError, ArithmeticError):
    """Gradients stayed non-finite for many steps in a row."""


@dataclass(frozen=True)
class Moment:
    """Where a training stands: after ``step`` steps and ``seconds`` of them (audits and writing not
    counted).

    ``model`` has the last weights, ``ema`` the averaged ones; look at them, leave them as they are.
    """

    step: int
    seconds: float
    model: nn.Module
    ema: nn.Module


@dataclass(frozen=True)
class TrainResult:
    """What training left: ``model`` with its last weights, ``ema`` with the averaged ones (use
    these).

    ``loss``: mean since the last log row; ``seconds``: training time of all runs that led here;
    ``skipped``: steps without a finite gradient; ``resumed_at``: step at which this run took over
    (0: from the start).
    """

    model: nn.Module
    ema: nn.Module
    steps: int
    loss: float | None
    seconds: float
    skipped: int
    resumed_at: int
    checkpoint: Path


def train(
    model: nn.Module,
    objective: Objective,
    data: Data,
    config: TrainConfig,
    out_dir: Path | str,
    resolved_config: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_step: Callable[[Moment], None] | None = None,
) -> TrainResult:
    """Train ``model`` in place for ``config.steps`` steps, or finish a run that was begun in
    ``out_dir``.

    ``objective(model, batch, generator)`` gives losses ``(B,)``; their mean is minimised. An
    objective with a memory (a replay buffer) is an ``nn.Module``: its buffers are part of the
    checkpoint. ``resolved_config`` (JSON-able) is stored in the checkpoint and compared on
    resumption. ``on_progress`` replaces the progress bar. ``on_step`` is called at the start (step
    0, or where a resumed run takes over) and after every step, before its checkpoint, on the
    leading process (``audit.AuditEvery`` is one). Ctrl-C finishes the step, saves, and raises
    ``KeyboardInterrupt``; so does SIGTERM, which ends a program that has no handler for it with
    code 143.

    Raises ``InputError`` for unusable data, the accelerator ``mps`` (no float64) or a checkpoint of
    another configuration (naming the keys), ``DivergedError`` after ``max_nonfinite`` steps without
    a finite gradient, ``OrbitwiseError`` when a checkpoint cannot be written or another of the
    processes ends.
    """
    run = _Run(model, objective, data, config)
    path = Path(out_dir) / files.NAME
    stored = {"train": config.model_dump() | {"shards": run.shards}, "run": resolved_config or {}}
    if path.exists():
        run.restore(path, stored)
    first, begun = run.step, run.seconds
    with contextlib.ExitStack() as stack:
        lead = run.fabric.is_global_zero
        show = on_progress or (stack.enter_context(ProgressBar()) if lead else _silent)
        log = stack.enter_context(MetricLog(Path(out_dir), first)) if lead else None
        held = stack.enter_context(deferred_interrupt())
        stack.enter_context(together(run.fabric.world_size, path))
        window = _Window(first, begun)
        loss, shown = None, 0.0
        show(Progress(first, config.steps))
        look = on_step if on_step is not None and lead else _unseen
        look(run.moment())
        while run.step < config.steps:
            window.add(run.advance())
            look(run.moment())
            last = run.step == config.steps
            if last or run.step % config.log_every == 0:
                row = window.row(run)
                loss, window = row.loss, _Window(run.step, run.seconds)
                if log is not None:
                    log.write(row)
            stop = run.agreed(held.number)
            if lead and (last or stop or run.step % config.checkpoint_every == 0):
                files.write_checkpoint(path, run.checkpoint(stored))
            if stop:
                held.deliver(stop)
            if last or time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                show(window.progress(run, loss, first, begun))
        run.fabric.barrier()
    return TrainResult(
        model=model,
        ema=run.ema.module,
        steps=run.step,
        loss=loss,
        seconds=run.seconds,
        skipped=run.skipped,
        resumed_at=first,
        checkpoint=path,
    )


def estimate_step_seconds(
    model: nn.Module, objective: Objective, data: Data, config: TrainConfig, steps: int = 5
) -> float:
    """Median seconds of one training step on one device, measured on a copy of ``model``.

    For turning a budget in minutes into ``steps``: the schedule and resumption stay functions of
    the step.
    """
    single = config.model_copy(update={"devices": 1, "strategy": "auto"})
    run = _Run(copy.deepcopy(model), objective, data, single)
    times = []
    for _ in range(steps + 2):  # the first two warm up
        begin = run.seconds
        run.advance()
        times.append(run.seconds - begin)
    return statistics.median(times[2:])


class _Run:
    """The state of a run and one step of it."""

    def __init__(
        self, model: nn.Module, objective: Objective, data: Data, config: TrainConfig
    ) -> None:
        from lightning_fabric import Fabric

        from orbitwise.training.precision import precision_plugins

        if len(data) == 0:
            raise InputError("there is no training data: the data set is empty")
        self.fabric = Fabric(
            accelerator=training_device(config.accelerator),
            devices=config.devices,
            strategy=config.strategy,
            plugins=precision_plugins(config),
        )
        self.fabric.launch()
        ranks = self.fabric.world_size
        self.shards = config.shards or ranks
        if self.shards % ranks or config.batch_size % self.shards:
            raise InputError(
                f"batch_size ({config.batch_size}) must be a multiple of shards ({self.shards}),"
                f" and shards of the number of processes ({ranks})"
            )
        if isinstance(objective, nn.Module):
            objective.to(self.fabric.device)
        self.model, self.objective, self.data, self.config = model, objective, data, config
        self.wrapped = self.fabric.setup_module(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimisers = optimisers(model, config)
        self.ema = averaged_model(model, config.ema_decay)
        self.order = EpochOrder(len(data), config.batch_size, config.seed)
        self.generator = torch.Generator(self.fabric.device)
        self.step = self.skipped = self.nonfinite = 0
        self.seconds = 0.0

    def advance(self) -> tuple[Tensor, float]:
        """One step; returns the mean loss of this process's shards and the gradient norm before
        clipping."""
        begin = time.perf_counter()
        config, fabric = self.config, self.fabric
        own = self.shards // fabric.world_size
        parts = self.order.indices(self.step).chunk(self.shards)
        shards = range(fabric.global_rank * own, (fabric.global_rank + 1) * own)
        total = torch.zeros((), device=fabric.device)
        for shard in shards:  # gradient accumulation: memory is what shards are for
            batch = self.data[parts[shard]].to(fabric.device)
            self.generator.manual_seed(mix(config.seed, 1, self.step, shard))
            with fabric.no_backward_sync(self.wrapped, enabled=shard != shards[-1]):
                loss = self.objective(self.wrapped, batch, self.generator).mean() / own
                fabric.backward(loss)
            total += loss.detach()

        limit = config.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit).item()
        if math.isfinite(norm):
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate_at(config, self.step)
                optimiser.step()
            self.ema.update_parameters(self.model)
            self.nonfinite = 0
        else:
            self.skipped += 1
            self.nonfinite += 1

        for optimiser in self.optimisers:
            optimiser.zero_grad()
        self.step += 1
        self.seconds += time.perf_counter() - begin
        if self.nonfinite >= config.max_nonfinite:
            raise DivergedError(
                f"the gradient was not finite in {self.nonfinite} steps in a row, up to step"
                f" {self.step}; the weights are those before them. Lower learning_rate, or look for"
                " NaN in the data."
            )
        return total, norm

    def agreed(self, signal: int) -> int:
        """The signal that any of the processes has seen, so that all stop after the same step."""
        if self.fabric.world_size == 1:
            return signal
        seen = torch.tensor(float(signal), device=self.fabric.device)
        return int(self.fabric.all_reduce(seen, reduce_op="max"))

    def moment(self) -> Moment:
        return Moment(self.step, self.seconds, self.model, self.ema.module)

    def checkpoint(self, stored: dict[str, Any]) -> files.Checkpoint:
        return files.Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            ema=self.ema.module.state_dict(),
            optimizer=files.optimizer_state(self.model, self.optimisers),
            config=stored,
            seconds=self.seconds,
            skipped=self.skipped,
            objective=(
                dict(self.objective.state_dict()) if isinstance(self.objective, nn.Module) else {}
            ),
        )

    def restore(self, path: Path, stored: dict[str, Any]) -> None:
        saved = files.read_checkpoint(path)
        longer = {"steps"} if self.config.schedule == "constant" else set()
        files.check_config(path, saved.config, stored, NEUTRAL | longer)
        weights = upgraded(self.model, saved.model)
        files.check_weights(path, weights, self.model)
        self.model.load_state_dict(weights)
        averaged = upgraded(self.ema.module, saved.ema)
        files.check_weights(path, averaged, self.ema.module)
        files.check_finite(path, weights | averaged)
        self.ema.module.load_state_dict(averaged)
        self.ema.n_averaged.fill_(saved.step - saved.skipped)
        files.restore_optimizer(self.model, self.optimisers, saved.optimizer, path)
        if isinstance(self.objective, nn.Module):
            memory = upgraded(self.objective, saved.objective)
            files.check_weights(path, memory, self.objective)
            self.objective.load_state_dict(memory)
        self.step, self.seconds, self.skipped = saved.step, saved.seconds, saved.skipped


class _Window:
    """Means since the last row of the log."""

    def __init__(self, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds
        self.losses: list[Tensor] = []
        self.norms: list[float] = []

    def add(self, result: tuple[Tensor, float]) -> None:
        loss, norm = result
        if math.isfinite(norm):
            self.losses.append(loss)
            self.norms.append(norm)

    def row(self, run: _Run) -> Metrics:
        nan = torch.full((), math.nan, device=run.fabric.device)
        loss = torch.stack(self.losses).mean() if self.losses else nan
        return Metrics(
            step=run.step,
            loss=float(run.fabric.all_reduce(loss, reduce_op="mean")),
            grad_norm=statistics.fmean(self.norms) if self.norms else math.nan,
            learning_rate=learning_rate_at(run.config, run.step - 1),
            steps_per_second=(run.step - self.step) / max(run.seconds - self.seconds, 1e-9),
            seconds=run.seconds,
            skipped=run.skipped,
        )

    def progress(self, run: _Run, loss: float | None, first: int, begun: float) -> Progress:
        """A report; ``first`` and ``begun``: step and seconds at which this process took over."""
        if loss is None and self.losses:
            loss = float(torch.stack(self.losses).mean())
        rate = (run.step - first) / max(run.seconds - begun, 1e-9)
        return Progress(
            run.step, run.config.steps, loss, rate, (run.config.steps - run.step) / rate
        )


def _silent(report: Progress) -> None:
    """For processes that do not lead."""


def _unseen(moment: Moment) -> None:
    """Nobody looks on."""
