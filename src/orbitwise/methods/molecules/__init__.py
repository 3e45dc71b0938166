"""Trainings on conformers: of one molecule, and of many."""
