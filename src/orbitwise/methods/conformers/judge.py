"""What the ensemble of `orbitwise conformers` is worth: conformers, populations of every stage,
which of them is delivered, comparison with a reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.methods.conformers.compare import (
    Compared,
    compare,
    compare_set,
    known_populations,
    repeated,
)
from orbitwise.methods.conformers.deliver import (
    Choice,
    choose,
    choose_carried,
    of_levels,
    of_weights,
)
from orbitwise.methods.conformers.diffusion.draw import Drawn
from orbitwise.methods.conformers.diffusion.relax import Relaxed
from orbitwise.methods.conformers.diffusion.weights import Weighed, Worth, worth
from orbitwise.methods.conformers.exchange.crew import Crew
from orbitwise.methods.conformers.exchange.found import Found
from orbitwise.methods.conformers.exchange.mixing import Mixing, Watched, match_of
from orbitwise.methods.conformers.exchange.pooled import Delivered, Pooled, fewer, of_search
from orbitwise.methods.conformers.levels import Levels
from orbitwise.metrics.free_energy import (
    Agreement,
    FreeEnergies,
    FreeEnergyVerdict,
    agreement,
    from_blocks,
    from_populations,
    from_samples,
    judge_free_energies,
)
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.metrics.conformers import (
    Clusters,
    Matching,
    Populations,
    assign,
    find_conformers,
    populations,
    symmetric_rmsd,
)
from orbitwise.molecules.metrics.torsions import Torsion, find_torsions

# Minima closer than this are one conformer: at 300 K no barrier worth the name parts them (Å, over
# the compared atoms)
SAME_RMSD, SAME_ATOM = 0.25, 0.8
# A quench that stops earlier lies on the slope of a shallow basin, nearer to another minimum (kT/Å,
# steps); conformers themselves are brought down further
QUENCHED, DOWN = (0.1, 500), (0.02, 1000)
PAIRS = 500  # samples whose start is looked at, for what the relaxation remembers


@dataclass(frozen=True)
class Learned:
    """What the diffusion model came to: its relaxed samples' ``populations`` and ``free_energies``
    beside the search, those of its weighted paths where they are usable, and what these are
    ``worth``."""

    populations: Populations | None
    free_energies: FreeEnergyVerdict | None
    weighted: Populations | None
    worth: Worth | None


@dataclass(frozen=True)
class Verdict:
    """``clusters``: the conformers, the most populated first, with ``degeneracy: (C,)`` (in how
    many ways their equal atoms can be labelled). ``delivered``: the final ensemble by ``choice``,
    of conformers ``label: (m,)``, with ``samples: (n,)``, the rows of it to be written; ``final``
    and ``searched`` populations; free energies by source; mean energy in kT with its error."""

    torsions: tuple[Torsion, ...]
    clusters: Clusters
    degeneracy: Tensor
    choice: Choice
    delivered: Delivered
    label: Tensor
    samples: Tensor
    mean_energy: tuple[float, float]
    final: Populations
    searched: Populations
    learned: Learned
    free_energies: dict[str, FreeEnergies]
    against_reference: Agreement | None
    mixing: Mixing
    reference: Compared | None


def degeneracies(clusters: Clusters, match: Matching) -> Tensor:
    """In how many ways the equal atoms of each conformer can be labelled so that no rotation undoes
    it, ``(C,)``: exchanges of the graph over those that lie on the conformer itself."""
    counts = []
    for x in clusters.x[:, match.atoms.to(clusters.x.device)]:
        images = x[match.permutations.to(x.device)]
        one = Matching(torch.arange(x.shape[0]), torch.arange(x.shape[0])[None])
        own = int((symmetric_rmsd(images, x[None], one)[:, 0] < SAME_RMSD).sum())
        counts.append(len(images) // max(1, own))
    return torch.tensor(counts)


def by_population(clusters: Clusters, weight: Tensor) -> Clusters:
    """Conformer 1 is the most populated one among the structures with a ``weight: (m,)``, which
    come first; ties keep the order of energy."""
    share = torch.zeros(len(clusters), dtype=torch.float64, device=clusters.label.device)
    share.index_add_(0, clusters.label[: len(weight)], weight.to(share))
    order = share.argsort(descending=True, stable=True)
    rank = order.argsort()
    mirror = clusters.mirror[order]
    mirror = torch.where(mirror < 0, mirror, rank[mirror.clamp_min(0)])
    return Clusters(clusters.x[order], clusters.energy[order], rank[clusters.label], mirror)


def judge(
    mol: Chem.Mol,
    crew: Crew,
    *,
    found: Found,
    weighed: Weighed | None = None,
    drawn: Drawn | None = None,
    relaxed: Relaxed | None = None,
    failed: str | None = None,
    carried: Levels | None = None,
    above: Crew | None = None,
    reference: Reference | None = None,
    n: int = 1000,
    quenched: int = 6000,
    seed: int = 0,
) -> Verdict:
    """Choose what is delivered; quench, cluster and count it, and the other stages by the same
    conformers; compare with the reference. ``n`` samples are chosen to be written, about
    ``quenched`` of the search are looked at. ``failed``: why the learner left nothing. ``carried``:
    the samples at a better energy, which ``above`` computes; conformers are minima of that one
    then."""
    match, torsions = match_of(mol), find_torsions(mol)
    settled = found.settled
    mixing = Watched.of(mol).mixing(settled.x, settled.energy)
    value = None if weighed is None else worth(weighed, mixing.effective_samples)
    choice = choose(mixing, value, failed)
    below, crew = crew, above or crew
    energy = crew.system.energy
    if carried is not None:
        choice = choose_carried(mixing, carried, crew.config.energy)

    pooled = found.pooled()
    searched = of_search(pooled, max(n, quenched))
    final = searched
    with energy.stage("clustering"):
        if choice.source == "weights":
            final = of_weights(weighed, energy(weighed.x), max(n, quenched))
        if carried is not None:
            final = of_levels(carried)

        sets, minima_of_search = {"final": final.x}, None
        if carried is not None:  # by the minimum that theirs falls into at the better energy
            with below.system.energy.stage("clustering"):
                wells, found_in = conformers_of(
                    {"search": searched.x}, below, match, searched.weight
                )
            sets["search"], minima_of_search = wells.x.to(final.x), found_in["search"]
        elif final is not searched:
            sets["search"] = searched.x
        if relaxed is not None:
            sets["learned"] = relaxed.x
        clusters, labels = conformers_of(sets, crew, match, final.weight)

        def belong(x: Tensor) -> Tensor:
            return assign(crew.quench(x, *QUENCHED).x, clusters, match, rmsd=SAME_RMSD)

        start = belong(drawn.x[relaxed.start[:PAIRS]]) if relaxed is not None else None
        ends = belong(weighed.x) if value is not None and value.usable else None

    count = len(clusters)
    by_search = labels.get("search", labels["final"])
    if minima_of_search is not None:
        by_search = by_search[minima_of_search]

    def told(label: Tensor, of: Delivered) -> tuple[Populations, FreeEnergies]:
        blocks = of.block.unique(return_inverse=True)[1]
        return (
            populations(label, count, log_weights=of.log_weight, blocks=blocks),
            from_blocks(label, count, blocks, of.weight),
        )

    search_populations, search_free = told(by_search, searched)
    final_populations, final_free = told(labels["final"], final)
    free = {"ensemble": final_free, "search": search_free}

    learned = Learned(None, None, None, value)
    if relaxed is not None:
        verdict = judge_free_energies(labels["learned"], start, search_free, count)
        own = populations(labels["learned"], count)
        learned = replace(learned, populations=own, free_energies=verdict)
        free["learned"] = verdict.ensemble
    if ends is not None and bool((ends >= 0).any()):
        seen, log_weights = ends[ends >= 0], weighed.log_weight[ends >= 0]
        by_weights = populations(seen, count, log_weights=log_weights)
        learned = replace(learned, weighted=by_weights)
        free["weights"] = from_samples(seen, count, log_weights)

    mean = pooled.mean_energy() if final is searched else mean_of(final)
    compared = against = None
    if reference is not None:
        known = known_populations(reference, clusters, final_populations, match, rmsd=SAME_RMSD)
        compared = Compared(
            population=known.population,
            error=known.error,
            basins=known.basins,
            final=compare(mol, repeated(final), mean[0], torsions, reference),
            search=compare(
                mol, repeated(searched), float(settled.energy.double().mean()), torsions, reference
            ),
            learned=None if relaxed is None else compare_set(mol, relaxed, torsions, reference),
            before=None if drawn is None else compare_set(mol, drawn, torsions, reference),
        )
        free["reference"] = from_populations(known.population.cpu(), known.error.cpu())
        against = agreement(final_free, free["reference"])

    return Verdict(
        torsions=torsions,
        clusters=clusters,
        degeneracy=degeneracies(clusters, match),
        choice=choice,
        delivered=final,
        label=labels["final"],
        samples=fewer(final, n, seed),
        mean_energy=mean,
        final=final_populations,
        searched=search_populations,
        learned=learned,
        free_energies=free,
        against_reference=against,
        mixing=mixing,
        reference=compared,
    )


def conformers_of(
    sets: dict[str, Tensor], crew: Crew, match: Matching, weight: Tensor
) -> tuple[Clusters, dict[str, Tensor]]:
    """The conformers of all ``sets`` of structures, the most populated by ``weight: (m,)`` of the
    first set first, and the conformer of every structure."""

    def refine(x: Tensor) -> tuple[Tensor, Tensor]:
        tight = crew.quench(x, *DOWN)
        return tight.x, tight.energy

    loose = crew.quench(torch.cat(list(sets.values())), *QUENCHED)
    clusters = find_conformers(
        loose.x, loose.energy, match, refine=refine, rmsd=SAME_RMSD, deviation=SAME_ATOM
    )
    clusters = by_population(clusters, weight)
    labels = clusters.label.cpu().split([len(x) for x in sets.values()])
    return clusters, dict(zip(sets, labels, strict=True))


def mean_of(final: Delivered) -> tuple[float, float]:
    """Mean energy in kT of weighted samples, with its error."""
    blocks = final.block.unique(return_inverse=True)[1]
    return Pooled(final.x, final.energy, final.log_weight, blocks).mean_energy()
