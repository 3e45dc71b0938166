"""RayEnergy on a real local Ray: same numbers, and nothing lost or counted twice when workers die.

The toy energies write down what they evaluate, before and after, so that what ran where is known
from outside.
"""

from __future__ import annotations

import functools
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from absent import make_absent
from orbitwise.energies import ASEEnergy, Counted, LennardJones
from orbitwise.energies.distributed import RayEnergy
from orbitwise.errors import EnergyError, InputError, MissingExtraError
from orbitwise.search import HMC, run

ray = pytest.importorskip("ray", reason="needs orbitwise[ray]")

# what a point does when its first coordinate has this value
EXIT_ONCE, EXIT_ONCE_AFTER, EXIT, HANG, HANG_ONCE, REFUSE, MISTAKE, SLOW = range(101, 109)


def booby_trapped(folder: str):
    """A factory of Σ x² over two points in space, with the traps above; by value, as tests are no
    package."""

    def build():
        import os
        import time

        from orbitwise.energies.analytic import AnalyticEnergy
        from orbitwise.errors import EnergyError

        class Trapped(AnalyticEnergy):
            event_shape, zero_com = (2, 3), False

            def write(self, word, x):
                with open(f"{folder}/{os.getpid()}", "a") as ledger:
                    ledger.writelines(f"{word} {v:.6f}\n" for v in x[:, 1, 2].tolist())

            def first_time(self, mark):
                try:
                    os.close(os.open(f"{folder}/seen-{mark}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return False
                return True

            def value_and_grad(self, x):
                self.write("begin", x)
                marks = {
                    int(v): key.item()
                    for v, key in zip(x[:, 0, 0], x[:, 1, 2], strict=True)
                    if v > 100
                }
                for mark, key in marks.items():
                    if mark == EXIT or (mark == EXIT_ONCE and self.first_time(key)):
                        os._exit(1)
                    if mark == HANG or (mark == HANG_ONCE and self.first_time(key)):
                        time.sleep(3600)
                    if mark == REFUSE:
                        raise EnergyError("the field did not converge")
                    if mark == MISTAKE:
                        raise TypeError("no such\nelement")
                    if mark == SLOW:
                        time.sleep(0.05)
                value, grad = x.square().sum((-1, -2)), 2 * x
                self.write("end", x)
                for mark, key in marks.items():
                    if mark == EXIT_ONCE_AFTER and self.first_time(key):
                        os._exit(1)  # computed, but nobody will ever know
                return value, grad

            def forward(self, x):
                return self.value_and_grad(x)[0] if not x.requires_grad else super().forward(x)

        return Trapped()

    return build


class Ledger:
    def __init__(self, folder: Path):
        self.folder = folder

    def clear(self):
        for path in self.folder.iterdir():
            path.unlink()

    def count(self, word: str) -> dict[float, int]:
        """How often each point (by its last coordinate) began or ended."""
        found: dict[float, int] = {}
        for path in self.folder.iterdir():
            for line in path.read_text().splitlines():
                if line.startswith(word):
                    key = float(line.split()[1])
                    found[key] = found.get(key, 0) + 1
        return found


def marked(count, marks=None, seed=0):
    """Points with a running number as last coordinate and traps where ``marks`` says."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, 3, generator=gen, dtype=torch.float64)
    x[:, 1, 2] = torch.arange(count)
    for row, mark in (marks or {}).items():
        x[row, 0, 0] = mark
    return x


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    """One Ray for the module, with a third place so that a test can have a worker of its own."""
    from orbitwise.energies.distributed import _start_ray

    ray.shutdown()
    _start_ray(ray, None, 3)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(tmp_path_factory, local_ray):
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    with RayEnergy(booby_trapped(str(ledger.folder)), 2, chunk=4, timeout=5.0, retries=1) as energy:
        yield energy, ledger


@pytest.fixture
def trapped(pool):
    energy, ledger = pool
    ledger.clear()
    return energy, ledger


def correct(x, value, grad, bad=()):
    good = [k for k in range(len(x)) if k not in bad]
    assert torch.equal(value[good], x[good].square().sum((-1, -2)))
    assert torch.equal(grad[good], 2 * x[good])
    assert torch.isnan(value[list(bad)]).all() and torch.isnan(grad[list(bad)]).all()


@pytest.mark.parametrize("size", [(), (1,), (9,), (2, 3), (0,), (3, 0)])
def test_values_gradients_and_shapes(trapped, size):
    energy, ledger = trapped
    before = (energy.evaluated, energy.attempts)
    x = marked(math.prod(size)).view(*size, 2, 3)
    value, grad = energy.value_and_grad(x)
    assert value.shape == size and grad.shape == x.shape
    assert torch.equal(value, x.square().sum((-1, -2))) and torch.equal(grad, 2 * x)
    assert torch.equal(energy(x), value)
    assert energy.event_shape == (2, 3) and not energy.zero_com
    assert energy.evaluated - before[0] == energy.attempts - before[1] == 2 * math.prod(size)
    assert all(n == 2 for n in ledger.count("end").values())


def test_dtype_autograd_and_input(trapped):
    energy, ledger = trapped
    x = marked(5).float()
    value, grad = energy.value_and_grad(x)
    assert value.dtype == grad.dtype == energy(x).dtype == torch.float32
    y = x.double().requires_grad_()
    weights = torch.arange(5.0, dtype=torch.float64)
    (through,) = torch.autograd.grad((weights * energy(y)).sum(), y)
    assert torch.equal(through, weights[:, None, None] * 2 * y.detach())
    with pytest.raises(InputError, match=r"\(\*B, 2, 3\)"):
        energy(torch.zeros(2, 5, 3))
    ledger.clear()
    z = marked(6)
    z[2, 1, 1], z[4, 0, 0] = math.nan, math.inf
    before = energy.attempts
    value, grad = energy.value_and_grad(z)
    correct(z, value, grad, bad=(2, 4))
    assert energy.attempts - before == 4 and set(ledger.count("begin")) == {0, 1, 3, 5}
    assert torch.isnan(energy(z[2])) and energy.attempts - before == 4


def test_workers_that_die_at_work(trapped):
    """Before the computation and between the computation and the answer."""
    energy, ledger = trapped
    marks = {3: EXIT_ONCE, 17: EXIT_ONCE_AFTER, 30: EXIT_ONCE}
    x = marked(36, marks)
    before, attempts, replaced = energy.evaluated, energy.attempts, energy.replaced
    value, grad = energy.value_and_grad(x)
    correct(x, value, grad)
    assert energy.evaluated - before == 36 and energy.replaced - replaced >= 3
    ended = ledger.count("end")
    assert set(ended) == set(range(36))
    assert ended[17] >= 2  # computed twice, counted once
    assert energy.attempts - attempts >= sum(ledger.count("begin").values()) > 36


def test_workers_that_are_killed_from_outside(trapped):
    energy, ledger = trapped
    x = marked(80, dict.fromkeys(range(80), SLOW))
    replaced = energy.replaced
    while len(energy.pids) < 2:  # a replacement may still be starting
        time.sleep(0.1)
        energy(x[:1])
    before = energy.evaluated
    victim, actor = energy.pids[0], energy._pool.ready[1].actor
    killed = []

    def wait_for(points: int):
        deadline = time.monotonic() + 60
        while len(ledger.count("end")) < points and time.monotonic() < deadline:
            time.sleep(0.02)

    def kill():
        wait_for(8)
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
        wait_for(16)
        ray.kill(actor)
        killed.append(actor)

    thread = threading.Thread(target=kill)
    thread.start()
    value, grad = energy.value_and_grad(x)
    thread.join()
    correct(x, value, grad)
    assert len(killed) == 2 and energy.replaced - replaced >= 2 and victim not in energy.pids
    assert energy.evaluated - before == 80
    assert set(ledger.count("end")) == set(range(80))


@pytest.mark.slow  # several times the five seconds after which a worker counts as hanging
def test_poison_and_hanging_points_become_nan(trapped):
    energy, ledger = trapped
    marks = {5: EXIT, 9: HANG, 14: REFUSE, 20: HANG_ONCE}
    x = marked(24, marks)
    before, failures, replaced = energy.evaluated, energy.failures, energy.replaced
    value, grad = energy.value_and_grad(x)
    correct(x, value, grad, bad=(5, 9, 14))
    assert energy.evaluated - before == 21 and energy.failures - failures == 3
    # each in its chunk and retries + 1 = 2 times alone, the third asked twice; no endless loop
    assert 3 + 3 + 1 <= energy.replaced - replaced <= 12
    began = ledger.count("begin")
    assert began[5] <= 5 and began[9] <= 5 and 2 <= began[14] <= 4
    assert energy.last_failure.startswith(
        ("The actor died", "took longer than 5 s", "the field did not")
    )


def test_a_mistake_is_passed_on_in_one_line(trapped):
    energy, _ = trapped
    with pytest.raises(
        EnergyError, match=r"^the energy failed in a worker; TypeError: no such element$"
    ):
        energy(marked(3, {1: MISTAKE}))
    x = marked(6)
    assert torch.equal(energy(x), x.square().sum((-1, -2)))  # and it goes on


def test_every_kernel_and_the_counter(trapped):
    energy, ledger = trapped
    counted, kernel = Counted(energy), HMC(step_size=0.2, leapfrog_steps=3)
    x, before = marked(8) / 10, energy.evaluated
    gen = torch.Generator().manual_seed(1)
    with counted.stage("search"):
        trace = run(kernel, kernel.init(x, counted), counted, 4, generator=gen)
    again = torch.Generator().manual_seed(1)

    class Plain(type(energy).__mro__[1]):
        event_shape = (2, 3)

        def value_and_grad(self, x):
            return x.square().sum((-1, -2)), 2 * x

    plain = Plain()
    expected = run(kernel, kernel.init(x, plain), plain, 4, generator=again)
    assert torch.equal(trace.x, expected.x)
    assert counted.counts["search"].gradient == energy.evaluated - before
    assert sum(ledger.count("end").values()) == counted.counts["search"].gradient


def test_an_ase_calculator_and_a_copy():
    def build():
        from ase import Atoms
        from ase.calculators.emt import EMT

        from orbitwise.energies import ASEEnergy

        return ASEEnergy(Atoms("Cu5"), EMT(), temperature=500.0)

    gen = torch.Generator().manual_seed(2)
    base = 2.5 * torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)[:5]
    x = base + 0.1 * torch.randn(7, 5, 3, generator=gen, dtype=torch.float64)
    with RayEnergy(build, 1, chunk=2) as energy:
        assert energy.zero_com and energy.event_shape == (5, 3)
        value, grad = energy.value_and_grad(x)
        inner: ASEEnergy = build()
        expected, slope = inner.value_and_grad(x)
        assert torch.equal(value, expected) and torch.equal(grad, slope)
        copy = pickle.loads(pickle.dumps(energy))
        assert copy.pids == () and copy.evaluated == 7 and len(energy.pids) == 1
    with copy:
        assert torch.equal(copy(x[0]), expected[0]) and (copy.evaluated, energy.evaluated) == (8, 7)
    assert energy.pids == copy.pids == ()


def test_xtb_under_a_kernel():
    pytest.importorskip("tblite.ase", reason="needs orbitwise[xtb]")
    from orbitwise.energies.ase import xtb

    factory = functools.partial(xtb, [8, 1, 1], temperature=300.0)
    x = torch.tensor(
        [[0.0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]], dtype=torch.float64
    ).repeat(3, 1, 1)
    kernel, traces = HMC(step_size=0.02, leapfrog_steps=3), []
    with RayEnergy(factory, 1) as energy:
        for u in (energy, factory()):
            gen = torch.Generator().manual_seed(3)
            traces.append(run(kernel, kernel.init(x, u), u, 5, generator=gen))
        broken = x[:2].clone()
        broken[0, 1] = broken[0, 2]  # atoms on top of one another
        assert torch.isnan(energy(broken)).tolist() == [True, False] and energy.failures == 1
    assert torch.equal(traces[0].x, traces[1].x) and (traces[0].x[0] != traces[0].x[-1]).any()


def test_factories_that_do_not_work():
    def no_licence():
        raise RuntimeError("no\nlicence")

    with pytest.raises(EnergyError, match=r"failed on every worker; RuntimeError: no licence$"):
        RayEnergy(no_licence, 1, retries=0)
    with pytest.raises(EnergyError, match="must return an Energy, it gave dict"):
        RayEnergy(dict, 1, retries=0)
    with pytest.raises(InputError, match="cannot be sent to workers"):
        RayEnergy(functools.partial(LennardJones, threading.Lock()), 1)
    for wrong in ({"workers": 0}, {"chunk": 0}, {"retries": -1}, {"timeout": 0.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RayEnergy(functools.partial(LennardJones, 5), **wrong)


def test_a_missing_ray_names_the_extra(monkeypatch):
    make_absent("ray", monkeypatch)
    with pytest.raises(MissingExtraError, match=r"orbitwise\[ray\]"):
        RayEnergy(functools.partial(LennardJones, 5))


SCRIPT = """
import os, signal, sys, time, torch
from orbitwise.energies.base import Energy
from orbitwise.energies.distributed import RayEnergy, _ray_processes

# a shell's "pytest &" hands down that it is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = sys.argv[1]

class Slow(Energy):
    event_shape = (1, 3)
    def forward(self, x):
        os.close(os.open(folder + "/busy", os.O_CREAT))
        time.sleep(3600)

energy = RayEnergy(Slow, 1)
import ray
print(*energy.pids, *[process.pid for process in _ray_processes(ray)], flush=True)
energy(torch.zeros(4, 1, 3))
"""


@pytest.mark.parametrize(
    "stuck",
    [
        pytest.param(False, id="ray-well"),
        pytest.param(True, id="ray-stuck", marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_no_process(tmp_path, stuck):
    script = tmp_path / "slow.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path)]
    with open(
        tmp_path / "err", "wb"
    ) as err:  # no pipe: a process that stays behind would hold it open
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err)
    family = []
    try:
        family = [int(word) for word in process.stdout.readline().split()]
        assert len(family) >= 3, (tmp_path / "err").read_text()  # a worker, raylet and gcs_server
        while not (tmp_path / "busy").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)  # the program has sent the point, and now comes to wait for the answer
        for pid in family[1:] if stuck else []:
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.wait(
            timeout=90
        )  # takes 2 s, stuck 12 s, and several times that on a machine with much to do
        assert process.returncode != 0 and "KeyboardInterrupt" in (tmp_path / "err").read_text()
        deadline = time.monotonic() + 60
        while any(map(alive, family)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, family))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for pid in filter(alive, family):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """A process that is not a zombie: an orphan waits for whoever inherits it to collect it."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    return state.strip()[:1] not in ("", "Z")


def test_an_interrupt_while_the_workers_start(monkeypatch):
    """Nobody holds the object then, so nobody could stop the Ray that it has started."""
    ray.shutdown()  # the module's own

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("orbitwise.energies.distributed.Pool", interrupt)
    with pytest.raises(KeyboardInterrupt):
        RayEnergy(functools.partial(LennardJones, 5), 1)
    assert not ray.is_initialized()
