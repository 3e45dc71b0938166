"""OpenMM systems as batched torch energies, implicit solvent included."""
