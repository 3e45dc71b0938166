"""Black boxes to audit: force fields in torch, calculators of ASE, and the first made into the
second.

The calling convention of a force field, anyone's own or ours::

    model(species, positions, cell) -> {"energy": (B,), "forces": (B, N, 3), "stress": (B, 3, 3)},
                                       any of them, or a tensor of forces (B, N, 3)

``species: (B, N)`` atomic numbers, ``positions: (B, N, 3)`` in Å, ``cell: (B, 3, 3)`` in Å (rows
are its vectors) or None where nothing is periodic; eV, eV/Å and eV/Å³ come back. All structures of
a batch have the same number of atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor, nn

from orbitwise.audit.batch import AuditBatch
from orbitwise.data.structures import OUTPUTS, Structure
from orbitwise.errors import EnergyError, InputError

KINDS = {"energy": "invariant", "forces": "vector", "stress": "tensor"}
UNITS = {"energy": "eV per atom", "forces": "eV/Å", "stress": "eV/Å³"}
ForceField = Callable[..., Mapping[str, Tensor] | Tensor]


def structure_batches(
    structures: Sequence[Structure],
    outputs: Sequence[str],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    species_move: bool = False,
    reference: bool = True,
    size: int = 16,
) -> list[AuditBatch]:
    """Batches of at most ``size`` structures, each of one number of atoms, periodic or not, for
    ``ForceFieldModel`` and ``CalculatorModel``. Energies are per atom, so that structures of
    several sizes count alike.

    ``species_move``: for permutations of all points, the species travel as a fourth column of the
    points. ``reference=False``: the targets are zeros, so that the total of an audit is the mean
    square of the prediction.
    """
    groups: dict[tuple, list[int]] = {}
    for k, s in enumerate(structures):
        groups.setdefault((len(s), bool(s.pbc.any())), []).append(k)
    parts = [same[i : i + size] for same in groups.values() for i in range(0, len(same), size)]
    place = {"dtype": dtype, "device": device}
    found = []
    for part in parts:
        these = [structures[k] for k in part]
        x = torch.tensor(np.stack([s.positions for s in these]), **place)
        species = torch.tensor(np.stack([s.numbers for s in these]), device=device)
        if species_move:
            x = torch.cat([x, species.to(x)[..., None]], -1)
        cell = torch.tensor(np.stack([s.cell for s in these]), **place)
        pbc = torch.tensor(np.stack([s.pbc for s in these]), device=device)
        index = torch.tensor(part, device=device)
        target = {name: _target(these, name, reference, place) for name in outputs}
        found.append(AuditBatch(x, target, args=(species, pbc, index), moved=(cell,)))
    return found


def _target(structures: Sequence[Structure], name: str, reference: bool, place: dict) -> Tensor:
    if not reference:
        shape = {"energy": (), "forces": (len(structures[0]), 3), "stress": (3, 3)}[name]
        return torch.zeros(len(structures), *shape, **place)
    values = torch.tensor(np.stack([getattr(s, name) for s in structures]), **place)
    return values / len(structures[0]) if name == "energy" else values


def _apart(x: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and species, which may travel as the fourth column of the points."""
    return (x[..., :3], x[..., 3].round().long()) if x.shape[-1] == 4 else (x, species)


