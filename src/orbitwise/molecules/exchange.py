"""Exchanges of equal atoms: in how many ways a labelled graph lies on itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from rdkit import Chem


def self_matches(
    labels: Sequence[Hashable], bonds: Iterable[tuple[int, int, Chem.BondType]], limit: int
) -> np.ndarray:
    """Renumberings ``(M, n)`` of ``n`` nodes, the identity among them, that keep labels and bonds;
    at most ``limit``, found by RDKit's matching of substructures."""
    codes: dict[Hashable, int] = {}
    graph = Chem.RWMol()
    for label in labels:
        node = Chem.Atom(6)
        node.SetIsotope(codes.setdefault(label, len(codes)) + 1)  # what has to match
        node.SetNoImplicit(True)
        graph.AddAtom(node)
    for i, j, kind in bonds:
        graph.AddBond(i, j, kind)

    graph.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(graph)
    found = graph.GetSubstructMatches(graph, uniquify=False, maxMatches=limit)
    return np.array(found, dtype=np.int64).reshape(-1, len(labels))
