"""Networks: ``net(x, t, batch) -> (B, N, 3)``. A new network is one file and one line here."""

from orbitwise.networks.egnn import EGNN
from orbitwise.networks.transformer import PointTransformer

__all__ = ["EGNN", "PointTransformer"]
