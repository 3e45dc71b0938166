"""What an OpenMM ``System`` of the standard forces holds, as plain arrays in kJ/mol, Å and radians.

All terms are indexed through the list of all pairs ``i < j`` of atoms: a bond is a pair, an angle
three pairs (its two arms and its base), a torsion the three displacements along it with their
signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orbitwise.errors import InputError
from orbitwise.molecules.openmm.solvent import Solvent, from_custom_gb, from_gbsa_obc

# e²/(4πε0) in kJ/mol nm, from the constants OpenMM itself uses (CODATA 2018)
COULOMB = 1.602176634e-19**2 * 6.02214076e23 / (4 * math.pi * 8.8541878128e-12) * 1e6
# Harmonic impropers, the custom torsions OpenMM makes for CHARMM: expression -> whether the angle
# is wrapped
IMPROPERS = {
    "k*(theta-theta0)^2": 0.0,
    "k*min(dtheta,2*pi-dtheta)^2;dtheta=abs(theta-theta0);pi=3.141592653589793": 2 * math.pi,
    "k*min(dtheta,2*pi-dtheta)^2;dtheta=abs(theta-theta0);pi=3.1415926535": 2 * math.pi,
}
LJ_TABLES = "acoef(type1,type2)/r^12-bcoef(type1,type2)/r^6"
LJ_14 = "4*epsilon*((sigma/r)^12-(sigma/r)^6)"


@dataclass(frozen=True)
class OpenMMParameters:
    """Energies in kJ/mol, lengths in Å, angles in radians; ``pairs: (P, 2)`` are all ``i < j``.

    ``lj12, lj6, coulomb: (P,)``: ``lj12/r¹² - lj6/r⁶ + coulomb/r``. Bonds ``½ k (r - r0)²`` by pair
    index, angles ``½ k (θ - θ0)²`` by the pair indices ``(na, 3)`` of arm, arm, base. Distinct
    torsions by ``torsion_pairs, torsion_sign: (nt, 3)``, with ``Σ_n cosine[n] cos nφ + sine[n] sin
    nφ``: ``(n_max+1, nt)``. ``improper_torsion`` indexes them: ``k (φ - φ0)²``, the difference
    wrapped where ``improper_period`` is 2π. ``cmap_torsions: (nc, 2)`` too, with ``cmap_map:
    (nc,)`` and ``maps``: energies ``(size, size)`` by (φ, ψ).
    """

    n_atoms: int
    masses: np.ndarray
    pairs: np.ndarray
    lj12: np.ndarray
    lj6: np.ndarray
    coulomb: np.ndarray
    bonds: np.ndarray
    bond_r0: np.ndarray
    bond_k: np.ndarray
    angles: np.ndarray
    angle_theta0: np.ndarray
    angle_k: np.ndarray
    torsion_pairs: np.ndarray
    torsion_sign: np.ndarray
    torsion_cosine: np.ndarray
    torsion_sine: np.ndarray
    improper_torsion: np.ndarray
    improper_k: np.ndarray
    improper_phi0: np.ndarray
    improper_period: np.ndarray
    cmap_torsions: np.ndarray
    cmap_map: np.ndarray
    maps: tuple[np.ndarray, ...]
    solvents: tuple[Solvent, ...]


def plain(value) -> float:
    """A number in OpenMM's own units (nm, kJ/mol, e, rad) without its unit."""
    from openmm import unit

    return value.value_in_unit_system(unit.md_unit_system) if unit.is_quantity(value) else value


def compact(expression: str) -> str:
    return "".join(expression.split()).rstrip(";")


