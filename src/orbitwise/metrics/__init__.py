"""Numbers that papers report: torsions, divergences, conformer populations, transport, mixing."""

from orbitwise.lazy import load_on_first_use

_WHERE = {
    "Torsion": "torsions",
    "dihedral": "torsions",
    "find_torsions": "torsions",
    "map_pair": "torsions",
    "torsion_word": "torsions",
    "JensenShannon": "divergence",
    "angle_histogram": "divergence",
    "compare_angles": "divergence",
    "js_divergence": "divergence",
    "kl_divergence": "divergence",
    "Clusters": "conformers",
    "Matching": "conformers",
    "Populations": "conformers",
    "assign": "conformers",
    "find_conformers": "conformers",
    "matching": "conformers",
    "populations": "conformers",
    "symmetric_rmsd": "conformers",
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

__all__ = list(_WHERE)
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
