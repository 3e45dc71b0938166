"""Conformers compared: torsions, clusters, populations, coverage."""
