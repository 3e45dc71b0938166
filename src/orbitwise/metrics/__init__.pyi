# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.metrics.divergence import AngleKL as AngleKL
from orbitwise.metrics.divergence import JensenShannon as JensenShannon
from orbitwise.metrics.divergence import angle_histogram as angle_histogram
from orbitwise.metrics.divergence import angle_kl as angle_kl
from orbitwise.metrics.divergence import compare_angles as compare_angles
from orbitwise.metrics.divergence import js_divergence as js_divergence
from orbitwise.metrics.divergence import kl_divergence as kl_divergence
from orbitwise.metrics.evidence import Evidence as Evidence
from orbitwise.metrics.evidence import pareto_k as pareto_k
from orbitwise.metrics.mixing import BlockAverage as BlockAverage
from orbitwise.metrics.mixing import block_average as block_average
from orbitwise.metrics.mixing import effective_sample_size as effective_sample_size
from orbitwise.metrics.mixing import rank_effective_sample_size as rank_effective_sample_size
from orbitwise.metrics.mixing import split_rhat as split_rhat
from orbitwise.metrics.mixing import statistical_inefficiency as statistical_inefficiency
from orbitwise.metrics.modes import Deviation as Deviation
from orbitwise.metrics.modes import ModeWeights as ModeWeights
from orbitwise.metrics.modes import WellCoverage as WellCoverage
from orbitwise.metrics.modes import mixture_modes as mixture_modes
from orbitwise.metrics.modes import well_coverage as well_coverage
from orbitwise.metrics.particles import aligned_distance as aligned_distance
from orbitwise.metrics.particles import published_distance as published_distance
from orbitwise.metrics.particles import symmetric_w2 as symmetric_w2
from orbitwise.metrics.torus import TorusW2 as TorusW2
from orbitwise.metrics.torus import dihedral as dihedral
from orbitwise.metrics.torus import torus_distances as torus_distances
from orbitwise.metrics.torus import torus_w2 as torus_w2
from orbitwise.metrics.transport import compare_distances as compare_distances
from orbitwise.metrics.transport import pair_distances as pair_distances
from orbitwise.metrics.transport import total_variation as total_variation
from orbitwise.metrics.transport import wasserstein as wasserstein
from orbitwise.metrics.transport import wasserstein_1d as wasserstein_1d
from orbitwise.metrics.transport import wasserstein_from_distances as wasserstein_from_distances

__all__: list[str]
_WHERE: dict[str, str]
