"""Ensembles of conformers in Python."""
