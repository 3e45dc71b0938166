"""Diffusion samplers of an energy, search-guided and others."""
