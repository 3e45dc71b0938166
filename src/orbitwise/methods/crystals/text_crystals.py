"""Crystals from a composition and a text: the structure prediction of ``crystal_structure``, told
more.

TGDMat's task (Das 2503.00522): a sentence encoder's vector of the text goes to the network at every
step.
"""

from __future__ import annotations

from orbitwise.methods.crystals import structure
from orbitwise.methods.crystals.structure import CrystalStructureConfig

train, sample = structure.train, structure.sample
evaluate, report = structure.evaluate, structure.report
plan = structure.plan


class TextCrystalsConfig(CrystalStructureConfig):
    """A ``CrystalStructureConfig`` with a text for each crystal, short ones made from its structure
    by default."""

    prompt: structure.Prompt = "short"
