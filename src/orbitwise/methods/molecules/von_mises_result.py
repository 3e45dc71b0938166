"""How far laws of torsions are from held-out profiles, in figures, lines and a page."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.molecules.files.torsion_profiles import TorsionProfiles
from orbitwise.molecules.torsion_network import VonMisesNet
from orbitwise.report import (
    CheckRow,
    Checks,
    Citation,
    KeyFigure,
    Method,
    Page,
    Provenance,
    Text,
    write_report,
)
from orbitwise.runs.config import Config
from orbitwise.runs.registry import card

AT_ONCE = 64  # rotors


@dataclass(frozen=True)
class Divergences:
    """``KL(profile ‖ law)`` in nats over ``rotors`` held-out rotors, (mean, median): of the
    network, of the uniform law, of the mean law of the training rotors with the same four kinds of
    atom (element, hybridisation, aromatic), and of histograms of 30 and 300 draws from the profile
    itself (a half count in each of 36 bins)."""

    rotors: int
    network: tuple[float, float]
    uniform: tuple[float, float]
    kinds: tuple[float, float]
    histogram_30: tuple[float, float]
    histogram_300: tuple[float, float]
    each: tuple[float, ...]


@torch.no_grad()
def compare(
    network: VonMisesNet, known: TorsionProfiles, asked: TorsionProfiles, temperature: float
) -> Divergences:
    """The laws of ``network`` against the profiles ``asked``; ``known`` are those it was trained
    on."""
    p, data = asked.shares(temperature), asked.data(temperature)
    parts = torch.arange(len(data)).split(AT_ONCE)  # chunks of memory
    own = torch.cat([network.law(data[part]).kl_from(data[part].share) for part in parts])
    return Divergences(
        len(data),
        network=_told(own),
        uniform=_told(_kl(p, torch.full_like(p, 1 / p.shape[1]))),
        kinds=_told(_kl(p, _by_kind(known, asked, temperature))),
        histogram_30=_told(_kl(p, _histogram(p, 30))),
        histogram_300=_told(_kl(p, _histogram(p, 300))),
        each=tuple(own.tolist()),
    )


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _told(kl: Tensor) -> tuple[float, float]:
    return float(kl.mean()), float(kl.median())


def _histogram(p: Tensor, draws: int) -> Tensor:
    generator = torch.Generator().manual_seed(draws)
    drawn = torch.multinomial(p, draws, replacement=True, generator=generator)
    counts = torch.nn.functional.one_hot(drawn, p.shape[1]).sum(1).double() + 0.5
    return counts / counts.sum(-1, keepdim=True)


def _by_kind(known: TorsionProfiles, asked: TorsionProfiles, temperature: float) -> Tensor:
    """Mean training law of the same four kinds of atom, 1 % uniform; of all where there is none."""
    table: dict[tuple, list[Tensor]] = {}
    p = known.shares(temperature)
    for kind, law in zip(_kinds(known), p, strict=True):
        table.setdefault(kind, []).append(law)
    rest = p.mean(0)
    q = torch.stack([torch.stack(table[k]).mean(0) if k in table else rest for k in _kinds(asked)])
    return 0.99 * q + 0.01 / p.shape[1]


def _kinds(profiles: TorsionProfiles) -> list[tuple]:
    found = []
    for smiles, atoms in zip(profiles.smiles, profiles.atoms, strict=True):
        mol = Chem.MolFromSmiles(smiles)
        own = [mol.GetAtomWithIdx(int(k)) for k in atoms]
        kind = tuple((a.GetSymbol(), str(a.GetHybridization()), a.GetIsAromatic()) for a in own)
        found.append(min(kind, kind[::-1]))
    return found


def rows(result: Divergences) -> list[tuple[str, tuple[float, float]]]:
    """Laws in words, each with the mean and median of its divergence."""
    return [
        ("network", result.network),
        ("uniform", result.uniform),
        ("mean law of the four kinds of atom", result.kinds),
        ("30 draws", result.histogram_30),
        ("300 draws", result.histogram_300),
    ]


def lines(result: Divergences) -> list[str]:
    head = f"KL from {result.rotors} held-out profiles in nats, mean and median:"
    return [head, *(f"  {name}: {a:.3f}, {b:.3f}" for name, (a, b) in rows(result))]


def write_page(path: Path, config: Config, result: Divergences) -> Path:
    """The page of one run."""
    own = card("von_mises")
    checks = tuple(CheckRow(f"{name}: mean KL", f"{a:.3f}") for name, (a, _) in rows(result))
    page = Page(
        title="VonMisesNet",
        kind="Laws of torsions",
        subtitle="held-out torsion profiles against laws from the molecular graph",
        key_figures=(
            KeyFigure("KL, mean", f"{result.network[0]:.3f}", f"uniform {result.uniform[0]:.3f}"),
            KeyFigure("KL, median", f"{result.network[1]:.3f}", "nats"),
            KeyFigure("held-out rotors", f"{result.rotors}"),
        ),
        blocks=(
            Text(tuple(lines(result))),
            Checks(checks),
            Method((own.summary.strip(),), citations=(Citation.arxiv(own.paper, own.arxiv),)),
            Provenance(
                files=(("summary.json", "all figures"),),
                settings=config.resolved(),
                versions={name: version(name) for name in ("orbitwise", "torch", "rdkit")},
                seed=config.train.seed,
            ),
        ),
    )
    return write_report(path, page)
