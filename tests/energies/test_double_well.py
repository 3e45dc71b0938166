from pathlib import Path

import numpy as np
import pytest
import torch

from orbitwise.energies import DoubleWell

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "boltzmann_generated" / "dw4.npz"


def test_against_a_plain_double_loop():
    x = 3 * torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energy = DoubleWell().double()
    for row, value in zip(x, energy(x), strict=True):
        total = 0.0
        for i in range(4):
            for j in range(i):
                d = float((row[i] - row[j]).norm()) - 4.0
                total += 0.9 * d**4 - 4.0 * d**2
        assert abs(total - value.item()) < 1e-10 * abs(total) + 1e-10


def test_log_z_is_known_for_dw4_only():
    assert DoubleWell().log_z == 29.665
    assert DoubleWell(3).log_z is None and DoubleWell(quartic=1.0).log_z is None


@pytest.mark.data
def test_reference_samples_have_the_stated_energy_and_virial():
    if not DATA.exists():
        pytest.skip(f"no data at {DATA}")
    samples = torch.from_numpy(np.load(DATA)["samples"]).double()
    value, grad = DoubleWell().double().value_and_grad(samples)
    assert abs(value.mean().item() + 22.548) < 1e-3
    virial = (samples * grad).sum((-1, -2))
    assert abs(virial.mean().item() - 6.0) < 4 * 0.17
