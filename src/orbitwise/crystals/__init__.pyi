# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.crystals.crystal import Crystal as Crystal
from orbitwise.crystals.crystal import CrystalBatch as CrystalBatch
from orbitwise.crystals.crystal import crystal_batch as crystal_batch
from orbitwise.crystals.cspnet import CSPNet as CSPNet
from orbitwise.crystals.denoiser import CrystalDenoiser as CrystalDenoiser
from orbitwise.crystals.denoising import CrystalDenoising as CrystalDenoising
from orbitwise.crystals.files.read import CrystalFile as CrystalFile
from orbitwise.crystals.files.read import from_atoms as from_atoms
from orbitwise.crystals.files.read import from_structure as from_structure
from orbitwise.crystals.files.read import read_crystals as read_crystals
from orbitwise.crystals.files.read import to_atoms as to_atoms
from orbitwise.crystals.files.read import to_structure as to_structure
from orbitwise.crystals.files.read import write_cif as write_cif
from orbitwise.crystals.files.read import write_crystal_extxyz as write_crystal_extxyz
from orbitwise.crystals.matching.ceiling import Ceiling as Ceiling
from orbitwise.crystals.matching.ceiling import ceiling as ceiling
from orbitwise.crystals.matching.cells import CellMatcher as CellMatcher
from orbitwise.crystals.matching.match import MatchResult as MatchResult
from orbitwise.crystals.matching.match import Measured as Measured
from orbitwise.crystals.matching.match import match as match
from orbitwise.crystals.matching.match import structurally_valid as structurally_valid
from orbitwise.crystals.process import CrystalProcess as CrystalProcess
from orbitwise.crystals.sampling import PredictorCorrector as PredictorCorrector
from orbitwise.crystals.transformer import CrystalTransformer as CrystalTransformer
from orbitwise.crystals.validity.charge_neutrality import charge_neutral as charge_neutral
from orbitwise.crystals.validity.generation import Cutoffs as Cutoffs
from orbitwise.crystals.validity.generation import GenerationMetrics as GenerationMetrics
from orbitwise.crystals.validity.generation import generation_metrics as generation_metrics
from orbitwise.crystals.validity.generation import natural_cutoffs as natural_cutoffs

__all__: list[str]
_WHERE: dict[str, str]
