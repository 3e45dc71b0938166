"""How an atom is drawn: its colour and its radius."""

from __future__ import annotations


def colour_of(number: int) -> str:
    """Of an element; white and grey that show on a light page."""
    from ase.data.colors import jmol_colors

    return {1: "#eef1f4", 6: "#4d5663"}.get(int(number)) or _hex(jmol_colors[number])


def radius_of(number: int) -> float:
    """Of the ball of an element, in Å."""
    from ase.data import covalent_radii

    return round(0.16 + 0.22 * float(covalent_radii[number]), 3)


def _hex(rgb) -> str:
    return "#" + "".join(f"{round(255 * float(v)):02x}" for v in rgb)
