"""Losses on the paths of a diffusion sampler."""
