"""Crystals, their files and texts, noise, networks, matching and validity. Names load on first
use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "Crystal": "crystal",
    "CrystalBatch": "crystal",
    "crystal_batch": "crystal",
    "CrystalFile": "files.read",
    "read_crystals": "files.read",
    "write_cif": "files.read",
    "write_crystal_extxyz": "files.read",
    "to_structure": "files.read",
    "from_structure": "files.read",
    "to_atoms": "files.read",
    "from_atoms": "files.read",
    "CellMatcher": "matching.cells",
    "MatchResult": "matching.match",
    "Measured": "matching.match",
    "match": "matching.match",
    "structurally_valid": "matching.match",
    "Ceiling": "matching.ceiling",
    "ceiling": "matching.ceiling",
    "Cutoffs": "validity.generation",
    "GenerationMetrics": "validity.generation",
    "generation_metrics": "validity.generation",
    "natural_cutoffs": "validity.generation",
    "charge_neutral": "validity.charge_neutrality",
    "CSPNet": "cspnet",
    "CrystalTransformer": "transformer",
    "CrystalDenoiser": "denoiser",
    "CrystalDenoising": "denoising",
    "CrystalProcess": "process",
    "PredictorCorrector": "sampling",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
