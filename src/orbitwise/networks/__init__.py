"""Networks: ``net(x, t, batch) -> (B, N, 3)`` of points, ``net(x, t)`` of vectors and grids. A file and a line each."""

from orbitwise.networks.crystal_transformer import CrystalTransformer
from orbitwise.networks.cspnet import CSPNet
from orbitwise.networks.egnn import EGNN
from orbitwise.networks.mlp import MLP, ElementwiseMLP
from orbitwise.networks.molecule_network import MoleculeNetwork
from orbitwise.networks.pair_network import PairNetwork
from orbitwise.networks.residue_transformer import ResidueTransformer
from orbitwise.networks.transformer import PointTransformer
from orbitwise.networks.unet3d import UNet3D

__all__ = [
    "EGNN",
    "MLP",
    "CSPNet",
    "CrystalTransformer",
    "ElementwiseMLP",
    "MoleculeNetwork",
    "PairNetwork",
    "PointTransformer",
    "ResidueTransformer",
    "UNet3D",
]
