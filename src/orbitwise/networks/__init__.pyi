# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.networks.grids.unet3d import UNet3D as UNet3D
from orbitwise.networks.mlp import MLP as MLP
from orbitwise.networks.mlp import ElementwiseMLP as ElementwiseMLP
from orbitwise.networks.points.egnn import EGNN as EGNN
from orbitwise.networks.points.pair_network import PairNetwork as PairNetwork
from orbitwise.networks.points.transformer import PointTransformer as PointTransformer

__all__: list[str]
_WHERE: dict[str, str]
