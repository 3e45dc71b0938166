"""Fingerprints of crystals for coverage: of the arrangement whatever the elements, and of the
composition."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import sph_harm_y

if TYPE_CHECKING:
    from pymatgen.core import Structure

_REACH = 2.5  # radius of an environment in units of (V/N)^⅓: about 65 atoms
_RADII = np.linspace(0.3, _REACH, 23)
_WIDTH = 0.1
_ORDERS = (2, 3, 4, 6, 8)
_PROPERTIES = (
    "Z",
    "group",
    "row",
    "X",
    "mendeleev_no",
    "atomic_radius_calculated",
    "ionization_energy",
)


def structure_fingerprints(structures: Sequence[Structure]) -> np.ndarray:
    """``(M, 56)``: mean and standard deviation over the atoms of each one's environment.

    An environment is a radial distribution (Gaussians of width 0.1 (V/N)^⅓, smooth cutoff, relative
    to the uniform density) and Steinhardt's bond-order parameters Q_2, Q_3, Q_4, Q_6, Q_8 with
    smooth weights (Phys. Rev. B 28, 784, eq. 1.3) of the near shell. Species are not looked at;
    lengths are in units of (V/N)^⅓. Entries are scaled so that distances of the two parts are of
    one order.
    """
    return np.stack([_structure_fingerprint(structure) for structure in structures])


def composition_fingerprints(structures: Sequence[Structure]) -> np.ndarray:
    """``(M, 28)``: mean, standard deviation, smallest and largest over the atoms of seven
    properties of the elements (number, group, row, Pauling electronegativity, Mendeleev number,
    radius, first ionisation energy), each in units of its standard deviation over the elements up
    to bismuth."""
    table = _element_table()
    rows = []
    for structure in structures:
        values = table[[site.specie.Z for site in structure]]
        rows.append(np.concatenate([values.mean(0), values.std(0), values.min(0), values.max(0)]))
    return np.stack(rows)


def _structure_fingerprint(structure: Structure) -> np.ndarray:
    size = len(structure)
    unit = (structure.volume / size) ** (1 / 3)
    centre, other, image, distance = structure.get_neighbor_list(_REACH * unit)
    r = distance / unit
    cutoff = 0.5 * (1 + np.cos(math.pi * r / _REACH))
    smooth = np.exp(-0.5 * ((r[:, None] - _RADII) / _WIDTH) ** 2) * cutoff[:, None]
    radial = np.zeros((size, len(_RADII)))
    np.add.at(radial, centre, smooth)
    radial /= (
        4 * math.pi * _RADII**2 * _WIDTH * math.sqrt(2 * math.pi)
    )  # 1 in a uniform gas, but for the cutoff

    vectors = (
        structure.frac_coords[other] + image - structure.frac_coords[centre]
    ) @ structure.lattice.matrix
    theta = np.arccos(np.clip(vectors[:, 2] / distance, -1, 1))
    phi = np.arctan2(vectors[:, 1], vectors[:, 0])
    near = r < 1.6  # beyond it the weights are below 0.003
    weight = 1 / (1 + np.exp((r[near] - 1.25) / 0.06))  # the near shell
    norm = np.maximum(np.bincount(centre[near], weight, size), 1e-9)
    bonds = np.zeros((size, len(_ORDERS)))
    for k, order in enumerate(_ORDERS):
        m = np.arange(-order, order + 1)
        harmonics = sph_harm_y(order, m, theta[near, None], phi[near, None]) * weight[:, None]
        total = np.zeros((size, len(m)), dtype=complex)
        np.add.at(total, centre[near], harmonics)
        power = (np.abs(total / norm[:, None]) ** 2).sum(-1)
        bonds[:, k] = np.sqrt(4 * math.pi / (2 * order + 1) * power)
    site = np.concatenate([radial / math.sqrt(len(_RADII)), bonds], 1)
    return np.concatenate([site.mean(0), site.std(0)])


@cache
def _element_table() -> np.ndarray:
    """Properties ``(119, 7)`` by atomic number; what is not known is the mean over the elements."""
    from pymatgen.core import Element

    table = np.full((119, len(_PROPERTIES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for z in range(1, 119):
            element = Element.from_Z(z)
            found = [getattr(element, name, None) for name in _PROPERTIES]
            table[z] = [np.nan if value is None else float(value) for value in found]
    common = table[1:84]
    table = (table - np.nanmean(common, 0)) / np.nanstd(common, 0)
    return np.where(np.isnan(table), 0.0, table)
