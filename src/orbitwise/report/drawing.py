"""The drawing of a molecule in the head of its page, from its SMILES."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True)
class Drawing:
    """A molecule drawn in the plane, its SMILES and formula beside; ``numbered`` atoms (0-based)
    carry their number, counted from 1."""

    smiles: str
    numbered: Set[int] = frozenset()

    @property
    def formula(self) -> str:
        """In HTML; empty where RDKit cannot read the SMILES."""
        from rdkit.Chem.rdMolDescriptors import CalcMolFormula

        mol = self._mol()
        return "" if mol is None else subscripts(CalcMolFormula(mol, True, False))

    @property
    def svg(self) -> str:
        """An ``<svg>`` element; empty where RDKit cannot read the SMILES."""
        from rdkit.Chem.Draw import rdMolDraw2D

        mol = self._mol()
        if mol is None:
            return ""

        for atom in mol.GetAtoms():
            if atom.GetIdx() in self.numbered:
                atom.SetProp("atomNote", str(atom.GetIdx() + 1))

        pen = rdMolDraw2D.MolDraw2DSVG(320, 240)
        options = pen.drawOptions()
        options.clearBackground = False
        options.bondLineWidth = 1.6
        options.annotationFontScale = 0.6
        options.padding = 0.06
        options.setAnnotationColour((0.45, 0.5, 0.57))
        rdMolDraw2D.PrepareAndDrawMolecule(pen, mol)
        pen.FinishDrawing()
        svg = pen.GetDrawingText()
        return svg[svg.index("<svg") :]

    def _mol(self) -> Mol | None:
        from rdkit import Chem, rdBase

        with rdBase.BlockLogs():
            return Chem.MolFromSmiles(self.smiles) if self.smiles else None


def subscripts(formula: str) -> str:
    """``H2O`` in HTML, numbers lowered, a charge raised."""
    from markupsafe import escape

    out, charge = [], False
    for c in str(escape(formula)):
        charge = charge or c in "+-"
        tag = "sup" if charge else "sub" if c.isdigit() else ""
        out.append(f"<{tag}>{c}</{tag}>" if tag else c)
    return "".join(out)
