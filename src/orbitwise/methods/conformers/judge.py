"""What the ensemble of `orbitwise conformers` is worth: populations, comparison with the search and
a reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.energies.counted import Counted
from orbitwise.methods.conformers.draw import Drawn
from orbitwise.methods.conformers.relax import Relaxed
from orbitwise.methods.conformers.search import Found
from orbitwise.methods.conformers.weights import Weighed, Worth, worth
from orbitwise.metrics.divergence import JensenShannon, compare_angles
from orbitwise.metrics.free_energy import (
    FreeEnergyVerdict,
    from_populations,
    from_samples,
    judge_free_energies,
)
from orbitwise.metrics.mixing import effective_sample_size, split_rhat
from orbitwise.metrics.torus import dihedral
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.metrics.conformers import (
    Clusters,
    Matching,
    Populations,
    assign,
    find_conformers,
    matching,
    populations,
)
from orbitwise.molecules.metrics.torsions import Torsion, find_torsions, map_pair
from orbitwise.search.quench import Minimum, minimise

RESOLVED = 0.01  # a basin counts above this population
# Minima closer than this are one conformer: at 300 K no barrier worth the name parts them (Å, over
# the compared atoms)
SAME_RMSD, SAME_ATOM = 0.25, 0.8
PAIRS = 500  # samples whose start is looked at, for what the relaxation remembers


@dataclass(frozen=True)
class Mixing:
    """Of the search: split R-hat and effective sample size of the slowest torsion (and of the
    energy)."""

    rhat: float
    effective_samples: float


@dataclass(frozen=True)
class Against:
    """One ensemble against the reference: ``js`` of the map (None without a torsion), difference of
    the mean energy in kT, largest difference of a mean bond length in Å."""

    js: JensenShannon | None
    energy_kT: float
    bond_angstrom: float


@dataclass(frozen=True)
class Verdict:
    """``clusters`` and ``ensemble`` populations of the final samples, ``searched`` those of the
    search (same conformers, chains as blocks), ``weighted`` those of the learner's paths by their
    weights where these are usable, free-energy differences from all of them, reference populations
    ``(C,)`` or None, the share of the reference's basins above 1 % that were found, and the
    comparisons before and after relaxation."""

    torsions: tuple[Torsion, ...]
    clusters: Clusters
    ensemble: Populations
    searched: Populations
    weighted: Populations | None
    worth: Worth
    free_energies: FreeEnergyVerdict
    mixing: Mixing
    reference_population: Tensor | None
    reference_error: Tensor | None
    basins: tuple[int, int] | None
    before: Against | None
    after: Against | None
    search: Against | None


def angles(x: Tensor, torsions: tuple[Torsion, ...]) -> Tensor:
    """``(*B, N, 3) -> (*B, D)`` radians."""
    return dihedral(x, torch.tensor([t.atoms for t in torsions], dtype=torch.long).reshape(-1, 4))


def bond_lengths(mol: Chem.Mol, x: Tensor) -> Tensor:
    """``(*B, N, 3) -> (*B, bonds)`` Å, in RDKit's order."""
    ends = torch.tensor(
        [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], device=x.device
    )
    return (x[..., ends[:, 0], :] - x[..., ends[:, 1], :]).norm(dim=-1)


def mixing_of(x: Tensor, energy: Tensor, torsions: tuple[Torsion, ...]) -> Mixing:
    """``x: (S, C, N, 3)``, ``energy: (S, C)``. Angles enter by sine and cosine; the worst series
    counts."""
    theta = angles(x, torsions)
    series = torch.cat([theta.sin(), theta.cos(), energy[..., None]], -1).double()  # (S, C, 2D+1)
    spread = series.flatten(0, 1).std(0) > 1e-3  # a frozen angle has no mixing to speak of
    chains = series[..., spread].transpose(0, 1)  # (C, S, D')
    return Mixing(float(split_rhat(chains).max()), float(effective_sample_size(chains).min()))


def compare(
    mol: Chem.Mol,
    x: Tensor,
    energy: Tensor,
    torsions: tuple[Torsion, ...],
    reference: Reference,
) -> Against:
    """The map of two torsions (or the histogram of one), energies and bond lengths against the
    reference.

    Which of two equal groups carries which label is a matter of the embedding, and torsions are
    told by labels: the samples are renumbered as the reference's atoms are.
    """
    if len(reference.minima):
        named = relabel(mol, x.detach().cpu().double().numpy(), reference.minima[0])
        x = torch.as_tensor(named.positions).to(x)
    pair = map_pair(torsions) or ((0,) if torsions else None)
    js = None
    if pair is not None:
        mine = angles(x.cpu(), torsions)[:, list(pair)]
        js = compare_angles(
            mine, torch.as_tensor(reference.torsions)[:, list(pair)], generator=torch.Generator()
        )

    bonds = bond_lengths(mol, x).double().mean(0).cpu() - torch.as_tensor(reference.bond_mean)
    return Against(
        js, float(energy.double().mean()) - float(reference.energy.mean()), float(bonds.abs().max())
    )


