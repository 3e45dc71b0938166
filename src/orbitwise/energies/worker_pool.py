"""A pool of Ray actors: every question gets exactly one answer, whatever happens to the actors."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orbitwise.errors import EnergyError, InputError

DEPTH = 2  # chunks at one worker: one that runs and one that waits, so that it is never idle


@dataclass(frozen=True)
class Facts:
    """What the driver has to know about the energy that the workers built."""

    event_shape: tuple[int, ...]
    zero_com: bool
    log_z: float | None
    pid: int


@dataclass(frozen=True)
class Answer:
    """Results of a chunk; ``failures`` of the energy itself and the reason of the last one."""

    value: np.ndarray
    grad: np.ndarray | None
    failures: int
    reason: str | None


@dataclass(frozen=True)
class Trouble:
    """An exception in a worker as text, because not every exception can be sent."""

    kind: type[Exception]
    reason: str

    @classmethod
    def of(cls, error: Exception) -> Trouble:
        kind = next((k for k in (EnergyError, InputError) if isinstance(error, k)), Exception)
        text = one_line(error)
        return cls(kind, text if kind is not Exception else f"{type(error).__name__}: {text}")


def one_line(error: BaseException) -> str:
    """The message without line breaks, cut where it becomes a log."""
    return " ".join(str(error).split())[:400] or type(error).__name__


class Worker:
    """Lives in an actor: builds the energy once for each dtype and evaluates chunks on one
    thread."""

    def __init__(self):
        os.environ.update(
            dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        )
        import torch

        torch.set_num_threads(1)
        self.built: dict[Any, Any] = {}

    def build(self, factory: bytes) -> Facts | Trouble:
        import pickle

        from orbitwise.energies.base import Energy

        try:
            self.factory = pickle.loads(factory)
            energy = self.factory()
        except Exception as error:
            return Trouble.of(error)
        if not isinstance(energy, Energy):
            return Trouble(
                InputError, f"the factory must return an Energy, it gave {type(energy).__name__}"
            )
        self.plain = energy
        return Facts(tuple(energy.event_shape), bool(energy.zero_com), energy.log_z, os.getpid())

    def evaluate(self, points: np.ndarray, with_grad: bool) -> Answer | Trouble:
        import torch

        try:
            x = torch.from_numpy(points.copy())
            energy = self._energy(x.dtype)
            before = getattr(energy, "failures", 0)
            if with_grad:
                value, grad = energy.value_and_grad(x)
            else:
                with torch.no_grad():
                    value, grad = energy(x), None
            failed = getattr(energy, "failures", 0) - before
            reason = getattr(energy, "last_failure", None) if failed else None
            return Answer(value.numpy(), None if grad is None else grad.numpy(), failed, reason)
        except Exception as error:
            return Trouble.of(error)

    def _energy(self, dtype):
        """The energy in one dtype; never converted there and back, which would round its
        parameters."""
        if dtype not in self.built:
            tensors = [*self.plain.parameters(), *self.plain.buffers()]
            same = all(not t.is_floating_point() or t.dtype == dtype for t in tensors)
            self.built[dtype] = self.plain if same else self.factory().to(dtype)
        return self.built[dtype]


@dataclass(frozen=True)
class Chunk:
    """Rows of the batch that travel together.

    ``suspect``: a worker was lost over them. It then gets a worker that has nothing else, because
    an answer may be lost with the worker that gave it, and only then is it certain which point is
    to blame; ``tries`` counts the workers lost that way.
    """

    rows: np.ndarray
    suspect: bool = False
    tries: int = 0


@dataclass
class Slot:
    """The place of one worker: its actor, what it was sent in order, and since when the first of it
    runs."""

    actor: Any = None
    building: Any = None
    facts: Facts | None = None
    sent: deque[tuple[Any, Chunk]] = field(default_factory=deque)
    since: float = 0.0
    build_failures: int = 0
    given_up: bool = False


@dataclass
class Tally:
    """What happened in a pool: results that count, geometries sent, failures, and workers that were
    replaced."""

    evaluated: int = 0
    attempts: int = 0
    failures: int = 0
    replaced: int = 0
    last_failure: str | None = None


class Pool:
    """``workers`` actors in a Ray that is running. Made and used by ``RayEnergy``."""

    def __init__(self, ray, factory: bytes, workers: int, retries: int, start_timeout: float):
        self.ray, self.factory, self.retries, self.start_timeout = (
            ray,
            factory,
            retries,
            start_timeout,
        )
        # Ray's own restarts and retries stay off: they would run a chunk again without our knowing
        # it
        self.remote = ray.remote(Worker).options(num_cpus=1, max_restarts=0, max_task_retries=0)
        self.slots = [Slot() for _ in range(workers)]
        self.session = ray.get_runtime_context().get_node_id()
        self.reason = "no worker has started"
        for slot in self.slots:
            self._start(slot)

    @property
    def ready(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.facts is not None]

    def facts(self) -> Facts:
        """What the first worker to be ready has built; raises ``EnergyError`` where none can."""
        while not self.ready:
            self._advance(None, None)
        return self.ready[0].facts

    def run(
        self, points: np.ndarray, with_grad: bool, size: int, timeout: float | None, tally: Tally
    ):
        """``(value, grad)`` as arrays for ``points: (n, *E)``; NaN where a point was given up."""
        value = np.full(len(points), np.nan, points.dtype)
        grad = np.full_like(points, np.nan) if with_grad else None
        batch = Batch(points, value, grad, self.retries, tally)
        batch.todo.extend(Chunk(rows) for rows in batch.cut(size))
        try:
            while batch.open:
                self._send(batch)
                self._advance(batch, timeout)
        except BaseException:
            # an interrupt or a mistake in the call: nobody waits for what is under way
            self.abandon()
            raise
        return value, grad

    def abandon(self) -> None:
        """Kill the workers that are busy; they are started again when they are needed."""
        for slot in self.slots:
            if slot.sent:
                self._stop(slot)

    def close(self) -> None:
        for slot in self.slots:
            self._stop(slot)

    # one worker

    def _start(self, slot: Slot) -> None:
        slot.actor, slot.facts, slot.since = self.remote.remote(), None, time.monotonic()
        slot.building = slot.actor.build.remote(self.factory)

    def _stop(self, slot: Slot) -> None:
        actor = slot.actor
        slot.actor = slot.building = slot.facts = None
        slot.sent.clear()  # an answer that comes later belongs to no slot and counts nowhere
        if actor is not None and self.ray.is_initialized():
            self.ray.kill(actor)

    def _build_failed(self, slot: Slot, reason: str) -> None:
        self._stop(slot)
        self.reason = reason
        slot.build_failures += 1
        slot.given_up = slot.build_failures > self.retries

    # all workers

    def _send(self, batch: Batch) -> None:
        """One chunk to each, then a second one while there is enough left for everybody."""
        for slot in self.ready:
            if batch.todo and not slot.sent:
                slot.since = time.monotonic()
                self._send_to(slot, batch)
        for slot in self.ready:
            enough = len(batch.todo) >= len(self.slots) and len(slot.sent) < DEPTH
            if enough and not (batch.todo[0].suspect or slot.sent[0][1].suspect):
                self._send_to(slot, batch)

    def _send_to(self, slot: Slot, batch: Batch) -> None:
        chunk = batch.todo.popleft()
        ref = slot.actor.evaluate.remote(batch.points[chunk.rows], batch.grad is not None)
        slot.sent.append((ref, chunk))
        batch.tally.attempts += len(chunk.rows)

    def _advance(self, batch: Batch | None, timeout: float | None) -> None:
        """Wait until something happens, and deal with it; without a batch nothing has been sent."""
        for slot in self.slots:
            if slot.actor is None and not slot.given_up:
                self._start(slot)
        if all(slot.given_up for slot in self.slots):
            raise EnergyError(f"the factory of the energy failed on every worker; {self.reason}")
        done = self._wait(timeout)
        now = time.monotonic()
        for slot in self.slots:
            if slot.building is not None and slot.building in done:
                self._built(slot)
            while slot.sent and slot.sent[0][0] in done:
                if not self._answered(slot, batch, now):
                    break
            if timeout is not None and slot.sent and now - slot.since > timeout:
                self._lost(slot, batch, f"took longer than {timeout:g} s")
        late = [slot for slot in self.slots if slot.building is not None]
        if not self.ready and late and all(now - slot.since > self.start_timeout for slot in late):
            cpus = self.ray.cluster_resources().get("CPU", 0)
            raise EnergyError(
                f"no worker has started within {self.start_timeout:g} s; Ray has {cpus:g} CPUs in"
                " all and each worker needs a free one"
            )

    def _wait(self, timeout: float | None) -> set:
        """References that are ready; returns at the latest when the next deadline has passed."""
        refs = [slot.building for slot in self.slots if slot.building is not None]
        refs += [ref for slot in self.slots for ref, _ in slot.sent]
        due = [slot.since + self.start_timeout for slot in self.slots if slot.building is not None]
        if timeout is not None:
            due += [slot.since + timeout for slot in self.slots if slot.sent]
        left = None if not due else max(0.01, min(due) - time.monotonic() + 0.01)
        if not refs:
            return set()
        self.ray.wait(refs, num_returns=1, timeout=left, fetch_local=False)
        return set(self.ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0])

    def _built(self, slot: Slot) -> None:
        try:
            result = self.ray.get(slot.building)
        except self.ray.exceptions.RayError as error:
            result = Trouble(
                Exception, f"the worker died while it built the energy ({first_line(error)})"
            )
        if isinstance(result, Facts):
            slot.building, slot.facts, slot.build_failures = None, result, 0
        else:
            self._build_failed(slot, result.reason)

    def _answered(self, slot: Slot, batch: Batch, now: float) -> bool:
        """Take the first answer of a worker; False where the worker is lost."""
        ref, chunk = slot.sent[0]
        try:
            result = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            self._lost(slot, batch, first_line(error))
            return False
        slot.sent.popleft()
        slot.since = now
        if isinstance(result, Answer):
            batch.keep(chunk, result)
        elif result.kind is EnergyError:  # these points cannot be evaluated, here or anywhere
            batch.refuse(chunk, result.reason, again=False)
        elif result.kind is InputError:
            raise InputError(result.reason)
        else:
            raise EnergyError(f"the energy failed in a worker; {result.reason}")
        return True

    def _lost(self, slot: Slot, batch: Batch, reason: str) -> None:
        """Replace a worker. Its first chunk was running, as far as is known; the other goes back as
        it is."""
        (_, running), *waiting = slot.sent
        self._stop(slot)
        batch.tally.replaced += 1
        batch.todo.extendleft(chunk for _, chunk in reversed(waiting))
        batch.refuse(running, reason, again=True)


class Batch:
    """The points of one call, what is still to be done, and the results: each row is written
    once."""

    def __init__(self, points, value, grad, retries: int, tally: Tally):
        self.points, self.value, self.grad, self.retries, self.tally = (
            points,
            value,
            grad,
            retries,
            tally,
        )
        self.todo: deque[Chunk] = deque()
        self.pending = np.ones(len(points), bool)

    @property
    def open(self) -> bool:
        return bool(self.pending.any())

    def cut(self, size: int) -> list[np.ndarray]:
        rows = np.arange(len(self.points))
        return [rows[k : k + size] for k in range(0, len(rows), size)]

    def _close(self, rows: np.ndarray) -> None:
        assert self.pending[rows].all(), "a point was answered twice"
        self.pending[rows] = False

    def keep(self, chunk: Chunk, answer: Answer) -> None:
        self._close(chunk.rows)
        self.value[chunk.rows] = answer.value
        if self.grad is not None:
            self.grad[chunk.rows] = answer.grad
        self.tally.evaluated += len(chunk.rows)
        self.tally.failures += answer.failures
        self.tally.last_failure = answer.reason or self.tally.last_failure

    def refuse(self, chunk: Chunk, reason: str, again: bool) -> None:
        """Split a chunk, so that the point to blame stands alone; then try that again, or leave it
        NaN."""
        rows = chunk.rows
        if len(rows) > 1 or (again and not chunk.suspect):
            self.todo.extendleft(
                Chunk(rows[k : k + 1], suspect=again) for k in reversed(range(len(rows)))
            )
        elif again and chunk.tries < self.retries:
            self.todo.appendleft(Chunk(rows, True, chunk.tries + 1))
        else:
            self._close(chunk.rows)
            self.tally.failures += 1
            self.tally.last_failure = reason


def first_line(error: BaseException) -> str:
    """Ray's reasons come as reports: their first line, and the last one, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(
        Exception(" ".join(dict.fromkeys((lines[0], lines[-1])) if lines else type(error).__name__))
    )
