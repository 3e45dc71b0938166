"""Crystals from a composition and a text: the structure prediction of ``crystal_structure``, told more.

TGDMat's task (Das 2503.00522): a sentence encoder's vector of the text goes to the network at every step.
"""

from __future__ import annotations

from orbitwise.methods import crystal_structure
from orbitwise.methods.crystal_structure import CrystalStructureConfig

train, sample = crystal_structure.train, crystal_structure.sample
evaluate, report = crystal_structure.evaluate, crystal_structure.report
plan = crystal_structure.plan


class TextCrystalsConfig(CrystalStructureConfig):
    """A ``CrystalStructureConfig`` with a text for each crystal, short ones made from its structure by default."""

    prompt: crystal_structure.Prompt = "short"
