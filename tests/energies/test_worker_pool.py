"""The scheduler against a simulated cluster: thousands of deaths, hangs and lost replies without a
process.

Oracle: whatever happens, every good point gets its own result, once; every bad one NaN; the books
add up.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

from orbitwise.energies import worker_pool
from orbitwise.energies.worker_pool import Answer, Facts, Pool, Tally, Trouble
from orbitwise.errors import EnergyError, InputError

DEADLY, ENDLESS, REFUSED, MISTAKEN = 101.0, 102.0, 103.0, 104.0


class RayError(Exception):
    pass


class Actor:
    """Does what it is sent in order, in simulated time, until it dies."""

    def __init__(self, cluster):
        self.cluster, self.tasks, self.alive = cluster, [], True
        self.replies = {}  # computed, but still on the way
        self.build = SimpleNamespace(remote=lambda factory: self._take(("build",)))
        self.evaluate = SimpleNamespace(
            remote=lambda points, grad: self._take(("evaluate", points, grad))
        )

    def _take(self, task):
        ref = object()
        assert len([r for r, _ in self.tasks if r not in self.cluster.done]) < worker_pool.DEPTH
        self.tasks.append((ref, task))
        if not self.alive:
            self.cluster.done[ref] = RayError("dead\nlong report\nkilled from outside")
        return ref

    def die(self):
        self.alive = False
        if self in self.cluster.actors:
            self.cluster.actors.remove(self)
        for ref, _ in self.tasks:
            self.cluster.done.setdefault(ref, RayError("dead\nlong report\nkilled from outside"))

    def deliver(self):
        self.cluster.done.update(self.replies)
        self.replies.clear()

    def step(self):
        """One task, or the death of the actor before it, after it, or between the result and its
        delivery."""
        if self.cluster.random.random() < 0.7:
            self.deliver()
        gone = self.cluster.done.keys() | self.replies.keys()
        open_tasks = [(ref, task) for ref, task in self.tasks if ref not in gone]
        if not self.alive or not open_tasks:
            return
        ref, task = open_tasks[0]
        cluster, chance = self.cluster, self.cluster.random.random
        if chance() < cluster.mortality:
            return self.die()
        if task[0] == "build":
            bad = chance() < cluster.bad_builds
            self.replies[ref] = (
                Trouble(Exception, "no licence") if bad else Facts((2,), True, None, 1)
            )
            return
        points = task[1]
        if (points == ENDLESS).any():
            return
        if (points == DEADLY).any():
            return self.die()
        cluster.executed += len(points)
        if chance() < cluster.mortality:
            return self.die()
        if (points == REFUSED).any():
            self.replies[ref] = Trouble(EnergyError, "not converged")
        elif (points == MISTAKEN).any():
            self.replies[ref] = Trouble(InputError, "wrong element")
        else:
            self.replies[ref] = Answer(points.sum(1), 2 * points if task[2] else None, 0, None)


class Cluster:
    """As much of Ray as the pool uses."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, seed, mortality=0.0, bad_builds=0.0):
        self.random, self.mortality, self.bad_builds = random.Random(seed), mortality, bad_builds
        self.now, self.done, self.actors, self.executed, self.started = 0.0, {}, [], 0, 0
        self.remote = lambda cls: SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=self._actor)
        )
        self.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "here")
        self.is_initialized = lambda: True
        self.cluster_resources = lambda: {"CPU": 2.0}
        self.monotonic = lambda: self.now

    def _actor(self):
        self.actors.append(Actor(self))
        self.started += 1
        return self.actors[-1]

    def kill(self, actor):
        actor.die()

    def get(self, ref):
        result = self.done[ref]
        if isinstance(result, Exception):
            raise result
        return result

    def wait(self, refs, num_returns, timeout, fetch_local):
        passed = 0.0
        while timeout != 0 and not any(ref in self.done for ref in refs):
            for actor in self.random.sample(self.actors, len(self.actors)):
                if self.random.random() < 0.5:
                    actor.step()
            passed += 0.1
            self.now += 0.1
            if timeout is not None and passed >= timeout:
                break
            assert passed < 1e4, "waits for ever"
        return [ref for ref in refs if ref in self.done][:num_returns], []


def points(count, special=()):
    x = np.arange(2.0 * count).reshape(count, 2) / 100
    for row, kind in special:
        x[row, 0] = kind
    return x


def run(monkeypatch, cluster, x, *, size=4, timeout=20.0, retries=2, workers=3, grad=True):
    monkeypatch.setattr(worker_pool, "time", cluster)
    tally = Tally()
    pool = Pool(cluster, b"", workers, retries, 50.0)
    value, slope = pool.run(x, grad, size, timeout, tally)
    return value, slope, tally, pool


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_quiet_cluster_sends_everything_once(monkeypatch, size):
    cluster, x = Cluster(0), points(23)
    value, slope, tally, pool = run(monkeypatch, cluster, x, size=size)
    assert np.array_equal(value, x.sum(1)) and np.array_equal(slope, 2 * x)
    assert tally == Tally(evaluated=23, attempts=23) and cluster.executed == 23
    assert run(monkeypatch, Cluster(0), x, grad=False)[1] is None
    pool.close()
    assert not cluster.actors


