"""Crystals: one structure as arrays, and padded batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError


@dataclass(frozen=True)
class Crystal:
    """One ordered crystal structure.

    ``frac: (N, 3)`` fractional coordinates, any image; ``lattice: (3, 3)`` rows are the cell
    vectors in Å; ``species: (N,)`` atomic numbers; ``name`` as in the file it came from. Raises
    ``InputError`` for wrong shapes, values that are not finite, an atomic number outside 1 to 118,
    or a flat cell.
    """

    frac: np.ndarray
    lattice: np.ndarray
    species: np.ndarray
    name: str = ""

    def __post_init__(self):
        where = f"crystal {self.name!r}: " if self.name else "crystal: "
        n = len(self.species)
        if not n or self.frac.shape != (n, 3) or self.lattice.shape != (3, 3):
            raise InputError(
                f"{where}needs frac (N, 3), lattice (3, 3) and species (N,) with N >= 1; got "
                f"{self.frac.shape}, {self.lattice.shape}, {self.species.shape}"
            )
        if not (np.isfinite(self.frac).all() and np.isfinite(self.lattice).all()):
            raise InputError(f"{where}coordinates or lattice hold values that are not finite")
        if self.species.min() < 1 or self.species.max() > 118:
            raise InputError(
                f"{where}atomic numbers must lie in 1 to 118, got {sorted(set(self.species))}"
            )
        if abs(np.linalg.det(self.lattice)) < 1e-3:
            raise InputError(
                f"{where}the cell is flat (volume {np.linalg.det(self.lattice):.2g} Å³)"
            )

    def __len__(self) -> int:
        return len(self.species)


@dataclass(frozen=True)
class CrystalBatch:
    """Padded crystals.

    ``frac: (B, N, 3)`` in [0, 1); ``lattice: (B, 3, 3)`` rows are the cell vectors in Å; ``species:
    (B, N)`` long atomic numbers (0 = padding); ``mask: (B, N)`` True where an atom is real;
    ``prompt: (B, 1 + N, P)`` embeddings of texts, first of the whole text, then of what it says
    about each atom; zeros where nothing is said; ``(B, 1, P)`` of whole texts alone; None where
    there are none.
    """

    frac: Tensor
    lattice: Tensor
    species: Tensor
    mask: Tensor
    prompt: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frac)

    def __getitem__(self, index: Tensor | slice) -> CrystalBatch:
        """A part of the batch, without the padding that none of its crystals needs."""
        mask = self.mask[index]
        width = max(1, int(mask.sum(-1).max())) if len(mask) else self.mask.shape[1]
        prompt = None if self.prompt is None else self.prompt[index][:, : 1 + width]
        parts = (
            self.frac[index][:, :width],
            self.lattice[index],
            self.species[index][:, :width],
            mask[:, :width],
        )
        return CrystalBatch(*parts, prompt)

    def to(self, device: torch.device | str) -> CrystalBatch:
        parts = (self.frac, self.lattice, self.species, self.mask)
        prompt = None if self.prompt is None else self.prompt.to(device)
        return CrystalBatch(*(v.to(device) for v in parts), prompt)

    def with_structure(self, frac: Tensor, lattice: Tensor) -> CrystalBatch:
        """The same atoms at other places in other cells."""
        return replace(self, frac=frac, lattice=lattice)

    def with_prompt(self, prompt: Tensor | None) -> CrystalBatch:
        """The same crystals with other texts, ``(B, 1 + N, P)``, or ``(B, P)`` of whole texts
        alone."""
        return replace(
            self, prompt=prompt[:, None] if prompt is not None and prompt.ndim == 2 else prompt
        )

    def repeat(self, times: int) -> CrystalBatch:
        """Every crystal ``times`` times in a row: ``(B times)``."""
        parts = (self.frac, self.lattice, self.species, self.mask, self.prompt)
        return CrystalBatch(*(None if v is None else v.repeat_interleave(times, 0) for v in parts))

    @property
    def atoms(self) -> Tensor:
        """Number of atoms, ``(B,)``."""
        return self.mask.sum(-1)

    @property
    def volume(self) -> Tensor:
        """Å³, ``(B,)``."""
        return torch.linalg.det(self.lattice).abs()

    def crystals(self, names: Sequence[str] | None = None) -> list[Crystal]:
        """One ``Crystal`` for each item."""
        names = [""] * len(self) if names is None else names
        rows = zip(
            self.frac.double().cpu().numpy(),
            self.lattice.double().cpu().numpy(),
            self.species.cpu().numpy(),
            self.mask.cpu().numpy(),
            names,
            strict=True,
        )
        return [Crystal(f[m] % 1.0, cell, z[m], name) for f, cell, z, m, name in rows]


def crystal_batch(crystals: Sequence[Crystal], dtype: torch.dtype = torch.float32) -> CrystalBatch:
    """A batch of crystals of any sizes; raises ``InputError`` when there are none."""
    if not crystals:
        raise InputError("there are no crystals to make a batch of")
    size, width = len(crystals), max(map(len, crystals))
    frac, species = np.zeros((size, width, 3)), np.zeros((size, width), dtype=np.int64)
    for i, crystal in enumerate(crystals):  # ragged input
        frac[i, : len(crystal)] = crystal.frac % 1.0
        species[i, : len(crystal)] = crystal.species
    species = torch.from_numpy(species)
    wrapped = torch.from_numpy(frac).to(dtype)
    lattice = torch.from_numpy(np.stack([c.lattice for c in crystals])).to(dtype)
    return CrystalBatch(torch.where(wrapped >= 1, 0.0, wrapped), lattice, species, species > 0)
