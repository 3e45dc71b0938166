"""Numbers that papers report of any samples. Names load on first use."""

from orbitwise.lazy import load_on_first_use

# One line per name: name -> module inside this package.
_WHERE = {
    "dihedral": "torus",
    "TorusW2": "torus",
    "torus_distances": "torus",
    "torus_w2": "torus",
    "AngleKL": "divergence",
    "JensenShannon": "divergence",
    "angle_histogram": "divergence",
    "angle_kl": "divergence",
    "compare_angles": "divergence",
    "js_divergence": "divergence",
    "kl_divergence": "divergence",
    "aligned_distance": "particles",
    "published_distance": "particles",
    "symmetric_w2": "particles",
    "compare_distances": "transport",
    "pair_distances": "transport",
    "total_variation": "transport",
    "wasserstein": "transport",
    "wasserstein_1d": "transport",
    "wasserstein_from_distances": "transport",
    "Evidence": "evidence",
    "pareto_k": "evidence",
    "Deviation": "modes",
    "ModeWeights": "modes",
    "WellCoverage": "modes",
    "mixture_modes": "modes",
    "well_coverage": "modes",
    "BlockAverage": "mixing",
    "block_average": "mixing",
    "effective_sample_size": "mixing",
    "rank_effective_sample_size": "mixing",
    "split_rhat": "mixing",
    "statistical_inefficiency": "mixing",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
