"""Keep the handedness of tetrahedral centres and the cis/trans geometry of double bonds while
moving."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.molecules.handedness import signed_values, stereo_elements
from orbitwise.search.base import Info, Kernel, State
from orbitwise.search.cycle import Cycle
from orbitwise.search.langevin import MomentumState
from orbitwise.search.metropolis import choose
from orbitwise.search.tempering import ReplicaExchange

if TYPE_CHECKING:
    from rdkit import Chem


@dataclass(frozen=True, eq=False)
class Stereo:
    """The stereo class of a labelled geometry: ``reference: (K + D,)`` signs (±1) of K centres and
    D double bonds.

    ``centres: (K, 4)`` long: four points whose tetrahedron has a signed volume; ``bonds: (D, 4)``
    long: ``a, i, j, b`` with i=j double. Prochiral centres count too (their hydrogens are
    labelled), so two geometries of one class differ by rigid motion, torsions and distortion alone.
    """

    centres: Tensor
    bonds: Tensor
    reference: Tensor

    @classmethod
    def from_mol(cls, mol: Chem.Mol, positions: Tensor) -> Stereo:
        """The class of ``positions: (N, 3)`` in Å: all 4-coordinate centres, pyramidal S, P, As,
        Se, and double bonds outside small rings. ``mol`` needs explicit hydrogens. Raises
        ``InputError`` where shapes do not fit or a centre is flat."""
        positions = torch.as_tensor(positions)
        if positions.shape != (mol.GetNumAtoms(), 3):
            raise InputError(
                f"positions {tuple(positions.shape)} do not fit {mol.GetNumAtoms()} atoms"
            )
        found = stereo_elements(mol)
        centres, bonds = torch.from_numpy(found.centres), torch.from_numpy(found.bonds)
        centres, bonds = centres.to(positions.device), bonds.to(positions.device)
        blank = cls(centres, bonds, torch.zeros(len(centres) + len(bonds), device=positions.device))
        reference = blank.signs(positions)
        if (reference == 0).any():
            raise InputError(
                "a stereo centre of the start is flat or not finite; embed the molecule again"
            )
        return cls(centres, bonds, reference)

    def signs(self, x: Tensor) -> Tensor:
        """``(*B, N, 3)`` -> ``(*B, K + D)``: handedness of centres, +1 cis and -1 trans of bonds; 0
        is undefined."""
        centres, bonds, _ = _tables(self, x.device)
        return signed_values(x, centres, bonds).nan_to_num(0.0).sign()

    def keeps(self, x: Tensor) -> Tensor:
        """Whether each geometry has all signs of the reference: ``(*B, N, 3)`` -> ``(*B)`` bool."""
        centres, bonds, reference = _tables(self, x.device)
        # a value of 0 or NaN has no sign, and is not above 0 either
        return (signed_values(x, centres, bonds) * reference.to(x) > 0).all(-1)


@lru_cache(maxsize=16)
def _tables(stereo: Stereo, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, bonds and signs on a device, brought there once."""
    with torch.inference_mode(False):  # for later calls too, whatever their mode
        return stereo.centres.to(device), stereo.bonds.to(device), stereo.reference.to(device)


@dataclass(frozen=True)
class StereoInfo(Info):
    """``left_class: (*B)`` bool: the inner kernel (whose report is ``inner``) moved out of the
    class and was undone. Such a step is not accepted and has ``log_accept = -inf``."""

    left_class: Tensor
    inner: Info


@dataclass(frozen=True, eq=False)
class KeepStereo:
    """``kernel``, with moves that leave the stereo class rejected and counted.

    The chain then samples exp(-U) restricted to the class, provided that the kernel obeys detailed
    balance (after reversing the momentum where it carries one; a rejected step therefore reverses
    it). A cycle or a replica exchange does not: wrap the kernels inside it. ``InputError`` says so,
    or that a start is outside.
    """

    kernel: Kernel
    stereo: Stereo

    def __post_init__(self):
        if isinstance(self.kernel, Cycle | ReplicaExchange):
            raise InputError(
                f"KeepStereo of a {type(self.kernel).__name__} would bias it: wrap the kernels"
                " inside it"
            )

    @property
    def target_acceptance(self) -> float | None:
        return self.kernel.target_acceptance

    @property
    def step_dims(self) -> int:
        return self.kernel.step_dims

    def init(self, x: Tensor, energy: Energy) -> State:
        outside = ~self.stereo.keeps(x)
        if outside.any():
            raise InputError(
                f"{int(outside.sum())} of {outside.numel()} starting points have another handedness"
                " or double-bond geometry than the reference"
            )
        return self.kernel.init(x, energy)

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, StereoInfo]:
        new, info = self.kernel.step(state, energy, generator)
        kept = self.stereo.keeps(new.x)
        if kept.all():  # nearly always: nothing to undo
            return new, StereoInfo(info.accepted, info.log_accept, ~kept, info)
        fields = {
            "x": choose(kept, new.x, state.x),
            "energy": torch.where(kept, new.energy, state.energy),
            "grad": choose(kept, new.grad, state.grad),
        }
        if isinstance(new, MomentumState):
            fields["momentum"] = choose(kept, new.momentum, -state.momentum)
        accepted, log_accept = info.accepted & kept, torch.where(kept, info.log_accept, -torch.inf)
        return replace(new, **fields), StereoInfo(accepted, log_accept, ~kept, info)
