"""Ensembles of many molecules: one folder each, one table of all."""
