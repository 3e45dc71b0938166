"""A cluster whose head was started on the command line, where an earlier Ray has left a token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs orbitwise[ray]")

JOIN = """
import functools, sys, torch
from orbitwise.energies import LennardJones
from orbitwise.energies.distributed import RayEnergy

x = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0))
with RayEnergy(functools.partial(LennardJones, 5), workers=1, address=sys.argv[1]) as energy:
    assert torch.equal(energy(x), LennardJones(5)(x))
    print("joined", energy.evaluated)
"""


@pytest.fixture
def head(tmp_path):
    """Its address, and the environment of its user."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("5f" * 32)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    ray = Path(sys.executable).parent / "ray"
    begin = [ray, "start", "--head", "--num-cpus=1", f"--port={port}", "--include-dashboard=false"]
    with subprocess.Popen(
        [*begin, "--object-store-memory=100000000", "--block"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout:
                if "ray stop" in line or "Ray runtime started" in line:
                    break
            yield f"127.0.0.1:{port}", environment
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_a_head_of_the_command_line_is_joined(head, tmp_path):
    address, environment = head
    ended = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout.strip() == "joined 3", ended.stderr[-2000:]