class ForceFieldModel(nn.Module):
    """A force field in torch as ``audit_equivariance`` calls models; see the module for the calling
    convention.

    Gradients are enabled inside, for forces that are derivatives; ``outputs`` says what is asked of
    it.
    """

    def __init__(self, model: ForceField, outputs: Sequence[str] = ("forces",)):
        super().__init__()
        self.model, self.outputs = model, tuple(outputs)

    def answers(
        self, x: Tensor, cell: Tensor, species: Tensor, pbc: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        """All that the model gives, energies per atom."""
        positions, species = _apart(x, species)
        found = call_force_field(self.model, species, positions, cell if bool(pbc.any()) else None)
        if "energy" in found:
            found["energy"] = found["energy"] / x.shape[1]
        return found

    def forward(
        self, x: Tensor, cell: Tensor, species: Tensor, pbc: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        found = self.answers(x, cell, species, pbc, index)
        if missing := [name for name in self.outputs if name not in found]:
            raise InputError(
                f"the model gives {', '.join(found) or 'nothing'}, but no {', '.join(missing)}"
            )
        return {name: found[name] for name in self.outputs}


def call_force_field(
    model: ForceField, species: Tensor, positions: Tensor, cell: Tensor | None
) -> dict[str, Tensor]:
    """One call, detached; raises ``InputError`` for a call that fails and an answer that is not as
    agreed."""
    try:
        with torch.enable_grad():
            answer = model(species, positions.detach(), cell)
    except Exception as error:  # any code may stand behind a model
        shapes = ", ".join(str(tuple(v.shape)) for v in (species, positions))
        raise InputError(
            f"the model failed for species and positions of shapes {shapes}"
            f" ({type(error).__name__}: {error})"
        ) from error
    if isinstance(answer, Tensor):
        answer = {"forces": answer}
    if not isinstance(answer, Mapping):
        raise InputError(
            f"the model returned {type(answer).__name__}, not a dictionary or a tensor of forces"
        )
    B, N = species.shape
    shapes = {"energy": (B,), "forces": (B, N, 3), "stress": (B, 3, 3)}
    found = {name: answer[name] for name in OUTPUTS if answer.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.shape != shapes[name]:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"the model's {name}: expected a tensor of shape {shapes[name]}, got {given}"
            )
    return {name: value.detach() for name, value in found.items()}


def dtype_of(model: Any) -> torch.dtype:
    """That of the parameters of a module; float64 where there are none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.dtype for p in parameters if p.dtype.is_floating_point), torch.float64)


class CalculatorModel:
    """An ASE calculator as ``audit_equivariance`` calls models: one geometry after another, each
    from scratch.

    ``places``: what to call each structure in an error. ``calls`` counts the single points, and
    ``single_precision`` says that answers came in float32. Raises ``EnergyError`` naming the
    structure where a single point fails or is not finite, ``InputError`` for a calculator without
    ``outputs``.
    """

    def __init__(
        self, calculator: BaseCalculator, outputs: Sequence[str], places: Sequence[str] = ()
    ):
        self.calculator, self.outputs, self.places = calculator, tuple(outputs), tuple(places)
        self.name = type(calculator).__name__
        self.calls, self.single_precision = 0, False
        known = implemented(calculator)
        if missing := [name for name in self.outputs if name not in known]:
            raise InputError(
                f"the calculator {self.name} has no {', '.join(missing)}, only {', '.join(known)}"
            )

    def __call__(
        self, x: Tensor, cell: Tensor, species: Tensor, pbc: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        positions, species = _apart(x, species)
        columns = (positions.double(), cell.double(), species, pbc, index)
        rows = zip(*[c.detach().cpu().numpy() for c in columns], strict=True)
        answers = [self._single_point(*row) for row in rows]
        return {
            name: torch.from_numpy(np.stack([a[name] for a in answers])).to(x.device)
            for name in self.outputs
        }

    def _single_point(self, positions, cell, species, pbc, index) -> dict[str, np.ndarray]:
        self.calls += 1
        # a calculator that starts from its last result would depend on the order of the calls
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        atoms = Atoms(species, positions, cell=cell if pbc.any() else None, pbc=pbc)
        atoms.calc = self.calculator
        where = self.places[index] if index < len(self.places) else f"structure {index + 1}"
        try:
            with torch.enable_grad():  # for calculators that are networks in torch
                found = {name: _GETTERS[name](atoms) for name in self.outputs}
        except Exception as error:  # any code may stand behind a calculator
            raise EnergyError(
                f"{where}: {self.name} failed ({type(error).__name__}: {error})"
            ) from error
        self.single_precision |= any(value.dtype == np.float32 for value in found.values())
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise EnergyError(f"{where}: {self.name} gave {name} that are not finite")
        return found


# in the precision of the calculator, by which rounding is judged
_GETTERS: dict[str, Callable[[Atoms], np.ndarray]] = {
    "energy": lambda atoms: np.asarray(atoms.get_potential_energy() / len(atoms)),
    "forces": lambda atoms: np.array(atoms.get_forces(apply_constraint=False)),
    "stress": lambda atoms: np.array(atoms.get_stress(voigt=False, apply_constraint=False)),
}


def is_calculator(thing: Any) -> bool:
    """Whether it can be used as a calculator of ASE."""
    return not isinstance(thing, type) and all(
        hasattr(thing, n) for n in ("get_property", "implemented_properties")
    )


def implemented(calculator: BaseCalculator) -> tuple[str, ...]:
    """Which of energy, forces and stress a calculator says it has."""
    return tuple(name for name in OUTPUTS if name in calculator.implemented_properties)


class ModelCalculator(Calculator):
    """A force field in torch as an ASE calculator; see the module for the calling convention.

    ``outputs``: what it gives, of energy, forces and stress. Without an energy it can be audited
    and can drive dynamics, but not what needs an energy. ``dtype``: of the positions it sees, by
    default that of its parameters. Raises ``InputError`` where the model does not give the
    ``outputs``.
    """

    def __init__(
        self,
        model: ForceField,
        outputs: Sequence[str] = ("forces",),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.implemented_properties = list(outputs)
        self.model, self.device = model, torch.device(device)
        self.dtype = dtype or dtype_of(model)

    def calculate(self, atoms=None, properties=("forces",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        place = {"dtype": self.dtype, "device": self.device}
        species = torch.tensor(self.atoms.numbers, device=self.device, dtype=torch.long)[None]
        positions = torch.tensor(self.atoms.positions, **place)[None]
        cell = torch.tensor(self.atoms.cell.array, **place)[None] if self.atoms.pbc.any() else None
        found = call_force_field(self.model, species, positions, cell)
        if missing := [name for name in self.implemented_properties if name not in found]:
            raise InputError(f"the model gives no {', '.join(missing)}")
        results = {name: value[0].cpu().numpy() for name, value in found.items()}
        if "stress" in results:
            results["stress"] = full_3x3_to_voigt_6_stress(results["stress"])
        if "energy" in results:
            results["energy"] = float(results["energy"])
        self.results = results


def _xtb() -> BaseCalculator:
    from tblite.ase import TBLite

    # the tightest self-consistent field that still converges: its remainder turns with the
    # molecule's frame
    return TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)


def _chgnet() -> BaseCalculator:
    from chgnet.model.dynamics import CHGNetCalculator

    with redirect_stdout(StringIO()):  # it says there what it has loaded
        return CHGNetCalculator(use_device="cpu")


def _emt() -> BaseCalculator:
    from ase.calculators.emt import EMT

    return EMT()


def _lj() -> BaseCalculator:
    from ase.calculators.lj import LennardJones

    return LennardJones()


CALCULATORS: dict[str, Callable[[], BaseCalculator]] = {
    "xtb": _xtb,
    "chgnet": _chgnet,
    "emt": _emt,
    "lj": _lj,
}
