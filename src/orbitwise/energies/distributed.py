"""Many slow energies at once: one Ray actor per core, on a laptop or a cluster."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbitwise.energies.analytic import AnalyticEnergy
from orbitwise.energies.base import Energy
from orbitwise.energies.worker_pool import Pool, Tally, one_line
from orbitwise.errors import EnergyError, InputError

OBJECT_STORE = 128 * 2**20  # bytes; geometries are small

# Read by the processes of a Ray that is started here: it reports its user's runs to nobody, and its
# workers, which are the program's own work, get the same share of the processor as the program.
LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

MODE = "RAY_AUTH_MODE"

PATIENCE = 10.0  # seconds that a Ray started here may take to stop


class RayEnergy(AnalyticEnergy):
    """The energy that ``factory()`` builds, evaluated by ``workers`` Ray actors of one core each.

    ``factory`` is any picklable call without arguments that gives an ``Energy``, for instance
    ``functools.partial(xtb, numbers, temperature=300.0)``; it is called once in each worker, and
    the energy gives shapes, units and dtype. Each point must have an energy of its own, independent
    of its neighbours in the batch. ``workers`` defaults to the cores of this machine, or of the
    cluster. ``address=None`` uses the Ray of this process or starts a local one; ``"auto"`` or an
    address joins a cluster, where orbitwise must be installed on every node.

    A batch goes out in chunks of ``chunk`` points (default: about four chunks per worker, at most
    16 points), two at most per worker. A worker that dies is replaced and its chunk sent again; one
    that spends more than ``timeout`` seconds on a chunk is killed and replaced. The points of such
    a chunk are then sent one by one, so that only the one to blame suffers: after ``retries`` more
    vain attempts it gets NaN, as a point does whose evaluation fails. Kernels reject NaN.

    ``evaluated`` counts points with a result that counts, each once; ``attempts`` the points sent,
    so that the difference is what was lost on the way; ``failures`` points without a finite result,
    with the reason in ``last_failure``; ``replaced`` the workers. Points that are not finite get
    NaN and are not sent.

    The workers start with the object and stop with ``close()`` (or at the end of a ``with`` block,
    or of the program, also after Ctrl-C); a closed or unpickled one starts them again when it is
    used. Raises ``MissingExtraError`` without ray, ``InputError`` for a factory that cannot be
    pickled or a mistake in the call, ``EnergyError`` where the factory fails on every worker, no
    worker starts within ``start_timeout`` seconds, or all points of a batch fail and none has ever
    succeeded.
    """

    def __init__(
        self,
        factory: Callable[[], Energy],
        workers: int | None = None,
        *,
        address: str | None = None,
        chunk: int | None = None,
        timeout: float | None = 600.0,
        retries: int = 2,
        start_timeout: float = 300.0,
    ):
        super().__init__()
        for name, number, least in (
            ("workers", workers, 1),
            ("chunk", chunk, 1),
            ("retries", retries, 0),
        ):
            if number is not None and number < least:
                raise InputError(f"{name} must be at least {least}, got {number}")
        if timeout is not None and not timeout > 0:
            raise InputError(
                f"timeout must be positive (seconds; None for no limit), got {timeout}"
            )
        from ray import cloudpickle

        try:
            self.factory = cloudpickle.dumps(factory)
        except Exception as error:
            raise InputError(
                f"the factory cannot be sent to workers ({one_line(error)}); give a function that"
                " builds the energy there, as in functools.partial(xtb, numbers)"
            ) from error
        self.workers, self.address, self.chunk = workers, address, chunk
        self.timeout, self.retries, self.start_timeout = timeout, retries, start_timeout
        self.tally = Tally()
        self._pool: Pool | None = None
        self._own: str | None = None  # the Ray that this object started
        self._worked = False  # whether any point has ever had a result
        try:
            facts = self._running().facts()
        except BaseException:
            self.close()
            raise
        self.event_shape, self.zero_com, self.log_z = facts.event_shape, facts.zero_com, facts.log_z

    # what happened

    @property
    def evaluated(self) -> int:
        return self.tally.evaluated

    @property
    def attempts(self) -> int:
        return self.tally.attempts

    @property
    def failures(self) -> int:
        return self.tally.failures

    @property
    def last_failure(self) -> str | None:
        return self.tally.last_failure

    @property
    def replaced(self) -> int:
        return self.tally.replaced

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers of the workers that are ready, each on its own machine."""
        return () if self._pool is None else tuple(slot.facts.pid for slot in self._pool.ready)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}, workers={self.workers}, timeout={self.timeout}"

    # energies

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if x.requires_grad and torch.is_grad_enabled():
            return super().forward(x)
        return self._evaluate(x, False)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        return self._evaluate(x, True)

    def _evaluate(self, x: Tensor, with_grad: bool) -> tuple[Tensor, Tensor | None]:
        batch = x.shape[: x.ndim - len(self.event_shape)]
        points = np.ascontiguousarray(
            x.detach().cpu().reshape(batch.numel(), *self.event_shape).numpy()
        )
        value = np.full(len(points), np.nan, points.dtype)
        grad = np.full_like(points, np.nan) if with_grad else None
        usable = np.isfinite(points).all(tuple(range(1, points.ndim)))
        if usable.any():
            failed, count = self.tally.failures, int(usable.sum())
            pool = self._running()
            size = self.chunk or min(16, -(-count // (4 * len(pool.slots))))
            found, slope = pool.run(points[usable], with_grad, size, self.timeout, self.tally)
            self._worked = self._worked or self.tally.failures - failed < count
            if not self._worked:
                raise EnergyError(
                    f"the energy failed for all of {count} points; {self.last_failure}"
                )
            value[usable] = found
            if with_grad:
                grad[usable] = slope
        value = torch.from_numpy(value).to(x).view(batch)
        return value, torch.from_numpy(grad).to(x).view(x.shape) if with_grad else None

    # workers

    def _running(self) -> Pool:
        """The pool, started where there is none or where the Ray it lived in is gone."""
        import ray

        if not ray.is_initialized():
            self._pool = None
            _start_ray(ray, self.address, self.workers)
            self._own = _session(ray)
        if self._pool is not None and self._pool.session != _session(ray):
            self._pool = None
        if self._pool is None:
            cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
            self._pool = Pool(
                ray, self.factory, self.workers or cores, self.retries, self.start_timeout
            )
        return self._pool

    def close(self) -> None:
        """Stop the workers, and Ray where this object started it."""
        (pool, own), self._pool, self._own = (self._pool, self._own), None, None
        if pool is None and own is None:
            return
        import ray

        here = _session(ray) if ray.is_initialized() else None
        if here is not None and own == here:
            _stop_ray(ray)  # the workers too
        elif here is not None and pool is not None and pool.session == here:
            pool.close()

    def __enter__(self) -> RayEnergy:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pool": None, "_own": None, "tally": replace(self.tally)}


def _session(ray) -> str:
    """Names the Ray that this process is in."""
    return ray.get_runtime_context().get_node_id()


def _start_ray(ray, address: str | None, workers: int | None) -> None:
    """A quiet Ray on this machine, or the cluster at ``address``."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _join(ray, address, quiet)
        return

    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    new = {name: value for name, value in LOCAL.items() if name not in os.environ}
    os.environ.update(new)
    try:
        for left in reversed(
            range(3)
        ):  # Ray waits 30 s for its own processes, too short on a busy machine
            try:
                ray.init(
                    address="local",  # and not a cluster that happens to run on this machine
                    num_cpus=max(cores, workers or 1),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE,
                    **quiet,
                )
                break
            except BaseException as error:
                _stop_ray(ray)
                if not isinstance(error, Exception):  # an interrupt
                    raise
                if not left:
                    raise EnergyError(
                        f"Ray did not start on this machine: {one_line(error)}"
                    ) from error
    finally:
        for name in new:
            os.environ.pop(name, None)

    # Nothing between Ctrl-C and the end of the program may wait for a Ray that hangs: Ray's hook
    # would first report the error to its server, and its own shutdown at exit has no end; this one
    # comes before it.
    hooks = ray._private.worker
    if sys.excepthook is getattr(hooks, "custom_excepthook", None):
        sys.excepthook = hooks.normal_excepthook
    atexit.unregister(_stop_ray)
    atexit.register(_stop_ray, ray)


def _join(ray, address: str, quiet: dict) -> None:
    """The cluster at ``address``. Where an earlier Ray has left a token in the home folder, a head
    of ``ray start`` may ask for one, and a client that does not bring it only waits in vain: it is
    brought first."""
    token_first = MODE not in os.environ and _has_token()
    for mode in ("token", None) if token_first else (None,):
        if mode is not None:
            os.environ[MODE] = mode  # stays: processes to come read it too
            _set_mode(ray, mode)
        try:
            ray.init(address=address, **quiet)
            return
        except (ConnectionError, ValueError, RuntimeError) as failed:
            _stop_ray(ray)
            error = failed
            if mode is not None:
                del os.environ[MODE]
                _set_mode(ray, "disabled")
    raise InputError(
        f"no Ray could be joined at {address!r} ({one_line(error)}). Is its head running (ray"
        f" status --address {address}), with the same versions of Python and Ray? If it asks for a"
        f" token, set {MODE}=token and RAY_AUTH_TOKEN, or put the token into ~/.ray/auth_token"
    ) from error


def _set_mode(ray, mode: str) -> None:
    """For this process: Ray has read its environment when it was imported."""
    config = getattr(ray._raylet, "Config", None)
    if hasattr(config, "initialize"):
        config.initialize(json.dumps({"AUTH_MODE": mode}))


def _has_token() -> bool:
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").is_file()


def _ray_processes(ray) -> list:
    """The processes of a Ray that was started here, as ``Popen`` objects; none in a Ray that was
    joined."""
    node = getattr(ray._private.worker, "_global_node", None)
    running = getattr(node, "all_processes", {})
    return [info.process for infos in list(running.values()) for info in infos]


def _stop_ray(ray) -> None:
    """``ray.shutdown()`` with an end: what has not stopped after ``PATIENCE``, or at Ctrl-C, is
    killed."""
    processes = _ray_processes(ray)

    def kill() -> None:
        for process in processes:
            process.kill()  # the workers end with them

    timer = threading.Timer(PATIENCE, kill)
    timer.daemon = True
    timer.start()
    try:
        ray.shutdown()
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()
