"""MMFF94 as machine code for the processor at hand: the equations of ``energy.py``, one pass over
the terms for a block of geometries at a time.

A block has one lane per geometry (``lanes.py``). Its unit bond vectors, cosines and normals wait in
a small memory; the terms leave there the derivatives by cosines and normals, which go back to the
atoms in the end, as in ``energy.py``, which has the formulas with their equation numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orbitwise.molecules.mmff.lanes import Code, Number, Rows
from orbitwise.molecules.mmff.tables import BUFFER_CHARGE, BUFFER_R, BUFFER_RHO7, NEAREST2
from orbitwise.molecules.mmff.terms import COUNTS, REALS, WORDS, Terms

WIDTH = {torch.float32: 16, torch.float64: 8}  # lanes: 64 bytes, a line of the cache
FAR = 1e3  # van der Waals radii beyond which the energy of a pair, below 1e-18 kT, stays the same
POWERS = {"float": 10, "double": 21}  # of the series of an arctangent: the rest is below rounding
ALL = slice(None)

Vector = Sequence[Number]

# What the memory has for a bond: unit vector, 1/r, stretch, derivatives by r and by the unit
# vector; for an angle: cosine, 1/sine, unit normal, derivatives by cosine and by normal.
UNIT, STRETCH, BY_LENGTH, BY_UNIT, BOND = slice(0, 3), slice(4, 5), slice(5, 6), slice(6, 9), 9
COSINE, NORMAL, BY_COSINE, BY_NORMAL, ANGLE = slice(0, 2), slice(2, 5), slice(5, 6), slice(6, 9), 9


class Kernel:
    """The function of one dtype, ``kernel(terms, x)``; to make it takes a quarter of a second."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.width = dtype, WIDTH[dtype]
        code = Code("float" if dtype == torch.float32 else "double", self.width, pointers=6)
        _Writer(code, torch.finfo(dtype)).write()
        self.run = code.compile()

    def __call__(self, terms: Terms, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies ``(*B)`` [kT] and gradients ``(*B, N, 3)`` for positions ``(*B, N, 3)``."""
        x = x.contiguous()
        energy, grad = x.new_empty(x.shape[:-2]), torch.empty_like(x)
        vectors = 6 * terms.atoms + BOND * terms.bonds + ANGLE * terms.angles
        scratch = x.new_empty(vectors * self.width)
        places = [a.data_ptr() for a in (x, energy, grad, scratch, terms.words, terms.reals)]
        self.run(*places, energy.numel())
        return energy, grad


def _dot(a: Vector, b: Vector) -> Number:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> list[Number]:
    return [a[k - 2] * b[k - 1] - a[k - 1] * b[k - 2] for k in range(3)]


def _scaled(a: Vector, factor: Number) -> list[Number]:
    return [c * factor for c in a]


def _sum(a: Vector, b: Vector) -> list[Number]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _polynomial(v: Number, powers: Sequence[Number]) -> tuple[Number, Number]:
    """``Σ powers[n] v^(n+1)`` and its derivative, by Horner's rule for both."""
    value, slope = powers[-1], None
    for power in reversed(powers[:-1]):
        slope = value if slope is None else slope * v + value
        value = value * v + power
    return value * v, slope * v + value


def angle_of(sine: Number, cosine: Number) -> Number:
    """The angle from 0 to π of a sine >= 0 and a cosine: the tangents of its half and quarter (of
    those of its distance from π where the cosine is negative), then the series of atan(q) / q in
    powers of q², which is below 0.172."""
    half = sine / (abs(cosine) + 1.0)
    quarter = half / ((half * half + 1.0).sqrt() + 1.0)
    z = quarter * quarter
    ratio = sine.code.zero()
    for n in reversed(range(POWERS[str(sine.code.scalar)])):
        ratio = (1 - 2 * (n % 2)) / (2 * n + 1) + z * ratio
    small = ratio * quarter * 4.0
    return small.where(cosine < 0.0, math.pi - small)


class _Writer:
    """The instructions, kind of term by kind of term."""

    def __init__(self, code: Code, limits: torch.finfo):
        self.code, self.limits = code, limits
        (self.x, self.energy, self.grad, self.scratch, self.words, self.reals), self.batch = (
            code.arguments
        )
        names = [*COUNTS, *WORDS, *REALS]
        head = [code.word(self.words, code.integer(k)) for k in range(len(names))]
        self.count = dict(zip(COUNTS, head, strict=False))
        self.begin = dict(zip(names[len(COUNTS) :], head[len(COUNTS) :], strict=True))

        count, begin = self.count, code.integer(0)
        self.atoms = Rows(code, self.scratch, begin, 3)
        begin = begin + count["atoms"] * 3
        self.forces = Rows(code, self.scratch, begin, 3)
        begin = begin + count["atoms"] * 3
        self.bonds = Rows(code, self.scratch, begin, BOND)
        begin = begin + count["bonds"] * BOND
        self.angles = Rows(code, self.scratch, begin, ANGLE)

    def word(self, name: str, row: Number, column: int = 0, width: int = 2) -> Number:
        return self.code.word(self.words, self.begin[name] + row * width + column)

    def row(self, name: str, row: Number) -> list[Number]:
        first = self.begin[name] + row * REALS[name]
        return [self.code.spread(self.reals, first + k) for k in range(REALS[name])]

    def write(self) -> None:
        code, width = self.code, self.code.width
        blocks = Number(
            code, code.builder.sdiv((self.batch + (width - 1)).value, code.integer(width).value)
        )
        numbers = self.count["atoms"] * 3
        coordinate = Rows(code, self.scratch, code.integer(0), 1)
        force = Rows(code, self.scratch, numbers, 1)
        with code.loop(0, blocks) as block:
            # lanes behind the end of the batch do its last geometry once more
            own = [code.smaller(block * width + k, self.batch - 1) for k in range(width)]
            places = [one * numbers for one in own]
            with code.loop(0, numbers) as k:
                coordinate[k, ALL] = [code.gather(self.x, [place + k for place in places])]
                force[k, ALL] = [code.zero()]
            total = self.row("constant", code.integer(0))[0]
            for kind in (
                self.pairs,
                self.stretches,
                self.bends,
                self.straight,
                self.planes,
                self.torsions,
            ):
                total = total + kind()
            self.to_bonds()
            self.to_atoms()
            code.scatter(total, self.energy, own)
            with code.loop(0, numbers) as k:
                code.scatter(force[k, ALL][0], self.grad, [place + k for place in places])

    def pairs(self) -> Number:
        """Eqs 8 and 13."""
        code, total = self.code, self.code.sum()
        with code.loop(0, self.count["atoms"]) as i:
            here, energy = self.atoms[i, ALL], code.sum()
            pull = [code.sum() for _ in range(3)]
            begin, end = (self.word("first", i, column=k, width=1) for k in (0, 1))
            with code.loop(begin, end) as pair:
                j = self.word("partner", pair, width=1)
                value, slope, d = self.pair(self.row("pair", pair), here, self.atoms[j, ALL])
                energy.add(value)
                change = _scaled(d, slope)
                self.forces.add(j, ALL, change)
                for one, c in zip(pull, change, strict=True):
                    one.add(c)
            self.forces.add(i, ALL, [0.0 - one.value for one in pull])
            total.add(energy.value)
        return total.value

    def pair(self, row: Vector, here: Vector, there: Vector) -> tuple[Number, Number, Vector]:
        """Energy, (dE/dr)/r and the displacement."""
        inv_r, epsilon, steepness, charge = row
        d = [b - a for a, b in zip(here, there, strict=True)]
        r2 = _dot(d, d).clamp(low=NEAREST2)
        by_r = 1.0 / r2.sqrt()
        r = r2 * by_r
        rho = (r * inv_r).clamp(high=FAR)
        rho2 = rho * rho
        rho6 = rho2 * rho2 * rho2
        # three reciprocals by one division, the slowest of all instructions
        depth, near, buffered = rho6 * rho + BUFFER_RHO7, rho + BUFFER_R, r + BUFFER_CHARGE
        both = near * buffered
        inverse = 1.0 / (depth * both)
        b, rest = both * inverse, depth * inverse
        a, by_buffered = rest * buffered, rest * near
        a2 = a * a
        a7 = a2 * a2 * a2 * a
        well = b - 2.0
        coulomb = charge * by_buffered
        energy = well * a7 * epsilon + coulomb
        slope = (b * b * rho6 + a * well) * a7 * steepness - coulomb * by_buffered
        return energy, slope * by_r, d

    def stretches(self) -> Number:
        """Eq 2, and the unit bond vectors."""
        code, total = self.code, self.code.sum()
        with code.loop(0, self.count["bonds"]) as bond:
            tail, head = (self.atoms[self.word("bonds", bond, k), ALL] for k in (0, 1))
            d = [a - b for a, b in zip(tail, head, strict=True)]
            r = _dot(d, d).clamp(low=NEAREST2).sqrt()
            by_r = 1.0 / r
            r0, *powers = self.row("bond", bond)
            stretch = r - r0
            energy, slope = _polynomial(stretch, powers)
            total.add(energy)
            self.bonds[bond, ALL] = [*_scaled(d, by_r), by_r, stretch, slope, *[code.zero()] * 3]
        return total.value

    def bends(self) -> Number:
        """Eqs 3 and 5, and the unit normals."""
        code, total = self.code, self.code.sum()
        with code.loop(0, self.count["bent"]) as angle:
            ends = [self.word("angles", angle, k) for k in (0, 1)]
            arms = [self.bonds[bond, UNIT] for bond in ends]
            c = _dot(arms[0], arms[1]) * self.row("sign", angle)[0]
            normal = _cross(arms[0], arms[1])
            sine2 = _dot(normal, normal).clamp(low=self.limits.tiny**0.5)
            by_s = 1.0 / sine2.sqrt()
            theta0, *powers, k1, k2 = self.row("bend", angle)
            bend = angle_of(sine2 * by_s, c) - theta0
            energy, slope = _polynomial(bend, powers)

            coupling = code.zero()
            for bond, k in zip(ends, (k1, k2), strict=True):
                coupling = coupling + k * self.bonds[bond, STRETCH][0]
                self.bonds.add(bond, BY_LENGTH, [k * bend])
            total.add(energy + coupling * bend)
            on_c = 0.0 - (slope + coupling) * by_s
            self.angles[angle, ALL] = [c, by_s, *_scaled(normal, by_s), on_c, *[code.zero()] * 3]
        return total.value

    def straight(self) -> Number:
        """Eq 4."""
        code, total = self.code, self.code.sum()
        with code.loop(self.count["bent"], self.count["angles"]) as angle:
            arms = [self.bonds[self.word("angles", angle, k), UNIT] for k in (0, 1)]
            c = _dot(arms[0], arms[1]) * self.row("sign", angle)[0]
            (k,) = self.row("linear", angle - self.count["bent"])
            total.add((c + 1.0) * k)
            self.angles[angle, ALL] = [c, *[code.zero()] * 4, k, *[code.zero()] * 3]
        return total.value

    def planes(self) -> Number:
        """Eq 6."""
        code, total, eps = self.code, self.code.sum(), self.limits.eps
        with code.loop(0, self.count["oop"]) as centre:
            rows = [centre + self.count["oop"] * k for k in range(3)]
            angles = [self.angles[row, COSINE] for row in rows]
            (constant,) = self.row("oop", centre)
            c = [angle[0] for angle in angles]
            others = [c[k - 1] * c[k - 2] for k in range(3)]
            gap = [a - b for a, b in zip(others, c, strict=True)]
            volume2 = _dot(gap, c) - others[0] * c[0] + 1.0
            slope, on_c = code.zero(), []
            for k, angle in enumerate(angles):
                inv_s2 = angle[1] * angle[1]
                w = (volume2 * inv_s2).clamp(low=eps**2, high=1.0 - eps)
                root, rest = w.sqrt(), (1.0 - w).sqrt()
                chi = angle_of(root, rest)
                total.add(chi * chi * constant)
                own = chi * constant * inv_s2 / (root * rest)  # ∂E/∂V²
                slope = slope + own
                on_c.append(own * w * c[k])
            for row, g, own in zip(rows, gap, on_c, strict=True):
                self.angles.add(row, BY_COSINE, [(g * slope + own) * 2.0])
        return total.value

    def torsions(self) -> Number:
        """Eq 7."""
        code, total = self.code, self.code.sum()
        with code.loop(0, self.count["torsions"]) as torsion:
            rows = [self.word("torsions", torsion, k) for k in (0, 1)]
            normals = [self.angles[row, NORMAL] for row in rows]
            sign, *powers = self.row("torsion", torsion)
            energy, slope = _polynomial(_dot(*normals) * sign, powers)
            total.add(energy)
            for row, other in zip(rows, normals[::-1], strict=True):
                self.angles.add(row, BY_NORMAL, _scaled(other, slope * sign))
        return total.value

    def to_bonds(self) -> None:
        """From normals and cosines to unit bond vectors."""
        code = self.code
        with code.loop(0, self.count["angles"]) as angle:
            _, by_s, *normal = self.angles[angle, slice(0, 5)]
            on_c, *on_n = self.angles[angle, slice(5, ANGLE)]
            along = _dot(normal, on_n)
            w = _scaled([a - b * along for a, b in zip(on_n, normal, strict=True)], by_s)
            on_c = on_c * self.row("sign", angle)[0]
            bonds = [self.word("angles", angle, k) for k in (0, 1)]
            one, two = (self.bonds[bond, UNIT] for bond in bonds)
            self.bonds.add(bonds[0], BY_UNIT, _sum(_cross(two, w), _scaled(two, on_c)))
            self.bonds.add(bonds[1], BY_UNIT, _sum(_cross(w, one), _scaled(one, on_c)))

    def to_atoms(self) -> None:
        """From lengths and unit vectors of bonds to atoms."""
        code = self.code
        with code.loop(0, self.count["bonds"]) as bond:
            *u, by_r, _, on_r = self.bonds[bond, slice(0, 6)]
            on_u = _scaled(self.bonds[bond, BY_UNIT], by_r)
            along = on_r - _dot(u, on_u)
            change = [a + b * along for a, b in zip(on_u, u, strict=True)]
            tail, head = (self.word("bonds", bond, k) for k in (0, 1))
            self.forces.add(tail, ALL, change)
            self.forces.add(head, ALL, [0.0 - c for c in change])
