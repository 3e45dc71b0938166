"""Backbone geometry against ideal structures and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.proteins.geometry import (
    BACKBONE,
    SizeLaw,
    clashes,
    deviation,
    handedness,
    measure,
    quantities,
    radius_of_gyration,
)
from orbitwise.proteins.ideal_backbones import HELIX, STRAND, build_backbone
from orbitwise.proteins.secondary_structure import fractions, secondary_structure

BY_NAME = {q.name: q for q in BACKBONE}
IDEAL = {
    "n_ca": 1.458,
    "ca_c": 1.525,
    "c_n": 1.329,
    "n_ca_c": 111.0,
    "ca_c_n": 117.2,
    "c_n_ca": 121.7,
    "phi": -60.0,
    "psi": -45.0,
}


def made(torsions: tuple[float, float], residues: int = 20) -> torch.Tensor:
    return build_backbone(*(torch.full((1, residues), v) for v in torsions))


def real(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_ideal_helix_has_its_geometry():
    x = made(HELIX)
    for name, value in IDEAL.items():
        found, inside = measure(x, real(x), BY_NAME[name])
        assert inside.all() and torch.allclose(found, torch.full_like(found, value), atol=1e-6), (
            name
        )
    omega, _ = measure(x, real(x), BY_NAME["omega"])
    assert torch.allclose(omega.abs(), torch.full_like(omega, 180), atol=1e-6)
    assert measure(x, real(x), BY_NAME["ca_ca"])[0].sub(3.8).abs().max() < 0.03
    twist, _ = measure(x, real(x), BY_NAME["ca_torsion"])
    assert ((twist > 45) & (twist < 55)).all()  # right-handed
    assert torch.allclose(measure(-x, real(x), BY_NAME["ca_torsion"])[0], -twist)


def test_masked_residues_take_no_part():
    x, mask = made(HELIX).repeat(2, 1, 1, 1), torch.ones(2, 20, dtype=torch.bool)
    mask[1, 12:] = False
    x[1, 12:] = torch.nan
    for q in BACKBONE:
        found, inside = measure(x, mask, q)
        ahead = max(k for _, k in q.points)
        assert inside.sum(1).tolist() == [20 - ahead, 12 - ahead]
        assert found[inside].isfinite().all()
    assert measure(x[:, :2], mask[:, :2], BY_NAME["ca_torsion"])[0].shape == (2, 0)


def test_deviation_of_torsions_goes_round_the_circle():
    a, b = torch.tensor([179.0, 178.0]), torch.tensor([-179.0, -178.0])
    assert deviation(a, b, BY_NAME["phi"]) == pytest.approx(3.0, abs=1e-6)
    assert deviation(a, b, BY_NAME["ca_ca_ca"]) == pytest.approx(357.0, abs=1e-6)
    shifted = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert deviation(shifted, shifted + 0.25, BY_NAME["ca_ca"]) == pytest.approx(0.25, abs=1e-9)
    with pytest.raises(InputError, match="at least one value"):
        deviation(a, b[:0], BY_NAME["phi"])


def test_clashes_are_counted_once_and_not_between_neighbours():
    ca = torch.zeros(2, 6, 3)
    ca[..., 0] = 3.8 * torch.arange(6)
    ca[0, 1] = ca[0, 0] + torch.tensor([2.5, 0, 0])  # neighbours: a cis peptide, no clash
    ca[1, 5] = ca[1, 0] + torch.tensor([0, 2.9, 0])
    mask = torch.ones(2, 6, dtype=torch.bool)
    assert clashes(ca, mask).tolist() == [0, 1]
    mask[1, 5] = False
    assert clashes(ca, mask).tolist() == [0, 0]


def test_radius_of_gyration_and_its_law():
    generator = torch.Generator().manual_seed(1)
    ca, mask = (
        torch.randn(3, 9, 3, generator=generator),
        torch.arange(9) < torch.tensor([[9], [5], [2]]),
    )
    found = radius_of_gyration(ca, mask)
    for k, n in enumerate((9, 5, 2)):
        pairs = np.square(ca[k, :n, None].numpy() - ca[k, None, :n].numpy()).sum()
        assert float(found[k]) == pytest.approx(
            math.sqrt(pairs / (2 * n * n)), rel=1e-5
        )  # Lagrange's identity
    lengths = torch.tensor([20.0, 30, 40, 80])
    law = SizeLaw.of(lengths, 2.2 * lengths**0.38)
    assert (law.scale, law.power) == pytest.approx((2.2, 0.38)) and law.spread < 1e-6
    assert torch.allclose(
        law.excess(lengths, 2.2 * lengths**0.38 * math.e), torch.ones(4, dtype=torch.float64)
    )
    same = SizeLaw.of(torch.tensor([9, 9]), torch.tensor([4.0, 9.0]))
    assert (same.scale, same.power) == pytest.approx((6.0, 0.0))
    with pytest.raises(InputError, match="two chains"):
        SizeLaw.of(torch.tensor([9]), torch.tensor([5.0]))


def test_handedness_of_helices_strands_and_mirror_images():
    helix, strand = (made(t)[:, :, 1] for t in (HELIX, STRAND))
    own = handedness(helix, real(helix))
    assert (own.right, own.left, own.share_right) == (17, 0, 1.0)
    assert handedness(-helix, real(helix)).share_right == 0.0
    assert math.isnan(handedness(strand, real(strand)).share_right)


def test_secondary_structure_of_ideal_elements():
    pytest.importorskip("biotite.structure", reason="needs orbitwise[proteins]")
    for torsions, letter in ((HELIX, "a"), (STRAND, "b")):
        found = secondary_structure(made(torsions)[0, :, 1].numpy())
        assert len(found) == 20 and (found[3:-3] == letter).all()
    assert fractions(made(HELIX)[0, :, 1].numpy()).sum() == pytest.approx(1)
    assert set(secondary_structure(np.zeros((4, 3)))) == {"c"}


def test_quantities_by_atoms():
    assert [q.name for q in quantities(1)] == ["ca_ca", "ca_ca_ca", "ca_torsion"]
    assert quantities(3) == BACKBONE and [q.unit for q in quantities(1)] == ["Å", "°", "°"]
    with pytest.raises(InputError, match="1 \\(Cα\\) or 3"):
        quantities(4)