def test_no_point_is_lost_or_counted_twice(monkeypatch):
    """Random deaths, also between the computation and the reply."""
    lost = 0
    for seed in range(200):
        cluster, x = Cluster(seed, mortality=0.15), points(29)
        value, slope, tally, _ = run(monkeypatch, cluster, x, size=1 + seed % 7, retries=40)
        assert np.array_equal(value, x.sum(1)) and np.array_equal(slope, 2 * x)
        assert tally.evaluated == 29 and tally.failures == 0
        assert cluster.executed >= 29 and tally.attempts >= cluster.executed
        assert tally.replaced <= cluster.started - 3
        lost += tally.attempts - 29
    assert lost > 1000  # the simulation is as hostile as it means to be


def test_bad_points_are_isolated_and_end(monkeypatch):
    bad = [(3, DEADLY), (4, ENDLESS), (11, REFUSED), (17, DEADLY), (18, ENDLESS)]
    for seed in range(100):
        cluster, x = Cluster(seed), points(24, bad)
        value, slope, tally, _ = run(monkeypatch, cluster, x, size=1 + seed % 8, retries=seed % 3)
        nan = np.isin(np.arange(24), [row for row, _ in bad])
        assert np.array_equal(np.isnan(value), nan) and np.isnan(slope[nan]).all()
        assert np.array_equal(value[~nan], x[~nan].sum(1)) and np.array_equal(
            slope[~nan], 2 * x[~nan]
        )
        assert tally.evaluated == 19 and tally.failures == 5
        # each deadly or endless point costs its chunk and retries + 1 attempts alone, and now and
        # then takes the answer of the chunk before it away
        assert 4 * (1 + seed % 3) <= tally.replaced <= 4 * (2 + seed % 3) + 24


def test_deaths_and_bad_points_together(monkeypatch):
    for seed in range(60):
        bad = [(0, DEADLY), (9, ENDLESS), (20, REFUSED)]
        value, _, tally, _ = run(monkeypatch, Cluster(seed, 0.1, 0.1), points(21, bad), retries=12)
        assert np.isnan(value).sum() == 3 == tally.failures and tally.evaluated == 18


def test_a_busy_worker_that_is_killed_between_calls(monkeypatch):
    cluster = Cluster(0)
    _, _, _, pool = run(monkeypatch, cluster, points(8))
    for actor in list(cluster.actors):
        actor.die()
    tally = Tally()
    value, _ = pool.run(points(8), False, 2, 20.0, tally)
    assert np.array_equal(value, points(8).sum(1)) and tally.evaluated == 8


def test_a_mistake_in_the_call_is_raised_and_leaves_nothing_running(monkeypatch):
    cluster = Cluster(0)
    with pytest.raises(InputError, match="wrong element"):
        run(monkeypatch, cluster, points(40, [(5, MISTAKEN)]))
    for actor in cluster.actors:  # those that are left are idle or still building
        assert all(ref in cluster.done for ref, task in actor.tasks if task[0] == "evaluate")


def test_a_factory_that_fails_everywhere_and_one_that_fails_sometimes(monkeypatch):
    with pytest.raises(EnergyError, match=r"failed on every worker; no licence$"):
        run(monkeypatch, Cluster(0, bad_builds=1.0), points(5))
    for seed in range(50):
        value, *_ = run(monkeypatch, Cluster(seed, bad_builds=0.3), points(5), retries=30)
        assert np.isfinite(value).all()


def test_a_cluster_without_room(monkeypatch):
    cluster = Cluster(0)
    cluster.random.random = lambda: 0.9  # nobody ever does anything
    with pytest.raises(EnergyError, match="within 50 s; Ray has 2 CPUs in all"):
        run(monkeypatch, cluster, points(3))


def test_a_slow_point_holds_at_most_the_chunk_behind_it(monkeypatch):
    cluster, x = Cluster(0), points(60, [(0, ENDLESS)])
    order = []
    keep = worker_pool.Batch.keep

    def noted(self, chunk, answer):
        order.append((cluster.now, chunk.rows.tolist()))
        keep(self, chunk, answer)

    monkeypatch.setattr(worker_pool.Batch, "keep", noted)
    run(monkeypatch, cluster, x, size=1, timeout=500.0, retries=0)
    early = [rows for when, rows in order if when < 400]
    assert len(early) == 58  # all but the endless one and the one that waited behind it
