"""Energies by name for sampler configurations: what is to be sampled, its symmetry, and reference
samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.energies import DoubleWell, Energy, GaussianMixture, LennardJones, ManyWell
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.groups.so3 import O3
from orbitwise.runs.choice import Choice
from orbitwise.runs.named import Kind, build_named
from orbitwise.runs.own import ENERGY, OrOwn, Own, OwnGroup
from orbitwise.runs.said import Name

PEPTIDES = {"alanine_dipeptide": 1, "alanine_tripeptide": 2, "alanine_tetrapeptide": 3}


@dataclass(frozen=True)
class Target:
    """An energy and what is known about it.

    ``group``: its symmetry, for the orbit targets of maximum likelihood (None: none used);
    ``labels``: one item for networks on points; ``start: (N, 3)`` a geometry, for molecules;
    ``torsions``: ``(name, (i, j, k, l))`` to judge by.
    """

    energy: Energy
    group: Group | None = None
    labels: PointBatch | None = None
    start: Tensor | None = None
    torsions: Sequence[tuple[str, tuple[int, int, int, int]]] = ()

    @property
    def exact(self) -> bool:
        """Independent samples can be drawn."""
        return hasattr(self.energy, "sample")


class EnergyChoice(Choice):
    """An energy by name, with what it needs."""

    flat: ClassVar = {
        "dim": 32,
        "points": 13,
        "temperature": 300.0,
        "force_field": "ff96",
        "solvent": "obc",
        "function": None,
        "arguments": {},
    }

    def build(self) -> Target:
        """Raises ``InputError`` for settings of which no energy can be made."""
        raise NotImplementedError


class FortyGaussiansConfig(EnergyChoice):
    """The mixture of forty Gaussians in the plane."""

    name: Literal["forty_gaussians"]

    def build(self) -> Target:
        return Target(GaussianMixture.forty())


class ManyWellConfig(EnergyChoice):
    """``dim`` coordinates, two a well."""

    name: Literal["many_well"]
    dim: int = Field(32, ge=2)

    def build(self) -> Target:
        return Target(ManyWell(self.dim))


class DoubleWellConfig(EnergyChoice):
    """Four particles in the plane with a double well in their distances."""

    name: Literal["double_well"]

    def build(self) -> Target:
        return Target(DoubleWell(), labels=identical(4, 2))


class LennardJonesConfig(EnergyChoice):
    """A cluster of ``points``."""

    name: Literal["lennard_jones"]
    points: int = Field(13, ge=2)

    def build(self) -> Target:
        return Target(LennardJones(self.points), group=O3(), labels=identical(self.points, 3))


class PeptideConfig(EnergyChoice):
    """A peptide with its ``force_field``, ``solvent`` and ``temperature`` in K."""

    name: Literal["alanine_dipeptide", "alanine_tripeptide", "alanine_tetrapeptide"]
    temperature: float = Field(300.0, gt=0)
    force_field: str = "ff96"
    solvent: str = "obc"

    def build(self) -> Target:
        return _peptide(PEPTIDES[self.name], self.force_field, self.solvent, self.temperature)


class FunctionConfig(EnergyChoice):
    """``function``: as the ``name`` of ``OwnEnergy``."""

    name: Literal["function"]
    function: Name | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)

    def build(self) -> Target:
        """Raises ``InputError`` as ``build_named``."""
        named = self.function or Name("")
        return _own(build_named(named, "energy.function", ENERGY, self.arguments))


class OwnEnergy(Own):
    """An energy of one's own, with its symmetry ``group``; without, one of points in space that
    does not change under a common shift has O(3)."""

    role: ClassVar[str] = "energy"
    kind: ClassVar[Kind] = ENERGY
    group: OwnGroup | None = None

    def build(self) -> Target:
        """Raises ``InputError`` as ``build_named``."""
        found = _own(self.part())
        return found if self.group is None else replace(found, group=self.group.part())


EnergyConfig = Annotated[
    FortyGaussiansConfig
    | ManyWellConfig
    | DoubleWellConfig
    | LennardJonesConfig
    | PeptideConfig
    | FunctionConfig,
    Field(discriminator="name"),
    OrOwn(OwnEnergy),
]


def identical(points: int, dim: int) -> PointBatch:
    """Labels of ``points`` particles that differ in nothing."""
    return PointBatch(
        torch.zeros(1, points, dim),
        torch.ones(1, points, dtype=torch.long),
        torch.zeros(1, points, points, dtype=torch.long),
        torch.ones(1, points, dtype=torch.bool),
    )


def _own(energy: Energy) -> Target:
    """A user's energy; ``InputError`` where it does not say over which points."""
    shape = tuple(getattr(energy, "event_shape", ()))
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(
            f"energy: {type(energy).__name__}.event_shape must be the shape of one sample, as in"
            f" (2,) or (13, 3); it is {shape}"
        )
    points = len(shape) == 2
    labels = identical(*shape) if points else None
    three = points and shape[1] == 3
    return Target(energy, group=O3() if three and energy.zero_com else None, labels=labels)


def _peptide(residues: int, force_field: str, solvent: str, temperature: float) -> Target:
    """ACE-(ALA)n-NME in Å at ``temperature`` in K. Raises ``InputError`` for an unknown force field
    or solvent."""
    from orbitwise.molecules.molecule import to_batch
    from orbitwise.molecules.openmm.energy import OpenMMEnergy
    from orbitwise.molecules.openmm.peptides import alanine_peptide
    from orbitwise.molecules.symmetry import symmetry

    peptide = alanine_peptide(residues, field=force_field, solvent=solvent)
    start = peptide.positions[0]
    torsions = []
    for k, (phi, psi) in enumerate(
        zip(peptide.phi.tolist(), peptide.psi.tolist(), strict=True), start=1
    ):
        torsions += [(f"phi{k}", tuple(phi)), (f"psi{k}", tuple(psi))]
    return Target(
        OpenMMEnergy(peptide.system, temperature=temperature).to(torch.float32),
        group=symmetry(peptide.mol, start),
        labels=to_batch(peptide.mol, start[None], dtype=torch.float32),
        start=start.to(torch.float32),
        torsions=torsions,
    )
