"""``net(x, t, batch) -> (B, N, 3)`` of points, ``net(x, t)`` of vectors and grids. Names load on
first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "EGNN": "points.egnn",
    "MLP": "mlp",
    "ElementwiseMLP": "mlp",
    "PairNetwork": "points.pair_network",
    "PointTransformer": "points.transformer",
    "UNet3D": "grids.unet3d",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
