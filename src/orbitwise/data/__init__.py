"""Batches of points, the replay buffer, folders, and readers that belong to no one science. Names
load on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "PointBatch": "batch",
    "VoxelGrid": "voxels",
    "read_geometries": "voxels",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
