# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.data.batch import PointBatch as PointBatch
from orbitwise.data.voxels import VoxelGrid as VoxelGrid
from orbitwise.data.voxels import read_geometries as read_geometries

__all__: list[str]
_WHERE: dict[str, str]
