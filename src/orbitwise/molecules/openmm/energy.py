"""The potential energy of an OpenMM ``System`` for a batch of geometries at once, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbitwise.energies.analytic import AnalyticEnergy
from orbitwise.errors import InputError
from orbitwise.molecules.openmm.parameters import openmm_parameters
from orbitwise.molecules.openmm.terms import Tables, evaluate, tables
from orbitwise.units import KJ_PER_MOL_K

# Bytes of one array (pairs × batch): what stays in a CPU's cache between operations; what a GPU has
# room for.
CHUNK, CHUNK_GPU = 1 << 18, 1 << 27


class OpenMMEnergy(AnalyticEnergy):
    """The energy of an ``openmm.System`` in kT at ``temperature`` [K], for positions in Å.

    ``OpenMMEnergy(system)(x)``: ``x: (*B, N, 3)`` -> ``(*B)``; ``value_and_grad(x)`` also gives the
    gradient in kT/Å. Results have the dtype and device of ``x`` (float32 or float64). Known are
    harmonic bonds and angles, periodic torsions, CMAP, nonbonded terms with their exceptions and
    without cutoff, the custom forces that OpenMM makes for CHARMM (harmonic impropers,
    Lennard-Jones by pairs of types), GBSAOBCForce and the CustomGBForce of HCT, OBC1, OBC2, GBn and
    GBn2. The System is read once, when the energy is made; OpenMM does not run.

    ``kj_per_kT`` converts at the edges (kJ/mol = kT times it); ``kj_per_mol(x)`` gives that energy.
    ``masses: (N,)`` in Da are those of the System. NaN positions give NaN, for that geometry only.
    Autograd goes through once; asking for second derivatives raises.

    float64 equals OpenMM's Reference platform to 1e-4 kJ/mol and 1e-4 kJ/mol/nm. float32 against
    float64, for 36 alanine peptides (22 to 42 atoms, every force field and solvent of
    ``alanine_peptide``): at most 4e-4 kT with up to 0.1 Å of noise per coordinate, and 1.5e-5 of
    the norm of the gradient with up to 0.3 Å.

    Raises ``InputError`` for a System with constraints (build it with constraints=None and
    rigidWater=False), virtual sites, cutoffs, a barostat or any other force that is not known, a
    temperature that is not positive, or ``x`` of the wrong shape or dtype; ``MissingExtraError``
    without OpenMM.
    """

    zero_com = True

    def __init__(self, system, temperature: float = 300.0):
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive (kelvin), got {temperature}")
        self.parameters_kj = openmm_parameters(system)
        self.temperature = float(temperature)
        self.kj_per_kT = KJ_PER_MOL_K * self.temperature
        self.masses = torch.from_numpy(self.parameters_kj.masses)
        self.event_shape = (self.parameters_kj.n_atoms, 3)
        self._cache: dict[tuple[torch.dtype, torch.device], Tables] = {}

    def extra_repr(self) -> str:
        solvent = ", implicit solvent" if self.parameters_kj.solvents else ""
        return f"{self.event_shape[0]} atoms{solvent}, {self.temperature:g} K"

    def _tables(self, x: Tensor) -> Tables:
        key = (x.dtype, x.device)
        if key not in self._cache:
            self._cache[key] = tables(self.parameters_kj, self.kj_per_kT, x.dtype, x.device)
        return self._cache[key]

    @torch.no_grad()
    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        found = self._tables(x)
        columns = x.detach().reshape(-1, *self.event_shape).permute(1, 2, 0)
        room = CHUNK if x.device.type == "cpu" else CHUNK_GPU
        pieces = math.ceil(columns.shape[-1] * len(found.tail) * x.element_size() / room) or 1
        parts = [evaluate(found, part.contiguous()) for part in columns.chunk(pieces, dim=-1)]
        energy = torch.cat([e for e, _ in parts])
        grad = torch.cat([g.permute(2, 0, 1) for _, g in parts])
        return energy.view(x.shape[:-2]), grad.reshape(x.shape)

    def kj_per_mol(self, x: Tensor) -> Tensor:
        """The energy in kJ/mol, ``(*B)``."""
        return self(x) * self.kj_per_kT
