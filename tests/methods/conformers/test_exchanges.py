"""Molecules with more exchanges of equal atoms than can be enumerated."""

from __future__ import annotations

import pytest

from orbitwise.methods.conformers.exchange.mixing import match_of, too_many_exchanges
from orbitwise.molecules.molecule import parse_smiles


@pytest.mark.parametrize(
    ("smiles", "exchanges"),
    [
        ("CC(C)(C)C", 24),  # 4!
        ("CC(C)(C)P(C(C)(C)C)C(C)(C)C", 1296),  # 3! · (3!)³
        ("CC(C)(C)C(C(C)(C)C)(C(C)(C)C)C(C)(C)C", None),  # 4! · (3!)⁴ = 31104
    ],
)
def test_what_cannot_be_enumerated_is_said(smiles, exchanges):
    mol = parse_smiles(smiles)
    rows = len(match_of(mol).permutations)
    if exchanges is None:
        assert rows == 1 and "listed apart" in too_many_exchanges(mol)
    else:
        assert rows == exchanges and too_many_exchanges(mol) is None
