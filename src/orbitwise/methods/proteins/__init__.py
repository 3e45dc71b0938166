"""Trainings of protein backbones."""
