"""Generalised-Born solvents as OpenMM describes them, as plain arrays in kJ/mol and Å.

Two ways in: ``GBSAOBCForce``, and the ``CustomGBForce`` that OpenMM's ``implicit/*.xml`` make (HCT,
OBC1, OBC2, GBn, GBn2), whose expressions are matched statement by statement, with the numbers read
from them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from orbitwise.errors import InputError

NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"
DESCREEN = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)"
)
SHAPE = {"U": "r+sr2", "L": "max(or1,D)", "D": "abs(r-sr2)"}
NECK = {
    "Ineck": (
        "step(radius1+radius2+neckCut-r)*getm0(radindex1,radindex2)/(1+100*(r-getd0(radindex1,radindex2))^2+"
        "0.3*1000000*(r-getd0(radindex1,radindex2))^6)"
    ),
    "Ivdw": DESCREEN,
    "radius1": "or1+offset",
    "radius2": "or2+offset",
    **SHAPE,
}
RESCALE = {"psi": "I*or", "radius": "or+offset"}
PAIR_SHAPE = {"f": "sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"}
SCREENING = {
    "(1/soluteDielectric-1/solventDielectric)": False,
    "(1/soluteDielectric-exp(-kappa*{})/solventDielectric)": True,
}
PROBE = 0.14  # nm, in GBSAOBCForce and in the ACE term of the custom forces
OBC_OFFSET = 0.009  # nm
OBC_COEFFICIENTS = (1.0, 0.8, 4.85)


@dataclass(frozen=True)
class Solvent:
    """Energies in kJ/mol, lengths in Å; per-atom arrays ``(N,)``.

    ``radius`` ρ and ``offset_radius`` ρ̃ = ρ - offset, ``scaled_radius`` (the descreener's).
    ``alpha, beta, gamma`` of ``1/B = 1/ρ̃ - tanh(αΨ - βΨ² + γΨ³)/ρ``, Ψ = I ρ̃; None for HCT, where
    ``1/B = 1/ρ̃ - I``. ``engulfed``: whether I counts a descreener that contains the whole atom
    (GBSAOBCForce does). ``coulomb``: e²/(4πε0); ``kappa`` 1/Å. ``surface``: kJ/mol/Å² times 4π, 0
    without; ``probe`` Å. ``neck_height, neck_distance: (N, N)`` of the receiving and the
    descreening atom (1/Å, Å) with their ``neck_cut``; None without necks.
    """

    charge: np.ndarray
    radius: np.ndarray
    offset_radius: np.ndarray
    scaled_radius: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    engulfed: bool
    coulomb: float
    solute_dielectric: float
    solvent_dielectric: float
    kappa: float
    surface: float
    probe: float
    neck_height: np.ndarray | None = None
    neck_distance: np.ndarray | None = None
    neck_cut: float = 0.0


def from_gbsa_obc(
    rows: np.ndarray,
    solute_dielectric: float,
    solvent_dielectric: float,
    surface: float,
    coulomb: float,
) -> Solvent:
    """``rows: (N, 3)``: charge, radius [nm] and scale of each particle; ``surface`` in
    kJ/mol/nm²."""
    charge, radius, scale = rows.T
    inner = radius - OBC_OFFSET
    return Solvent(
        charge=charge,
        radius=10.0 * radius,
        offset_radius=10.0 * inner,
        scaled_radius=10.0 * scale * inner,
        coefficients=tuple(np.full(len(charge), c) for c in OBC_COEFFICIENTS),
        engulfed=True,
        coulomb=10.0 * coulomb,
        solute_dielectric=solute_dielectric,
        solvent_dielectric=solvent_dielectric,
        kappa=0.0,
        surface=4.0 * math.pi * surface / 100.0,
        probe=10.0 * PROBE,
    )


class _Expression:
    """``main; name=definition; ...`` with the numeric definitions and global parameters as
    ``constants``."""

    def __init__(self, text: str, constants: dict[str, float]):
        self.text = "".join(text.split()).rstrip(";")
        self.main, *statements = self.text.split(";")
        self.constants, self.definitions = dict(constants), {}
        for name, definition in (s.split("=", 1) for s in statements if s):
            if re.fullmatch(NUMBER, definition):
                self.constants[name] = float(definition)
            else:
                self.definitions[name] = definition

    def match(self, pattern: str, definitions: dict[str, str]) -> tuple[float, ...] | None:
        """The numbers in the main expression where all of the expression is as expected, None
        otherwise."""
        found = re.fullmatch(pattern, self.main)
        return (
            tuple(map(float, found.groups())) if found and self.definitions == definitions else None
        )

    def refuse(self) -> InputError:
        return InputError(
            f"CustomGBForce has the expression {self.text!r}, which is none of HCT, OBC1, OBC2, GBn"
            " and GBn2 as OpenMM's implicit/*.xml write them; use one of these or GBSAOBCForce"
        )


def _escape(text: str) -> str:
    """A regular expression for ``text``, in which # stands for a number."""
    return re.escape(text).replace(re.escape("#"), NUMBER)


def _neck(force, integral: _Expression, index: np.ndarray) -> dict:
    tables = {}
    for k in range(force.getNumTabulatedFunctions()):
        columns, rows, values = force.getTabulatedFunction(k).getFunctionParameters()
        table = np.array(values, dtype=float).reshape(rows, columns).T
        tables[force.getTabulatedFunctionName(k)] = table[index[:, None], index[None]]
    return {
        "neck_height": integral.constants["neckScale"] * tables["getm0"] / 10.0,
        "neck_distance": 10.0 * tables["getd0"],
        "neck_cut": 10.0 * integral.constants["neckCut"],
    }


def _coefficients(born: _Expression, atoms: dict[str, np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """α, β, γ; None for HCT."""
    if born.match(_escape("1/(1/or-I)"), {}) is not None:
        return None
    ones = np.ones_like(atoms["or"])
    forms = {  # where the numbers of each way of writing the series go
        "1/(1/or-tanh(alpha*psi-beta*psi^2+gamma*psi^3)/radius)": lambda: (
            "alpha",
            "beta",
            "gamma",
        ),
        "1/(1/or-tanh(#*psi-#*psi^2+#*psi^3)/radius)": lambda a, b, c: (a, b, c),
        "1/(1/or-tanh(psi-#*psi^2+#*psi^3)/radius)": lambda b, c: (1.0, b, c),
        "1/(1/or-tanh(#*psi+#*psi^3)/radius)": lambda a, c: (a, 0.0, c),
    }
    for form, order in forms.items():
        numbers = born.match(_escape(form), RESCALE)
        if numbers is not None:
            return tuple(atoms[c] if isinstance(c, str) else c * ones for c in order(*numbers))
    raise born.refuse()


def _polar(terms: list[_Expression], template: str, at: str, definitions: dict[str, str]):
    """The term that matches: its Coulomb constant, the expression and whether it is screened by
    ions."""
    for form, screened in SCREENING.items():
        pattern = _escape(template.replace("@", form.format(at)))
        for term in terms:
            numbers = term.match(pattern, definitions)
            if numbers is not None:
                terms.remove(term)
                return numbers[0], term, screened
    raise terms[0].refuse()


def from_custom_gb(force) -> Solvent:
    """Raises ``InputError`` for expressions that are not those of a known model."""
    names = [
        force.getPerParticleParameterName(k) for k in range(force.getNumPerParticleParameters())
    ]
    rows = [force.getParticleParameters(k) for k in range(force.getNumParticles())]
    atoms = dict(zip(names, np.array(rows, dtype=float).T, strict=True))
    shared = {
        force.getGlobalParameterName(k): force.getGlobalParameterDefaultValue(k)
        for k in range(force.getNumGlobalParameters())
    }
    values = [force.getComputedValueParameters(k) for k in range(force.getNumComputedValues())]
    energies = [force.getEnergyTermParameters(k) for k in range(force.getNumEnergyTerms())]
    single, pair = force.SingleParticle, force.ParticlePairNoExclusions
    if [(name, kind) for name, _, kind in values] != [("I", pair), ("B", single)]:
        raise _Expression(values[0][1] if values else "", shared).refuse()
    integral, born = (_Expression(text, shared) for _, text, _ in values)
    singles = [_Expression(text, shared) for text, kind in energies if kind == single]
    pairs = [_Expression(text, shared) for text, kind in energies if kind != single]
    if not singles or [kind for _, kind in energies if kind != single] != [pair]:
        raise integral.refuse()

    neck = {}
    if integral.match(_escape("Ivdw+neckScale*Ineck"), NECK) is not None:
        neck = _neck(force, integral, atoms["radindex"].astype(int))
    elif integral.match(_escape(DESCREEN), SHAPE) is None:
        raise integral.refuse()
    coefficients = _coefficients(born, atoms)
    coulomb, polar, screened = _polar(singles, "-0.5*#*@*charge^2/B", "B", {})
    coulomb2, polar2, screened2 = _polar(pairs, "-#*@*charge1*charge2/f", "f", PAIR_SHAPE)
    if (coulomb, screened) != (coulomb2, screened2) or polar.constants != polar2.constants:
        raise polar2.refuse()
    offset = polar.constants["offset"]
    surface, probe = 0.0, PROBE
    for term in singles:
        numbers = term.match(_escape("#*(radius+#)^2*(radius/B)^6"), {"radius": "or+offset"})
        if numbers is None or surface:
            raise term.refuse()
        surface, probe = numbers
    return Solvent(
        charge=atoms["charge"],
        radius=10.0 * (atoms["or"] + offset),
        offset_radius=10.0 * atoms["or"],
        scaled_radius=10.0 * atoms["sr"],
        coefficients=coefficients,
        engulfed=False,
        coulomb=10.0 * coulomb,
        solute_dielectric=polar.constants["soluteDielectric"],
        solvent_dielectric=polar.constants["solventDielectric"],
        kappa=polar.constants["kappa"] / 10.0 if screened else 0.0,
        surface=surface / 100.0,
        probe=10.0 * probe,
        **neck,
    )
