"""Judge what a sampler of an energy drew: path weights, energies, modes, distances, torsions,
virial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from orbitwise.energies import Counted, Energy, GaussianMixture, ManyWell
from orbitwise.energies.pairwise import PairEnergy
from orbitwise.errors import InputError
from orbitwise.metrics.divergence import AngleKL, JensenShannon, angle_kl, compare_angles
from orbitwise.metrics.evidence import Evidence, evidence
from orbitwise.metrics.modes import ModeWeights, WellCoverage, mixture_modes, well_coverage
from orbitwise.metrics.torus import TorusW2, dihedral, torus_w2
from orbitwise.metrics.transport import compare_distances, wasserstein_1d
from orbitwise.runs.stages import Kept

_VIRIAL, _DISTANCES = 2000, 5000


@dataclass(frozen=True)
class DrawnPaths:
    """What the sampler drew: ends ``x: (n, *E)`` with their ``energy: (n,)`` in kT and the log
    importance weights ``log_weight: (n,)`` of their paths, ``-U + log P_B - log P_F``;
    ``backward_log_weight: (m,)`` of paths drawn backwards from reference samples (None without
    any); ``log_z_parameter``: the learned log Z, None where the objective has none."""

    x: Tensor
    energy: Tensor
    log_weight: Tensor
    backward_log_weight: Tensor | None = None
    log_z_parameter: float | None = None


@dataclass(frozen=True)
class ReferenceSet(Kept):
    """Samples of the target: ``x: (m, *E)``, ``energy: (m,)`` in kT; ``independent``: how many
    independent samples they are worth (None: all of them); ``kind``: where they are from, a file,
    exact draws or chains."""

    x: Tensor
    energy: Tensor
    independent: int | None = None
    kind: str = ""


@dataclass(frozen=True)
class Compared:
    """A distance of the samples to the reference, and the ``floor`` that a random part of the
    reference shows against the rest (both of at most the samples' size)."""

    value: float
    floor: float


@dataclass(frozen=True)
class Virial:
    """``⟨x·∇U⟩`` with its standard error and the number of dimensions it equals in the target."""

    value: float
    error: float
    exact: int


@dataclass(frozen=True)
class TorsionMap:
    """Two torsions of samples and reference: ``atoms`` and names, KL, W2 and Jensen-Shannon."""

    names: tuple[str, str]
    atoms: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    kl: AngleKL
    w2: TorusW2
    js: JensenShannon


@dataclass(frozen=True)
class SamplerVerdict:
    """How good the samples are; None where a number does not apply or has no reference.

    ``not_finite``: samples whose energy is not finite; ``energy_w1``, ``energy_w2`` (kT) are over
    the others. ``modes_weighted``: modes after importance weighting. ``symmetric_w2``: W2 with
    rotations, translations and exchanges removed; ``distance_w1``: pair distances. ``target``: the
    energy judged against.
    """

    target: Energy
    samples: int
    not_finite: int
    evidence: Evidence
    virial: Virial
    log_z_parameter: float | None = None
    energy_w1: Compared | None = None
    energy_w2: Compared | None = None
    symmetric_w2: Compared | None = None
    distance_w1: Compared | None = None
    modes: ModeWeights | WellCoverage | None = None
    modes_weighted: ModeWeights | WellCoverage | None = None
    torsions: tuple[TorsionMap, ...] = ()

    def lines(self) -> list[str]:
        """In words for a terminal, best known numbers first."""
        out = self.evidence.lines()
        if self.log_z_parameter is not None:
            out.append(f"log Z, learned {self.log_z_parameter:.3f}")
        for name, found in (
            ("energy W1 (kT)", self.energy_w1),
            ("energy W2 (kT)", self.energy_w2),
            ("W2, symmetries removed", self.symmetric_w2),
            ("pair distances W1", self.distance_w1),
        ):
            if found is not None:
                out.append(f"{name} {found.value:.4g} (exact samples {found.floor:.4g})")

        out.append(
            f"virial ⟨x·∇U⟩ {self.virial.value:.3f} ± {self.virial.error:.2g} (target"
            f" {self.virial.exact})"
        )
        out += self.modes.lines() if self.modes is not None else []
        if self.modes_weighted is not None:
            out += [f"importance-weighted: {line}" for line in self.modes_weighted.lines()]
        for found in self.torsions:
            out.append(
                f"{', '.join(found.names)}: KL {found.kl.value:.3f} (exact samples"
                f" {found.kl.floor:.3f}), W2 {found.w2.value:.3f} rad (exact samples"
                f" {found.w2.floor:.3f}), JS {found.js.value:.4f}"
            )

        if self.not_finite:
            out.append(
                f"caution: {self.not_finite} of {self.samples} samples have no finite energy; they"
                " count as weight zero, and the energy distances leave them out"
            )
        return out

    def to_dict(self) -> dict:
        """Numbers alone, ready for JSON; infinite and undefined ones are None."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "target"
        }


def judge(
    energy: Energy,
    drawn: DrawnPaths,
    reference: ReferenceSet | None = None,
    *,
    torsions: Sequence[tuple[str, tuple[int, int, int, int]]] = (),
    particle_samples: int = 400,
    generator: torch.Generator | None = None,
) -> SamplerVerdict:
    """Everything that can be said about ``drawn``, with or without reference samples.

    ``energy``: the target, usually a ``Counted`` one inside its stage "evaluation"; at most 2000
    gradients are asked for (the virial). ``torsions``: names and atoms, in pairs that are drawn
    against each other (φ, ψ, φ, ψ, ...). ``particle_samples``: how many of each set go into the
    symmetric W2 of identical particles (0.2 ms a pair of LJ-13, and as much again for the floor).
    ``generator``: for bootstraps and random halves; by default one of its own.

    Raises ``InputError`` for shapes that do not belong together.
    """
    n = len(drawn.x)
    if drawn.energy.shape != (n,) or drawn.log_weight.shape != (n,):
        raise InputError(
            f"{n} samples need as many energies and log weights, got {tuple(drawn.energy.shape)}"
            f" and {tuple(drawn.log_weight.shape)}"
        )

    if tuple(drawn.x.shape[1:]) != tuple(energy.event_shape):
        raise InputError(
            f"samples of shape {tuple(drawn.x.shape[1:])} for an energy of {energy.event_shape}"
        )

    generator = torch.Generator().manual_seed(0) if generator is None else generator
    target = energy.inner if isinstance(energy, Counted) else energy
    good = torch.isfinite(drawn.energy)
    found: dict = {}
    if reference is not None:
        known = ReferenceSet(
            reference.x.to(drawn.x), reference.energy.to(drawn.energy), reference.independent
        )
        halves = _halves(len(known.x), n, generator, drawn.x.device)
        found |= _against_reference(target, drawn, known, good, halves, particle_samples)
        found["torsions"] = tuple(
            _torsion_map(pair, drawn.x[good], known.x, generator)
            for k, pair in enumerate(pairwise(torsions))
            if k % 2 == 0
        )

    modes = _modes(target, generator)
    if modes is not None:
        found["modes"] = modes(drawn.x[good], None)
        found["modes_weighted"] = modes(drawn.x[good], drawn.log_weight[good])

    return SamplerVerdict(
        target=target,
        samples=n,
        not_finite=int((~good).sum()),
        evidence=evidence(
            drawn.log_weight,
            drawn.backward_log_weight,
            energy.log_z,
            independent=None if reference is None else reference.independent,
            generator=generator,
        ),
        virial=_virial(energy, drawn.x[good][:_VIRIAL]),
        log_z_parameter=drawn.log_z_parameter,
        **found,
    )


def _halves(m: int, n: int, generator: torch.Generator, device) -> tuple[Tensor, Tensor]:
    """Indices of a random part of the reference that stands for the samples, and of the rest."""
    if m < 4:
        raise InputError(f"a comparison needs at least 4 reference samples, got {m}")
    order = torch.randperm(m, generator=generator, device=generator.device).to(device)
    size = min(n, m // 2)
    return order[:size], order[size:]


def _against_reference(target, drawn, known, good, halves, limit) -> dict:
    part, rest = halves

    def compared(
        distance: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor, most: int
    ) -> Compared:
        order = torch.cat([rest, part])
        return Compared(
            distance(x[:most], y[order][:most]), distance(y[part][:most], y[rest][:most])
        )

    energies = drawn.energy[good], known.energy
    everything = len(drawn.x) + len(known.x)
    found: dict = {}
    if bool(good.any()):
        found["energy_w1"] = compared(wasserstein_1d, *energies, everything)
        found["energy_w2"] = compared(lambda a, b: wasserstein_1d(a, b, 2), *energies, everything)
        if len(target.event_shape) == 2:
            points = drawn.x[good], known.x
            found["distance_w1"] = compared(
                lambda a, b: compare_distances(a, b).w1_angstrom, *points, _DISTANCES
            )
            if isinstance(target, PairEnergy):
                from orbitwise.metrics.particles import symmetric_w2

                found["symmetric_w2"] = compared(
                    lambda a, b: float(symmetric_w2(a, b)), *points, limit
                )
    return found


def _torsion_map(pair, x: Tensor, y: Tensor, generator) -> TorsionMap:
    names, atoms = zip(*pair, strict=True)
    a, b = dihedral(x, list(atoms)), dihedral(y, list(atoms))
    return TorsionMap(
        names=tuple(names),
        atoms=tuple(tuple(int(i) for i in quad) for quad in atoms),
        kl=angle_kl(a, b, generator=generator),
        w2=torus_w2(a, b, generator=generator),
        js=compare_angles(a, b, generator=generator),
    )


def _modes(target: Energy, generator) -> Callable | None:
    """``(x, log_weights) -> `` coverage of the modes, for targets whose modes are known."""
    if isinstance(target, GaussianMixture):
        return lambda x, w: mixture_modes(
            x, target.means, target.scales, target.weights, log_weights=w, generator=generator
        )
    if isinstance(target, ManyWell):
        return lambda x, w: well_coverage(x, target.minor_mass, log_weights=w, generator=generator)
    return None


def _virial(energy: Energy, x: Tensor) -> Virial:
    """``⟨x·∇U⟩ = d`` for any density that vanishes at infinity (partial integration)."""
    exact = math.prod(energy.event_shape) - (energy.event_shape[-1] if energy.zero_com else 0)
    if len(x) < 2:
        return Virial(math.nan, math.nan, exact)
    grad = energy.value_and_grad(x)[1]
    each = (x * grad).flatten(1).double().sum(1)
    return Virial(float(each.mean()), float(each.std()) / math.sqrt(len(each)), exact)


def _plain(value):
    if dataclasses.is_dataclass(value):
        out = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return out | {"found": value.found} if isinstance(value, ModeWeights) else out
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
