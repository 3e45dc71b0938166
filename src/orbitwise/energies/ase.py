"""Any ASE calculator as an energy, one geometry at a time; GFN2-xTB through tblite as the
ready-made one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorError, PropertyNotImplementedError
from torch import Tensor

from orbitwise.energies.analytic import AnalyticEnergy
from orbitwise.errors import EnergyError, InputError
from orbitwise.units import EV_PER_K

# What a calculator raises when a single point fails (a self-consistent field that does not
# converge, atoms on top of one another). Anything else is a mistake in the call and is passed on.
FAILURES = (CalculatorError, ArithmeticError, np.linalg.LinAlgError)


@contextmanager
def _threads(number: int | None):
    """Limit OpenMP to ``number`` threads inside, through the runtime that torch shares with
    others."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


class ASEEnergy(AnalyticEnergy):
    """The potential energy of an ASE calculator in kT at ``temperature`` [K], for positions in Å.

    ``system`` is an ``ase.Atoms`` (its cell and periodicity are kept, its positions and constraints
    are not used) or the atomic numbers; ``calculator`` any ASE calculator that has energies and
    forces. Called on ``x: (*B, N, 3)`` it gives ``(*B)``, and ``value_and_grad`` kT and kT/Å, in
    the dtype and on the device of ``x``; the calculator itself runs on the CPU in float64, one
    geometry after another, each from scratch, so that a result does not depend on what was asked
    before. ``threads`` limits its OpenMP threads.

    A geometry whose single point fails gets a NaN energy and gradient (kernels reject it) and is
    counted in ``failures``, with the reason in ``last_failure``; positions that are not finite get
    NaN without a call. ``calls`` counts the single points. Raises ``EnergyError`` where all of a
    batch fails and nothing has ever succeeded, ``InputError`` for a wrong shape, dtype, system or
    temperature, or a calculator without forces.
    """

    def __init__(
        self,
        system: Atoms | Sequence[int],
        calculator: BaseCalculator,
        temperature: float = 300.0,
        threads: int | None = None,
    ):
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive (kelvin), got {temperature}")
        atoms = (
            system.copy() if isinstance(system, Atoms) else Atoms(numbers=[int(z) for z in system])
        )
        if len(atoms) == 0:
            raise InputError("the system has no atoms")
        atoms.set_constraint()
        atoms.calc = calculator
        self.atoms, self.calculator, self.threads = atoms, calculator, threads
        self.temperature = float(temperature)
        self.ev_per_kT = EV_PER_K * self.temperature
        self.event_shape = (len(atoms), 3)
        self.zero_com = not atoms.pbc.any()
        self.calls = 0
        self.failures = 0
        self.last_failure: str | None = None

    def extra_repr(self) -> str:
        name, formula = type(self.calculator).__name__, self.atoms.get_chemical_formula()
        return f"{name}, {formula}, {self.temperature:g} K"

    def _single_point(self, positions: np.ndarray, forces: np.ndarray | None) -> float:
        """The energy in eV, and the forces in eV/Å written into ``forces``; NaN where it fails."""
        if not np.isfinite(positions).all():
            return math.nan
        self.calls += 1
        # A fresh start every time: a calculator that restarts from its last result depends on the
        # order of the calls, and tblite 0.8 aborts the process when it restarts from a failed one.
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        self.atoms.positions = positions
        try:
            if forces is not None:
                forces[:] = self.atoms.get_forces(apply_constraint=False)
            value = float(self.atoms.get_potential_energy())
        except PropertyNotImplementedError as error:
            name = type(self.calculator).__name__
            raise InputError(
                f"the calculator {name} has no energies or no forces ({error})"
            ) from error
        except FAILURES as error:
            self.failures += 1
            self.last_failure = f"{type(error).__name__}: {error}".strip()
            if forces is not None:
                forces[:] = math.nan
            return math.nan
        return value

    def _loop(self, x: Tensor, forces: np.ndarray | None) -> Tensor:
        """Energies in kT of all geometries ``(*B, N, 3)``."""
        geometries = x.detach().to("cpu", torch.float64).reshape(-1, *self.event_shape).numpy()
        called = self.calls
        with _threads(self.threads):
            rows = [None] * len(geometries) if forces is None else forces
            values = [self._single_point(p, f) for p, f in zip(geometries, rows, strict=True)]
        if self.failures == self.calls > called:
            name = type(self.calculator).__name__
            raise EnergyError(
                f"{name} failed for all of {len(geometries)} geometries; {self.last_failure}"
            )
        return (
            torch.tensor(values, dtype=torch.float64).div_(self.ev_per_kT).to(x).view(x.shape[:-2])
        )

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if x.requires_grad and torch.is_grad_enabled():
            return super().forward(x)
        return self._loop(x, None)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check(x)
        forces = np.full((math.prod(x.shape[:-2]), *self.event_shape), math.nan)
        value = self._loop(x, forces)
        return value, torch.from_numpy(forces).div_(-self.ev_per_kT).to(x).view(x.shape)


def xtb(
    system,
    charge: int | None = None,
    temperature: float = 300.0,
    multiplicity: int | None = None,
    accuracy: float = 0.1,
    solvent: str | None = None,
) -> ASEEnergy:
    """GFN2-xTB (Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)) through tblite, on one
    thread.

    ``system`` is an RDKit molecule with explicit hydrogens (its formal charge is the default
    ``charge``), an ``ase.Atoms`` or atomic numbers. ``accuracy`` is tblite's: smaller converges the
    self-consistent field more tightly; 0.1 leaves a relative error of about 1e-6 in the gradient.
    ``solvent``: None for the gas phase, or the name of one that ALPB has parameters for, an
    implicit solvent (Ehlert, Stahn, Spicher and Grimme, J. Chem. Theory Comput. 17, 4250 (2021)).
    Raises ``MissingExtraError`` without tblite, ``InputError`` for implicit hydrogens or an unknown
    solvent.
    """
    from tblite.ase import TBLite

    if solvent is not None:
        check_solvent(solvent)

    if hasattr(system, "GetAtoms"):  # an RDKit molecule, without importing RDKit for the others
        if any(a.GetTotalNumHs() > 0 for a in system.GetAtoms()):
            raise InputError(
                "the molecule has implicit hydrogens; add them: mol = rdkit.Chem.AddHs(mol)"
            )
        charge = sum(a.GetFormalCharge() for a in system.GetAtoms()) if charge is None else charge
        system = [a.GetAtomicNum() for a in system.GetAtoms()]
    calculator = TBLite(
        method="GFN2-xTB",
        charge=charge,
        multiplicity=multiplicity,
        accuracy=accuracy,
        solvation=solvent and ("alpb", solvent),
        verbosity=0,
    )
    return ASEEnergy(system, calculator, temperature, threads=1)


def check_solvent(name: str) -> None:
    """``InputError`` for a solvent that GFN2-xTB has no ALPB parameters for."""
    from tblite.interface import Calculator

    hydrogen = Calculator("GFN2-xTB", np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 1.4]]))
    hydrogen.set("verbosity", 0)
    try:
        hydrogen.add("alpb-solvation", name)
    except RuntimeError as error:
        raise InputError(
            f"xtb does not know the solvent {name!r}; it knows water, methanol, ethanol, acetone,"
            " acetonitrile, dmso, dmf, thf, ether, chcl3, ch2cl2, benzene, toluene, hexane, octanol"
            " and some more of tblite's ALPB solvents"
        ) from error
