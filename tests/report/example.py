"""A page to test with, from ensembles made of RDKit minima and thermal noise; and its reader."""

import html.parser
import math

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from orbitwise.report import (
    Beside,
    CheckRow,
    Checks,
    Citation,
    ConformerRow,
    Cost,
    Distributions,
    Drawing,
    Ensemble,
    KeyFigure,
    Method,
    Page,
    Provenance,
    StageRow,
    Text,
    TorsionPanel,
)

MOLECULES = {
    "O": (),
    "CCCC": ((0, 1, 2, 3),),
    "CC[C@@H](C)O": ((0, 1, 2, 3), (1, 2, 4, 14)),
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O": (
        (0, 1, 3, 4),
        (1, 3, 4, 5),
        (6, 7, 10, 11),
        (7, 10, 12, 13),
        (13, 12, 14, 32),
    ),
}


def ensemble(smiles: str, torsions=(), reference: bool = True, samples: int = 400) -> Ensemble:
    """Minima of RDKit with thermal noise."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, 12, randomSeed=3)
    energies = np.array([e for _, e in AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)])
    energies -= energies.min()
    positions = np.stack([c.GetPositions() for c in mol.GetConformers()])
    angles = np.array(
        [[rdMolTransforms.GetDihedralRad(c, *t) for t in torsions] for c in mol.GetConformers()]
    ).reshape(len(positions), -1)
    weights = np.exp(-energies / 0.596)
    weights /= weights.sum()
    order = weights.argsort()[::-1][:6]
    rng = np.random.default_rng(0)

    def draw(n, noise):
        pick = rng.choice(len(weights), n, p=weights)
        return angles[pick] + noise * rng.normal(size=(n, len(torsions))), rng.gamma(10, 0.6, n)

    (a, ea), (b, eb), (r, er) = draw(samples, 0.15), draw(samples, 0.25), draw(3 * samples, 0.15)
    panels = tuple(
        TorsionPanel(f"T{k}", Distributions(a[:, k], b[:, k], r[:, k] if reference else None), t)
        for k, t in enumerate(torsions)
    )
    rows = tuple(
        ConformerRow(
            population=weights[k],
            population_error=0.01,
            free_energy_kcal=-0.596 * math.log(weights[k] / weights.max()),
            free_energy_error_kcal=0.0 if k == order[0] else 0.05,
            energy_kcal=energies[k],
            positions_angstrom=positions[k],
            torsions=tuple(angles[k]),
            beside={"Reference": Beside(weights[k], 0.004)} if reference else {},
        )
        for k in order
    )
    return Ensemble(
        numbers=np.array([x.GetAtomicNum() for x in mol.GetAtoms()]),
        temperature_kelvin=300.0,
        bonds=tuple((x.GetBeginAtomIdx(), x.GetEndAtomIdx()) for x in mol.GetBonds()),
        conformers=rows,
        torsions=panels,
        map_pair=(0, 1) if len(torsions) > 1 else None,
        energies_kcal=Distributions(ea, eb + 3, er if reference else None),
    )


def page(smiles: str, shown: Ensemble, reference: bool = True) -> Page:
    """With a block of every kind that a page of a molecule has."""
    return Page(
        title=smiles,
        kind="Conformer ensemble",
        drawing=Drawing(smiles, shown.numbered),
        key_figures=(KeyFigure("Conformers", str(len(shown.conformers)), "6 shown"),),
        blocks=(
            Text(("A few words.",), warnings=("Populations below 1 % are rough.",)),
            shown,
            *(
                [Checks((CheckRow("JS divergence", "0.03", "≤ 0.05", True, {"Learned": "0.2"}),))]
                * reference
            ),
            Cost((StageRow("Search", 61.0, 400_000, 400_000), StageRow("Learning", 182.4))),
            Method(citations=(Citation.arxiv("A paper.", "2502.09890"),)),
            Provenance(
                settings={"Samples": 400},
                versions={"orbitwise": "0"},
                seed=7,
                commit="abc1234",
            ),
        ),
    )


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes; text by the element it stands in."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag == "script"
        if self._open:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = self._open and tag != "script"

    def handle_data(self, data):
        if self._open:
            self.scripts[-1] += data
