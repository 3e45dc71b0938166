"""`--workers`: the same energies from several processes, which end with the run."""

from __future__ import annotations

import pytest
import torch

from orbitwise.cli.app import main
from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.energy import build_system, opened
from orbitwise.molecules.molecule import embed


def test_workers_give_the_numbers_of_the_loop_and_end():
    ray = pytest.importorskip("ray", reason="needs orbitwise[ray]")
    pytest.importorskip("tblite", reason="needs orbitwise[xtb]")
    alone, _ = build_system(ConformersConfig(smiles="CO", energy="xtb"))
    x = torch.as_tensor(embed(alone.mol, 3, 0), dtype=alone.dtype)
    started = not ray.is_initialized()
    with opened(ConformersConfig(smiles="CO", energy="xtb", workers=2)) as (system, _):
        inner = system.energy.inner
        value, grad = system.energy.value_and_grad(x)
        assert inner.workers == 2 and inner.pids and inner.evaluated == 3
        assert (system.device, system.dtype) == (alone.device, alone.dtype)
        assert system.energy.zero_com and system.energy.event_shape == (6, 3)
    assert inner.pids == () and ray.is_initialized() == (not started)
    expected, slope = alone.energy.value_and_grad(x)
    assert torch.equal(value, expected) and torch.equal(grad, slope)


def test_fast_energies_take_no_workers(capfd, tmp_path):
    with pytest.raises(InputError, match="mmff94 needs none"):
        build_system(ConformersConfig(smiles="CO", workers=2))
    assert main(["conformers", "CO", "--workers", "2", "--out", str(tmp_path / "out")]) == 2
    assert "workers are for slow energies" in capfd.readouterr().err
    assert main(["conformers", "CO", "--workers", "0"]) == 2
    assert "workers" in capfd.readouterr().err and not (tmp_path / "out").exists()
