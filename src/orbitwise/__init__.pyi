# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise import audit as audit
from orbitwise import crystals as crystals
from orbitwise import data as data
from orbitwise import energies as energies
from orbitwise import errors as errors
from orbitwise import groups as groups
from orbitwise import methods as methods
from orbitwise import metrics as metrics
from orbitwise import molecules as molecules
from orbitwise import networks as networks
from orbitwise import objectives as objectives
from orbitwise import orbits as orbits
from orbitwise import processes as processes
from orbitwise import proteins as proteins
from orbitwise import report as report
from orbitwise import runs as runs
from orbitwise import search as search
from orbitwise import training as training
from orbitwise import units as units
from orbitwise.audit.equivariance import audit_equivariance as audit_equivariance
from orbitwise.groups.automorphism import Automorphism as Automorphism
from orbitwise.groups.finite import Finite as Finite
from orbitwise.groups.item_permutations import ItemPermutations as ItemPermutations
from orbitwise.groups.permutation import Permutation as Permutation
from orbitwise.groups.product import Product as Product
from orbitwise.groups.se3 import SE3 as SE3
from orbitwise.groups.so3 import O3 as O3
from orbitwise.groups.so3 import SO3 as SO3
from orbitwise.groups.torus import PeriodicTranslation as PeriodicTranslation
from orbitwise.groups.translation import Translation as Translation
from orbitwise.groups.voxels import VoxelRotations as VoxelRotations
from orbitwise.methods.conformers.ensemble.ensemble import ConformerEnsemble as ConformerEnsemble
from orbitwise.methods.conformers.ensemble.sample import sample_conformers as sample_conformers
from orbitwise.orbits.average import twirl as twirl
from orbitwise.orbits.frames import framed as framed
from orbitwise.orbits.posterior.entrance import orbit_posterior as orbit_posterior
from orbitwise.orbits.posterior.noise import Process as Process
from orbitwise.orbits.posterior.noise import WrappedProcess as WrappedProcess
from orbitwise.orbits.posterior.result import OrbitPosterior as OrbitPosterior
from orbitwise.orbits.posterior.rigid.posterior import FramePosterior as FramePosterior
from orbitwise.orbits.posterior.rigid.posterior import frame_posterior as frame_posterior
from orbitwise.orbits.tangent import horizontal as horizontal
from orbitwise.processes.frames import FrameProcess as FrameProcess
from orbitwise.processes.gaussian import GaussianProcess as GaussianProcess
from orbitwise.processes.harmonic import HarmonicProcess as HarmonicProcess
from orbitwise.processes.wrapped_normal import WrappedNormalProcess as WrappedNormalProcess

__all__: list[str]
_WHERE: dict[str, str]
_PACKAGES: list[str]
__version__: str
