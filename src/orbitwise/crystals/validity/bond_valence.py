"""How well the bonds of a crystal fit the charges of its atoms, without any energy."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

REACH = 4.0  # Å; a longer bond adds less than 0.02


def instability_index(structure: Structure) -> float:
    """Global instability index in valence units: the rms difference of the bond-valence sums of the
    atoms and their charges (Salinas-Sanchez, J. Solid State Chem. 100, 201 (1992), eq. 4); stable
    crystals are mostly below 0.2.

    Charges are the most common ones that make the composition neutral, valences those of O'Keeffe
    and Brese (J. Am. Chem. Soc. 113, 3226 (1991)), both by pymatgen. NaN where there are none but
    zero, or no valences of an element.
    """
    from pymatgen.analysis.bond_valence import calculate_bv_sum

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        charges = structure.composition.oxi_state_guesses()
        if not charges or not any(charges[0].values()):
            return math.nan
        try:
            sums = [
                calculate_bv_sum(site, structure.get_neighbors(site, REACH)) for site in structure
            ]
        except (KeyError, ValueError):  # an element without valences
            return math.nan
    wanted = [charges[0][site.specie.symbol] for site in structure]
    return float(np.sqrt(np.mean(np.square(np.abs(sums) - np.abs(wanted)))))
