"""Secondary structure from Cα positions alone: P-SEA (Labesse et al. 1997), as biotite has it."""

from __future__ import annotations

import numpy as np

HELIX, STRAND, COIL = "a", "b", "c"


def secondary_structure(ca: np.ndarray) -> np.ndarray:
    """One letter per residue, ``(R,)``: ``a`` helix, ``b`` strand, ``c`` coil. ``ca: (R, 3)`` Å.

    P-SEA looks at distances and angles; the handedness of a helix is judged elsewhere
    (``metrics.proteins``). ``MissingExtraError`` without biotite.
    """
    import biotite.structure as structure

    if len(ca) < 6:  # no element is that short, and windows of five residues need more
        return np.full(len(ca), COIL)
    array = structure.AtomArray(len(ca))
    array.coord = np.asarray(ca, dtype=np.float32)
    array.chain_id[:], array.res_name[:], array.atom_name[:], array.element[:] = (
        "A",
        "GLY",
        "CA",
        "C",
    )
    array.res_id[:] = np.arange(1, len(ca) + 1)
    return structure.annotate_sse(array)


def fractions(ca: np.ndarray) -> np.ndarray:
    """Shares of helix, strand and coil, ``(3,)``."""
    found = secondary_structure(ca)
    return np.array([(found == letter).mean() for letter in (HELIX, STRAND, COIL)])