def by_population(clusters: Clusters, n: int) -> Clusters:
    """Conformer 1 is the most populated one among the first ``n`` labels; ties keep the order of
    energy."""
    count = torch.bincount(clusters.label[:n], minlength=len(clusters))
    order = count.argsort(descending=True, stable=True)
    rank = order.argsort()
    mirror = clusters.mirror[order]
    mirror = torch.where(mirror < 0, mirror, rank[mirror.clamp_min(0)])
    return Clusters(clusters.x[order], clusters.energy[order], rank[clusters.label], mirror)


def judge(
    mol: Chem.Mol,
    energy: Counted,
    *,
    found: Found,
    weighed: Weighed,
    drawn: Drawn,
    relaxed: Relaxed,
    reference: Reference | None,
) -> Verdict:
    """Quench, cluster and count the samples; the same conformers in the search, before relaxation
    and, where their weights are usable, among the learner's paths; compare with the reference."""
    match, torsions = matching(mol), find_torsions(mol)

    def quench(x: Tensor, tolerance: float, steps: int) -> Minimum:
        return minimise(x, energy, tolerance=tolerance, max_steps=steps)

    frames, chains = found.x.shape[:2]
    kept = found.x[:: max(1, frames * chains // 4000)]
    mixing = mixing_of(found.x.cpu(), found.energy.cpu(), torsions)
    value = worth(weighed, mixing.effective_samples)

    with energy.stage("clustering"):
        mine = quench(relaxed.x, 1.0, 200)
        theirs = quench(kept.flatten(0, 1), 1.0, 200)
        n = len(mine.x)
        both = find_conformers(
            torch.cat([mine.x, theirs.x]),
            torch.cat([mine.energy, theirs.energy]),
            match,
            refine=lambda x: (lambda m: (m.x, m.energy))(quench(x, 0.05, 1000)),
            rmsd=SAME_RMSD,
            deviation=SAME_ATOM,
        )
        both = by_population(both, n)

        def belong(x: Tensor) -> Tensor:
            return assign(quench(x, 1.0, 200).x, both, match, rmsd=SAME_RMSD)

        start = belong(drawn.x[relaxed.start[:PAIRS]])
        ends = belong(weighed.x) if value.usable else None

    half = 2 * torch.arange(len(kept)) // max(1, len(kept))  # two blocks per chain
    blocks = (half[:, None] * chains + torch.arange(chains)).flatten().to(both.label.device)
    ensemble = populations(both.label[:n], len(both))
    searched = populations(both.label[n:], len(both), blocks=blocks)

    weighted = by_weights = None
    if ends is not None and bool((ends >= 0).any()):
        seen, log_weights = ends[ends >= 0], weighed.log_weight[ends >= 0]
        weighted = populations(seen, len(both), log_weights=log_weights)
        by_weights = from_samples(seen, len(both), log_weights)

    known = before = after = search = None
    if reference is not None:
        known = known_populations(reference, both, ensemble, match)
        finite = torch.isfinite(drawn.energy)
        before = compare(mol, drawn.x[finite], drawn.energy[finite], torsions, reference)
        after = compare(mol, relaxed.x, relaxed.energy, torsions, reference)
        search = compare(mol, found.x.flatten(0, 1), found.energy.flatten(), torsions, reference)

    free_energies = judge_free_energies(
        both.label[:n],
        start,
        both.label[n:].view(-1, chains),
        len(both),
        weights=by_weights,
        reference=None if known is None else from_populations(known.population, known.error),
    )
    return Verdict(
        torsions=torsions,
        clusters=both,
        ensemble=ensemble,
        searched=searched,
        weighted=weighted,
        worth=value,
        free_energies=free_energies,
        mixing=mixing,
        reference_population=None if known is None else known.population,
        reference_error=None if known is None else known.error,
        basins=None if known is None else known.basins,
        before=before,
        after=after,
        search=search,
    )


@dataclass(frozen=True)
class Known:
    """The reference's ``population`` and its ``error`` by our conformers ``(C,)``, and how many of
    its ``basins`` above 1 % were found, of how many."""

    population: Tensor
    error: Tensor
    basins: tuple[int, int]


def known_populations(
    reference: Reference, clusters: Clusters, ensemble: Populations, match: Matching
) -> Known:
    """The reference told by the conformers that were found here."""
    where = clusters.x.device
    label = assign(
        torch.as_tensor(reference.minima).to(clusters.x), clusters, match, rmsd=SAME_RMSD
    )
    mine, inside = label.clamp_min(0), label >= 0
    weight = torch.as_tensor(reference.population).to(where)
    square = torch.as_tensor(reference.population_error).to(weight).square()

    population = torch.zeros(len(clusters), dtype=torch.float64, device=where)
    population.index_add_(0, mine, torch.where(inside, weight, 0.0))
    variance = torch.zeros_like(population)
    variance.index_add_(0, mine, torch.where(inside, square, 0.0))

    large = weight > RESOLVED
    seen = inside & (ensemble.count[mine] > 0)
    basins = (int((seen & large).sum()), int(large.sum()))
    return Known(population, variance.sqrt(), basins)