class _Reader:
    """Collects the terms force by force; one method per kind of force, named after it."""

    def __init__(self, n_atoms: int):
        self.n = n_atoms
        self.pairs = np.stack(np.triu_indices(n_atoms, 1), 1)
        self.number = np.full((n_atoms, n_atoms), -1)
        self.number[tuple(self.pairs.T)] = self.number[tuple(self.pairs.T[::-1])] = np.arange(
            len(self.pairs)
        )
        self.lj12, self.lj6, self.coulomb = (np.zeros(len(self.pairs)) for _ in range(3))
        self.bonds, self.angles, self.impropers, self.cmaps = [], [], [], []
        self.torsions: dict[tuple[int, ...], int] = {}
        self.fourier: list[tuple[int, int, float, float]] = []
        self.maps: list[np.ndarray] = []
        self.solvents: list[Solvent] = []

    def torsion(self, atoms) -> int:
        """The number of a torsion, the same for its reverse (which has the same angle)."""
        atoms = tuple(int(a) for a in atoms)
        key = min(atoms, atoms[::-1])
        return self.torsions.setdefault(key, len(self.torsions))

    def lennard_jones(self, sigma, epsilon) -> tuple:
        power = (10.0 * sigma) ** 6
        return 4.0 * epsilon * power * power, 4.0 * epsilon * power

    def HarmonicBondForce(self, force) -> None:
        for k in range(force.getNumBonds()):
            i, j, r0, stiff = map(plain, force.getBondParameters(k))
            self.bonds.append((self.number[i, j], 10.0 * r0, stiff / 100.0))

    def HarmonicAngleForce(self, force) -> None:
        for k in range(force.getNumAngles()):
            i, j, l, theta0, stiff = map(plain, force.getAngleParameters(k))
            self.angles.append(
                (self.number[i, j], self.number[j, l], self.number[i, l], theta0, stiff)
            )

    def PeriodicTorsionForce(self, force) -> None:
        for k in range(force.getNumTorsions()):
            *atoms, n, phase, stiff = map(plain, force.getTorsionParameters(k))
            self.fourier.append((self.torsion(atoms), int(n), phase, stiff))

    def CustomTorsionForce(self, force) -> None:
        expression = compact(force.getEnergyFunction())
        names = [
            force.getPerTorsionParameterName(k) for k in range(force.getNumPerTorsionParameters())
        ]
        if expression not in IMPROPERS or set(names) != {"k", "theta0"}:
            raise InputError(_unknown(force, expression, "harmonic impropers k*(theta-theta0)^2"))
        for k in range(force.getNumTorsions()):
            *atoms, values = force.getTorsionParameters(k)
            value = dict(zip(names, values, strict=True))
            self.impropers.append(
                (self.torsion(atoms), value["k"], value["theta0"], IMPROPERS[expression])
            )

    def CMAPTorsionForce(self, force) -> None:
        first = len(self.maps)
        for k in range(force.getNumMaps()):
            size, energies = force.getMapParameters(k)
            grid = np.array([plain(e) for e in energies], dtype=float)
            self.maps.append(
                grid.reshape(size, size).T
            )  # the first angle runs fastest in OpenMM's list
        for k in range(force.getNumTorsions()):
            which, *atoms = force.getTorsionParameters(k)
            self.cmaps.append((self.torsion(atoms[:4]), self.torsion(atoms[4:]), first + which))

    def NonbondedForce(self, force) -> None:
        _no_cutoff(force)
        if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
            raise InputError("NonbondedForce has parameter offsets; build the System without them")
        values = np.array(
            [[plain(v) for v in force.getParticleParameters(k)] for k in range(self.n)]
        )
        charge, sigma, epsilon = values.reshape(self.n, 3).T
        i, j = self.pairs.T
        coulomb = charge[i] * charge[j]
        lj12, lj6 = self.lennard_jones(
            0.5 * (sigma[i] + sigma[j]), np.sqrt(epsilon[i] * epsilon[j])
        )
        for k in range(force.getNumExceptions()):
            a, b, product, sigma_ab, epsilon_ab = map(plain, force.getExceptionParameters(k))
            pair = self.number[a, b]
            coulomb[pair] = product
            lj12[pair], lj6[pair] = self.lennard_jones(sigma_ab, epsilon_ab)
        self.lj12 += lj12
        self.lj6 += lj6
        self.coulomb += 10.0 * COULOMB * coulomb

    def CustomNonbondedForce(self, force) -> None:
        """Lennard-Jones from tables of types, which OpenMM makes for CHARMM's pair-specific
        parameters."""
        expression = compact(force.getEnergyFunction())
        tables = {
            force.getTabulatedFunctionName(k): force.getTabulatedFunction(k)
            for k in range(force.getNumTabulatedFunctions())
        }
        single = (
            force.getNumPerParticleParameters() == 1
            and force.getPerParticleParameterName(0) == "type"
        )
        if expression != LJ_TABLES or set(tables) != {"acoef", "bcoef"} or not single:
            raise InputError(_unknown(force, expression, "Lennard-Jones terms from type tables"))
        _no_cutoff(force)
        if force.getNumInteractionGroups():
            raise InputError(
                f"{_title(force)} has interaction groups; build the System without them"
            )
        kind = np.array([int(force.getParticleParameters(k)[0]) for k in range(self.n)])
        i, j = self.pairs.T
        keep = np.ones(len(self.pairs))
        for k in range(force.getNumExclusions()):
            keep[self.number[tuple(force.getExclusionParticles(k))]] = 0.0
        for name, target, power in (("acoef", self.lj12, 12), ("bcoef", self.lj6, 6)):
            columns, rows, values = tables[name].getFunctionParameters()
            table = np.array(values, dtype=float).reshape(rows, columns).T
            target += keep * 10.0**power * table[kind[i], kind[j]]

    def CustomBondForce(self, force) -> None:
        expression = compact(force.getEnergyFunction())
        names = [force.getPerBondParameterName(k) for k in range(force.getNumPerBondParameters())]
        if expression != LJ_14 or set(names) != {"sigma", "epsilon"}:
            raise InputError(_unknown(force, expression, "Lennard-Jones 1-4 terms"))
        for k in range(force.getNumBonds()):
            i, j, values = force.getBondParameters(k)
            value = dict(zip(names, values, strict=True))
            lj12, lj6 = self.lennard_jones(value["sigma"], value["epsilon"])
            self.lj12[self.number[i, j]] += lj12
            self.lj6[self.number[i, j]] += lj6

    def GBSAOBCForce(self, force) -> None:
        _no_cutoff(force)
        rows = [[plain(v) for v in force.getParticleParameters(k)] for k in range(self.n)]
        surface = plain(force.getSurfaceAreaEnergy())
        self.solvents.append(
            from_gbsa_obc(
                np.array(rows),
                force.getSoluteDielectric(),
                force.getSolventDielectric(),
                surface,
                COULOMB,
            )
        )

    def CustomGBForce(self, force) -> None:
        _no_cutoff(force)
        self.solvents.append(from_custom_gb(force))

    def CMMotionRemover(self, force) -> None:
        """Acts on velocities alone."""

    def fourier_series(self) -> tuple[np.ndarray, np.ndarray]:
        """``k (1 + cos(nφ - φ0))`` of all terms, summed per torsion."""
        highest = max((n for _, n, _, _ in self.fourier), default=0)
        cosine = np.zeros((highest + 1, len(self.torsions)))
        sine = np.zeros_like(cosine)
        for which, n, phase, stiff in self.fourier:
            cosine[0, which] += stiff
            cosine[n, which] += stiff * math.cos(phase)
            sine[n, which] += stiff * math.sin(phase)
        sine[np.abs(sine) < 1e-12] = 0.0  # sin π in floating point
        return cosine, sine

    def displacements(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of x0-x1, x1-x2, x3-x2 of each torsion and the signs of their displacements x_i
        - x_j."""
        atoms = np.array(list(self.torsions), dtype=int).reshape(-1, 4)
        tail, head = atoms[:, [0, 1, 3]], atoms[:, [1, 2, 2]]
        return self.number[tail, head], np.where(tail < head, 1.0, -1.0)

    def parameters(self, masses: np.ndarray) -> OpenMMParameters:
        bonds = np.array(self.bonds, dtype=float).reshape(-1, 3)
        angles = np.array(self.angles, dtype=float).reshape(-1, 5)
        impropers = np.array(self.impropers, dtype=float).reshape(-1, 4)
        cmaps = np.array(self.cmaps, dtype=int).reshape(-1, 3)
        cosine, sine = self.fourier_series()
        torsion_pairs, torsion_sign = self.displacements()
        return OpenMMParameters(
            n_atoms=self.n,
            masses=masses,
            pairs=self.pairs,
            lj12=self.lj12,
            lj6=self.lj6,
            coulomb=self.coulomb,
            bonds=bonds[:, 0].astype(int),
            bond_r0=bonds[:, 1],
            bond_k=bonds[:, 2],
            angles=angles[:, :3].astype(int),
            angle_theta0=angles[:, 3],
            angle_k=angles[:, 4],
            torsion_pairs=torsion_pairs,
            torsion_sign=torsion_sign,
            torsion_cosine=cosine,
            torsion_sine=sine,
            improper_torsion=impropers[:, 0].astype(int),
            improper_k=impropers[:, 1],
            improper_phi0=impropers[:, 2],
            improper_period=impropers[:, 3],
            cmap_torsions=cmaps[:, :2],
            cmap_map=cmaps[:, 2],
            maps=tuple(self.maps),
            solvents=tuple(self.solvents),
        )


def _title(force) -> str:
    name = type(force).__name__
    return name if force.getName() == name else f"{name} '{force.getName()}'"


def _unknown(force, expression: str, known: str) -> str:
    return (
        f"{_title(force)} has the energy {expression!r}; of the {type(force).__name__}s only"
        f" {known} are known. Build the System from a force field without it"
    )


def _no_cutoff(force) -> None:
    if force.getNonbondedMethod() != force.NoCutoff:
        raise InputError(
            f"{_title(force)} has a cutoff; build the System with nonbondedMethod=NoCutoff"
        )
    if getattr(force, "getUseSwitchingFunction", lambda: False)():
        raise InputError(
            f"{_title(force)} has a switching function; build the System without switchDistance"
        )


def openmm_parameters(system) -> OpenMMParameters:
    """Read an ``openmm.System``. Raises ``InputError`` naming whatever the energy would not
    reproduce, and ``MissingExtraError`` without OpenMM."""
    import openmm

    if not isinstance(system, openmm.System):
        raise InputError(
            f"expected an openmm.System, got {type(system).__name__}; ForceField.createSystem"
            " makes one"
        )
    n = system.getNumParticles()
    if n == 0:
        raise InputError("the System has no particles")
    if system.getNumConstraints():
        raise InputError(
            f"the System has {system.getNumConstraints()} constraints, which have no density over"
            " all coordinates; build it with constraints=None and rigidWater=False"
        )
    virtual = [k for k in range(n) if system.isVirtualSite(k)]
    if virtual:
        raise InputError(
            f"particle {virtual[0]} is a virtual site; build the System from a model without them"
        )
    reader = _Reader(n)
    for force in system.getForces():
        method = getattr(reader, type(force).__name__, None)
        if method is None:
            kinds = ", ".join(name for name in vars(_Reader) if name.endswith(("Force", "Remover")))
            raise InputError(
                f"{_title(force)} is not among the forces that are known ({kinds}); remove it"
            )
        method(force)
        if force.usesPeriodicBoundaryConditions():
            raise InputError(
                f"{_title(force)} is periodic; build the System without a periodic box"
            )
    return reader.parameters(np.array([plain(system.getParticleMass(k)) for k in range(n)]))
