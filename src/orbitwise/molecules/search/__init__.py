"""Moves of molecules: torsion jumps, and the guard of stereochemistry."""
