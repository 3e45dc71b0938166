"""Fixtures of several files, the processor time of each file, and switches that shake rounding.

Real data: a test that reads it takes the fixture ``shared_data`` (it then carries the marker
``data`` by itself) and is skipped, with the name of the file, where that file is missing.

Processor time: the seconds of every file, of its child processes too, stand at the end of a run
with ``--durations``. ``ORBITWISE_CPU_LIMIT=10`` fails a run in which a file of ``tests/methods``
took more, and names it.

Rounding: a test must not hold only by the rounding of one machine. ``make test-rounding`` repeats
the cheap part of the suite under each of

- ``OMP_NUM_THREADS=1`` and ``=2``: sums are taken in another order;
- ``ATEN_CPU_CAPABILITY=default`` and ``=avx2``: vectors of another width;
- ``ORBITWISE_MKLDNN=0``: PyTorch's own kernels instead of oneDNN's;
- ``ORBITWISE_PERTURB=1e-12``: every number of ``torch.randn`` and ``torch.rand`` is moved by that
  relative size (float32: by two units of rounding), always the same way for the same number.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"  # beside the project, where it exists
SECONDS = pytest.StashKey[dict[str, float]]()


# -- fixtures --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("rmd17/ethanol.npz")``: the path, or the test is skipped."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"needs {name} of the data sets beside the project")
        return DATA / name

    return find


def pytest_itemcollected(item: pytest.Item) -> None:
    if "shared_data" in getattr(item, "fixturenames", ()):
        item.add_marker("data")


# -- processor time --------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    # a job in the background is begun with Ctrl-C ignored, and would hand that on to the commands
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[SECONDS] = defaultdict(float)
    if os.environ.get("ORBITWISE_MKLDNN") == "0":
        torch.backends.mkldnn.set_flags(False)
    if perturbation := float(os.environ.get("ORBITWISE_PERTURB", 0)):
        torch.randn = perturbed(torch.randn, perturbation)
        torch.rand = perturbed(torch.rand, perturbation)


def cpu_seconds() -> float:
    return sum(os.times()[:4])  # user and system, of this process and of ended children


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    start = cpu_seconds()
    try:
        return (yield)
    finally:
        file = item.path.relative_to(ROOT).as_posix()
        item.config.stash[SECONDS][file] += cpu_seconds() - start


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:  # a worker of pytest-xdist hands over what it measured
    for file, seconds in getattr(node, "workeroutput", {}).get("cpu_seconds", {}).items():
        node.config.stash[SECONDS][file] += seconds


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    seconds = session.config.stash[SECONDS]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cpu_seconds"] = dict(seconds)
    elif over_the_limit(seconds):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def over_the_limit(seconds: dict[str, float]) -> dict[str, float]:
    limit = float(os.environ.get("ORBITWISE_CPU_LIMIT", "inf"))
    return {f: s for f, s in seconds.items() if f.startswith("tests/methods/") and s > limit}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    seconds = config.stash[SECONDS]
    if config.option.durations is not None:
        terminalreporter.section("processor seconds of each file")
        for file, value in sorted(seconds.items(), key=lambda pair: -pair[1]):
            terminalreporter.line(f"{value:7.1f}  {file}")
    if over := over_the_limit(seconds):
        terminalreporter.section("methods whose tests take too long", red=True)
        for file, value in over.items():
            terminalreporter.line(f"{value:7.1f} s of processor time  {file}", red=True)


# -- rounding --------------------------------------------------------------------------------------


def perturbed(draw: Callable[..., Tensor], size: float) -> Callable[..., Tensor]:
    """``draw`` with every number made smaller by up to ``size`` of itself."""

    def drawn(*shape, **options) -> Tensor:
        x = draw(*shape, **options)
        with torch.no_grad():
            most = max(size, 2 * torch.finfo(x.dtype).eps)
            return (x * (1 - most * (1e4 * x).cos().square())).requires_grad_(x.requires_grad)

    return drawn
