"""Crystals in CIF, CSV, npz and extxyz files, and to and from pymatgen and ASE."""
