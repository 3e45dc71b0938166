"""AIMNet2 for a batch of geometries of one molecule: near ωB97M-D3(BJ)/def2-TZVPP, in the gas
phase."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import EnergyError, InputError
from orbitwise.molecules.aimnet2.dispersion import DispersionTables, dispersion, dispersion_tables
from orbitwise.molecules.aimnet2.network import (
    CUTOFF,
    NetworkTables,
    coulomb,
    network,
    network_tables,
)
from orbitwise.molecules.aimnet2.weights import ELEMENTS, weights
from orbitwise.units import EV_PER_K

# Pairs of atoms in one pass, some 2 kB each: what a CPU does well; what a GPU has room for.
CHUNK, CHUNK_GPU = 1 << 15, 1 << 21


@dataclass(frozen=True)
class Tables:
    """Parameters of one molecule in one dtype on one device; ``same: (N, N)`` the diagonal."""

    network: NetworkTables
    dispersion: DispersionTables
    same: Tensor


class AIMNet2(Energy):
    """The energy of ``mol`` in kT at ``temperature`` [K], for positions in Å (Anstine, Zubatyuk and
    Isayev, Chem. Sci. 16, 10228 (2025); the weights are those of ``auto3d``, which need no
    network).

    ``AIMNet2(mol)(x)``: ``x: (*B, N, 3)`` -> ``(*B)``; ``value_and_grad(x)`` also gives the exact
    gradient in kT/Å. Atoms are in the order of ``mol``, which carries explicit hydrogens and needs
    no conformer; its formal charges give the total charge. Results have the dtype and device of
    ``x`` (float32 or float64; nothing needs to be moved with ``.to``). NaN positions give NaN, for
    that geometry only.

    The zero of energy is the sum of the atoms' mean energies in molecules, ``zero_ev`` (of the
    order of -10⁴ eV, which float32 could not carry in kT); ``ev(x)`` adds it back and gives the
    total energy in eV, float64.

    Raises ``EnergyError`` for an element it was not trained on and for open shells, ``InputError``
    for implicit hydrogens, a temperature that is not positive or ``x`` of the wrong shape or dtype,
    ``MissingExtraError`` without the extra ``dft``.
    """

    zero_com = True

    def __init__(self, mol: Chem.Mol, temperature: float = 300.0):
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive (kelvin), got {temperature}")
        self.species = checked_species(mol)
        self.charge = float(Chem.GetFormalCharge(mol))
        self.temperature = float(temperature)
        self.ev_per_kT = EV_PER_K * self.temperature
        self.event_shape = (len(self.species), 3)
        read = weights(torch.float32, torch.device("cpu"))["outputs.atomic_shift.shifts.weight"]
        self.zero_ev = float(read.double()[self.species].sum())
        self._cache: dict[tuple[torch.dtype, torch.device], Tables] = {}

    def extra_repr(self) -> str:
        return f"{self.event_shape[0]} atoms, charge {self.charge:+g}, {self.temperature:g} K"

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        parts = [self._ev(part) for part in self._pieces(x)]
        return (torch.cat(parts) / self.ev_per_kT).to(x.dtype).view(x.shape[:-2])

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        # piece by piece, so that one at a time keeps what its backward pass needs
        found = [self._with_grad(part) for part in self._pieces(x.detach())]
        value = torch.cat([v for v, _ in found]).view(x.shape[:-2])
        return value, torch.cat([g for _, g in found]).view(x.shape)

    def ev(self, x: Tensor) -> Tensor:
        """The total energy in eV, ``(*B)`` float64."""
        self._check(x)
        parts = [self._ev(part) for part in self._pieces(x)]
        return torch.cat(parts).view(x.shape[:-2]) + self.zero_ev

    @torch.no_grad()
    def charges(self, x: Tensor) -> Tensor:
        """Partial charges of the atoms in e, ``(*B, N)``."""
        self._check(x)
        tables = self._tables(x)
        parts = [self._network(tables, part)[1] for part in self._pieces(x)]
        return torch.cat(parts).view(x.shape[:-1])

    def _with_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.requires_grad_()
            value = self._ev(x) / self.ev_per_kT
            (grad,) = torch.autograd.grad(value.sum(), x)
        return value.detach().to(x.dtype), grad

    def _ev(self, x: Tensor) -> Tensor:
        """``(B, N, 3)`` -> eV above ``zero_ev``, ``(B,)`` float64."""
        t = self._tables(x)
        atoms, charges, distance = self._network(t, x)
        energy = atoms.double().sum(-1) + coulomb(charges, distance, t.same)
        return energy + dispersion(t.dispersion, distance, t.same)

    def _network(self, t: Tables, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        between = x[:, None] - x[:, :, None]
        square = between.square().sum(-1).masked_fill(t.same, CUTOFF**2)
        distance = square.sqrt()
        return *network(t.network, between, distance, self.charge), distance

    def _tables(self, x: Tensor) -> Tables:
        key = (x.dtype, x.device)
        if key not in self._cache:
            w, species = weights(*key), self.species.to(x.device)
            same = torch.eye(len(species), dtype=torch.bool, device=x.device)
            self._cache[key] = Tables(
                network_tables(w, species), dispersion_tables(w, species), same
            )
        return self._cache[key]

    def _pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        room = CHUNK if x.device.type == "cpu" else CHUNK_GPU
        return x.reshape(-1, *self.event_shape).split(max(1, room // len(self.species) ** 2))

    def _check(self, x: Tensor) -> None:
        if x.shape[-2:] != self.event_shape:
            raise InputError(
                f"positions must have shape (*B, {self.event_shape[0]}, 3) for this molecule, got "
                f"{tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"positions must be float32 or float64, got {x.dtype}")


def checked_species(mol: Chem.Mol) -> Tensor:
    """Atomic numbers ``(N,)`` of a molecule that AIMNet2 can be asked about."""
    if not isinstance(mol, Chem.Mol) or mol.GetNumAtoms() == 0:
        raise InputError(f"AIMNet2 needs an RDKit molecule with atoms, got {type(mol).__name__}")
    atoms = list(mol.GetAtoms())
    if any(a.GetTotalNumHs() > 0 for a in atoms):
        raise InputError(
            "the molecule has implicit hydrogens; add them: mol = rdkit.Chem.AddHs(mol)"
        )

    unknown = [
        f"{a.GetSymbol()}{a.GetIdx() + 1}" for a in atoms if a.GetAtomicNum() not in ELEMENTS
    ]
    if unknown:
        table = Chem.GetPeriodicTable()
        known = ", ".join(table.GetElementSymbol(z) for z in ELEMENTS)
        raise EnergyError(
            f"{Chem.MolToSmiles(Chem.RemoveHs(mol))}: AIMNet2 does not know {', '.join(unknown)};"
            f" it was trained on {known}. Use another energy, for example GFN2-xTB"
        )
    radicals = [f"{a.GetSymbol()}{a.GetIdx() + 1}" for a in atoms if a.GetNumRadicalElectrons()]
    if radicals:
        raise EnergyError(
            f"{Chem.MolToSmiles(Chem.RemoveHs(mol))}: AIMNet2 was trained on closed shells;"
            f" {', '.join(radicals)} has unpaired electrons"
        )
    return torch.tensor([a.GetAtomicNum() for a in atoms])
