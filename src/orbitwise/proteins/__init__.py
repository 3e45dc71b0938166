"""Protein backbones, their files, geometry, network and judges. Names load on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "Chain": "chain",
    "ChainBatch": "chain",
    "chain_batch": "chain",
    "build_backbone": "ideal_backbones",
    "read_chains": "files",
    "write_pdb": "files",
    "Handedness": "geometry",
    "SizeLaw": "geometry",
    "clashes": "geometry",
    "handedness": "geometry",
    "radius_of_gyration": "geometry",
    "nearest_chain": "tm_score",
    "ResidueTransformer": "transformer",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
