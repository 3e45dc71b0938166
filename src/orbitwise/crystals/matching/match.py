"""Crystal structure prediction: match rate and RMSE of one to k guesses, as DiffCSP reports
them."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from orbitwise.crystals.matching.cells import CellMatcher
from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.runs.workers import begin_worker

if TYPE_CHECKING:
    from pymatgen.core import Structure

_CHUNK = 8  # items that travel to a worker together
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Measured:
    """A mean with its standard error, over ``count`` items."""

    value: float
    error: float
    count: int


@dataclass(frozen=True)
class MatchResult:
    """What every guess is worth.

    ``rms (M, K)``: normalised rms distance of guess k from truth m, NaN where it does not match or
    is not valid (and where there are fewer guesses); ``valid (M, K)`` and ``truth_valid (M,)``;
    ``failed (M, K)``: pairs that were given up (an exception or more than the time allowed) and
    count as no match.
    """

    rms: np.ndarray
    valid: np.ndarray
    truth_valid: np.ndarray
    failed: np.ndarray

    def __len__(self) -> int:
        return len(self.rms)

    def best(self, guesses: int | None = None) -> np.ndarray:
        """Smallest rms distance among the first ``guesses`` (all by default), ``(M,)``, NaN where
        none matches."""
        rms = np.where(np.isnan(self.rms[:, :guesses]), np.inf, self.rms[:, :guesses]).min(
            1, initial=np.inf
        )
        return np.where(np.isinf(rms), np.nan, rms)

    def rate(self, guesses: int | None = None) -> Measured:
        """Share of items that one of the first guesses matches; binomial error (of (x+1)/(n+2), so
        never zero)."""
        matched = ~np.isnan(self.best(guesses))
        p = (matched.sum() + 1) / (len(matched) + 2)
        return Measured(float(matched.mean()), math.sqrt(p * (1 - p) / len(matched)), len(matched))

    def rmse(self, guesses: int | None = None) -> Measured:
        """Mean over the matched items of the smallest rms distance (the papers' RMSE), with its
        standard error."""
        best = self.best(guesses)
        best = best[~np.isnan(best)]
        error = float(best.std(ddof=1) / math.sqrt(len(best))) if len(best) > 1 else math.nan
        return Measured(float(best.mean()) if len(best) else math.nan, error, len(best))


def structurally_valid(structure: Structure, cutoff: float = 0.5, volume: float = 0.1) -> bool:
    """CDVAE's test (arXiv 2110.06197, section 5.2): no two atoms nearer than ``cutoff`` Å under
    periodic boundary conditions, cell of at least ``volume`` Å³, everything finite. An atom's own
    images are not looked at, as there."""
    lattice, frac = np.asarray(structure.lattice.matrix), np.asarray(structure.frac_coords)
    if (
        not (np.isfinite(lattice).all() and np.isfinite(frac).all())
        or abs(np.linalg.det(lattice)) < volume
    ):
        return False
    distances = structure.distance_matrix
    return bool((distances + np.diag(np.full(len(distances), cutoff + 10.0))).min() >= cutoff)


def match(
    predicted: Sequence[Sequence[Structure | None]],
    truth: Sequence[Structure],
    *,
    stol: float = 0.5,
    ltol: float = 0.3,
    angle_tol: float = 10.0,
    valid_composition: Callable[[Structure], bool] | None = None,
    workers: int = 1,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> MatchResult:
    """Compare guesses with the truth, ``predicted[m][k]`` with ``truth[m]`` (None: a guess that
    could not be made).

    The distance is that of pymatgen's ``StructureMatcher(stol, ltol, angle_tol).get_rms_dist`` (see
    ``CellMatcher``). As in DiffCSP (arXiv 2309.04475, section 5.1, and its published ``RecEval``) a
    guess counts only where it and the truth are structurally valid. DiffCSP asks both for a
    charge-neutral composition too (by SMACT), which in structure prediction is a property of the
    given formula: pass ``valid_composition`` for that.

    ``workers`` processes share the work (a script that calls this with more than one needs the
    usual ``if __name__ == "__main__":``); a pair that takes more than ``timeout`` seconds or raises
    is given up and counted. ``progress(done, items)`` is called as items are finished. Raises
    ``InputError`` for inputs of different lengths, and ``OrbitwiseError`` where a worker process
    dies.
    """
    if len(predicted) != len(truth) or not len(truth):
        raise InputError(
            f"{len(predicted)} lists of guesses for {len(truth)} structures; give as many, and some"
        )

    matcher = CellMatcher(stol, ltol, angle_tol)
    fine = valid_composition or (lambda structure: True)
    width = max(1, *map(len, predicted))
    result = MatchResult(
        rms=np.full((len(truth), width), np.nan),
        valid=np.zeros((len(truth), width), dtype=bool),
        truth_valid=np.array([fine(structure) for structure in truth]),
        failed=np.zeros((len(truth), width), dtype=bool),
    )
    jobs = [
        _Job(
            m,
            _pack(truth[m]),
            [p if p is None or not fine(p) else _pack(p) for p in guesses],
            matcher,
            timeout,
        )
        for m, guesses in enumerate(predicted)
    ]

    for done, (m, answer) in enumerate(_answers(jobs, workers), 1):
        for k, (rms, valid, failed) in enumerate(answer.guesses):
            result.valid[m, k], result.failed[m, k] = valid, failed
            if answer.truth_valid and result.truth_valid[m] and valid:
                result.rms[m, k] = rms
        result.truth_valid[m] &= answer.truth_valid
        if progress is not None:
            progress(done, len(jobs))
    return result


_Arrays = tuple[
    np.ndarray, list[int], np.ndarray
]  # a structure as it travels: lattice, numbers, coordinates


@dataclass(frozen=True)
class _Job:
    item: int
    truth: _Arrays
    guesses: list[_Arrays | None]
    matcher: CellMatcher
    timeout: float


@dataclass(frozen=True)
class _Answer:
    truth_valid: bool
    guesses: list[tuple[float, bool, bool]]


def _pack(structure: Structure) -> _Arrays:
    numbers = [site.specie.Z for site in structure]
    return np.array(structure.lattice.matrix), numbers, np.array(structure.frac_coords)


def _unpack(arrays: _Arrays) -> Structure:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(arrays[0]), arrays[1], arrays[2])


def _compare(job: _Job) -> _Answer:
    """All guesses for one item; the truth is reduced once."""
    truth = _unpack(job.truth)
    if not structurally_valid(truth):
        return _Answer(False, [(math.nan, False, False)] * len(job.guesses))
    reduced = job.matcher.reduce(truth)
    answers = []
    for packed in job.guesses:
        valid = False
        try:
            with _at_most(job.timeout):
                guess = None if packed is None else _unpack(packed)
                valid = guess is not None and structurally_valid(guess)
                rms = job.matcher.rms(job.matcher.reduce(guess), reduced) if valid else math.nan
        except Exception:  # whatever a broken guess does to the library, it is no match
            answers.append((math.nan, valid, True))
        else:
            answers.append((rms, valid, False))
    return _Answer(True, answers)


def _compare_all(jobs: list[_Job]) -> list[tuple[int, _Answer]]:
    return [(job.item, _compare(job)) for job in jobs]


def _answers(jobs: list[_Job], workers: int) -> Iterator[tuple[int, _Answer]]:
    if workers <= 1:
        for job in jobs:
            yield job.item, _compare(job)
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=begin_worker,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        waiting = {
            pool.submit(_compare_all, jobs[k : k + _CHUNK]) for k in range(0, len(jobs), _CHUNK)
        }
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        except BrokenProcessPool as error:
            raise OrbitwiseError(
                "a worker process died while structures were compared (out of memory, or the"
                ' calling script lacks if __name__ == "__main__":); try workers=1'
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started within do their linear algebra on one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """``TimeoutError`` after so many seconds, where the system can interrupt (POSIX, main thread of
    a process)."""
    possible = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if not possible:
        yield
        return

    def stop(*_) -> None:
        raise TimeoutError(f"more than {seconds:g} s for one pair")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
