"""Alanine peptides as targets of a sampler: OpenMM energy, symmetry of the molecule, backbone torsions."""

from __future__ import annotations

import torch

from orbitwise.data.molecules import to_batch
from orbitwise.energies.openmm import OpenMMEnergy
from orbitwise.energies.peptides import alanine_peptide
from orbitwise.methods.conformer_learner import symmetry
from orbitwise.methods.targets import Target


def peptide_target(residues: int, force_field: str, solvent: str, temperature: float) -> Target:
    """ACE-(ALA)n-NME in Å at ``temperature`` in K. Raises ``InputError`` for an unknown force field or solvent."""
    peptide = alanine_peptide(residues, field=force_field, solvent=solvent)
    start = peptide.positions[0]
    torsions = []
    for k, (phi, psi) in enumerate(zip(peptide.phi.tolist(), peptide.psi.tolist(), strict=True), start=1):
        torsions += [(f"phi{k}", tuple(phi)), (f"psi{k}", tuple(psi))]
    return Target(
        OpenMMEnergy(peptide.system, temperature=temperature).to(torch.float32),
        group=symmetry(peptide.mol, start),
        labels=to_batch(peptide.mol, start[None], dtype=torch.float32),
        start=start.to(torch.float32),
        torsions=torsions,
    )
