# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.proteins.chain import Chain as Chain
from orbitwise.proteins.chain import ChainBatch as ChainBatch
from orbitwise.proteins.chain import chain_batch as chain_batch
from orbitwise.proteins.files import read_chains as read_chains
from orbitwise.proteins.files import write_pdb as write_pdb
from orbitwise.proteins.geometry import Handedness as Handedness
from orbitwise.proteins.geometry import SizeLaw as SizeLaw
from orbitwise.proteins.geometry import clashes as clashes
from orbitwise.proteins.geometry import handedness as handedness
from orbitwise.proteins.geometry import radius_of_gyration as radius_of_gyration
from orbitwise.proteins.ideal_backbones import build_backbone as build_backbone
from orbitwise.proteins.tm_score import nearest_chain as nearest_chain
from orbitwise.proteins.transformer import ResidueTransformer as ResidueTransformer

__all__: list[str]
_WHERE: dict[str, str]
