"""Denoising of crystals with interchangeable targets for the coordinates.

The group is periodic translations × permutations of equal atoms. As in ``objectives.denoising``,
``x_t`` comes from a random point of the orbit and the regression target is the mean over what of
the orbit may have made it. In terms of the score: Jiao 2309.04475 eq. 9 regresses on the score of
the one noise that was drawn, 2502.09890 on its mean over translations by importance sampling; here
the mean can be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from orbitwise.crystals.process import CrystalProcess
from orbitwise.errors import InputError
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.product import Product
from orbitwise.groups.torus import PeriodicTranslation, wrap
from orbitwise.objectives.denoiser import Preconditioning
from orbitwise.orbits.posterior.entrance import orbit_posterior
from orbitwise.processes.gaussian import beside

TARGETS = ("augmentation", "snis_uniform", "snis_wrapped", "translations", "exact")
BEYOND = ("gibbs", "mode", "translations")


def uniform_times(u: Tensor) -> Tensor:
    """Uniform: all noise levels alike on a logarithmic scale."""
    return 1e-3 + (1 - 2e-3) * u


def choosing_times(u: Tensor) -> Tensor:
    """Three quarters around t = 0.3 (scatter 0.12), where σ is near the distance between sites; the
    others uniform."""
    middle, rest = u / 0.75, (u - 0.75) / 0.25
    low, high = (
        torch.special.ndtr(torch.tensor((end - 0.3) / 0.12, dtype=u.dtype)) for end in (0.0, 1.0)
    )
    around = 0.3 + 0.12 * torch.special.ndtri(low + (high - low) * middle.clamp(max=1))
    return torch.where(u < 0.75, around, rest).clamp(1e-3, 1 - 1e-3)


TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": uniform_times,
    "choosing": choosing_times,
}


@dataclass(frozen=True)
class CrystalDenoising:
    """``(denoiser, batch, generator) -> losses (B,)``: squared error of score and cell, each in its
    natural units.

    ``target``: ``"augmentation"`` the score of the noise that was drawn (DiffCSP);
    ``"snis_uniform"`` and ``"snis_wrapped"`` its mean over ``proposals`` translations, uniform or
    wrapped normal of twice the noise, the drawn one among them (Orbit Diffusion as published);
    ``"translations"`` the exact mean over translations; ``"exact"`` over translations and
    permutations of equal atoms together. Crystals with more than ``max_order`` permutations are
    left out of the enumeration and solved by ``beyond``: ``"gibbs"`` (chains of ``states`` states
    in all), ``"mode"`` (Hungarian, biased) or ``"translations"`` (exact for those alone: it removes
    less, without bias). ``mirror``: a crystal and its mirror image ``-x`` count as one orbit, for
    they have one energy. ``times``: ``"uniform"``, or ``"choosing"``, most of them at the noise
    where atoms choose their sites. ``cell_weight``: of the loss of the cell beside that of the
    coordinates. ``prompt_dropout``: share of the texts that are left out, so that one model works
    with and without (Ho & Salimans 2207.12598).
    """

    process: CrystalProcess
    target: str = "exact"
    proposals: int = 1000
    cell_weight: float = 1.0
    max_order: int = 24
    beyond: str = "translations"
    states: int = 32
    times: str = "uniform"
    mirror: bool = False
    prompt_dropout: float = 0.0

    def __post_init__(self):
        if self.times not in TIMES:
            raise InputError(f"unknown times {self.times!r}; use one of {', '.join(TIMES)}")
        if self.beyond not in BEYOND:
            raise InputError(f"unknown beyond {self.beyond!r}; use one of {', '.join(BEYOND)}")
        if self.target not in TARGETS:
            raise InputError(f"unknown target {self.target!r}; use one of {', '.join(TARGETS)}")

    def __call__(self, denoiser, batch, generator: torch.Generator | None = None) -> Tensor:
        """``denoiser`` is a ``CrystalDenoiser``, ``batch`` a ``CrystalBatch``."""
        with torch.no_grad(), torch.autocast(batch.frac.device.type, enabled=False):
            t = self.draw_times(len(batch.frac), batch.frac, generator)
            xt, pull = self.pair(batch, t, generator)
            cell = denoiser.standard_cell(batch.lattice, batch.atoms)
            noisy = self.process.cell.perturb(cell, t, generator=generator)
            scale = beside(denoiser.pull_scale(t))
            weight = Preconditioning.of(self.process.cell, t, t.new_ones(())).weight
            batch = self.forget(batch, generator)
        estimate = denoiser(xt, noisy, t, batch)
        real = batch.mask[..., None]
        square = ((estimate.shift - pull) / scale).square() * real
        frac = square.sum((-2, -1)) / (3 * real.sum((-2, -1)).clamp_min(1))
        shape = (estimate.cell - cell).square().mean((-2, -1)) * weight
        return frac + self.cell_weight * shape

    def forget(self, batch, generator: torch.Generator | None):
        """``batch`` without ``prompt_dropout`` of its texts, drawn at random."""
        if batch.prompt is None or not self.prompt_dropout:
            return batch
        where = batch.prompt.device if generator is None else generator.device
        keep = (
            torch.rand(len(batch.prompt), 1, 1, generator=generator, device=where)
            >= self.prompt_dropout
        )
        return batch.with_prompt(batch.prompt * keep.to(batch.prompt))

    def draw_times(self, number: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Stratified times in (0.001, 0.999), ``(number,)``."""
        where = like.device if generator is None else generator.device
        shift = torch.rand((), generator=generator, device=where, dtype=torch.float64)
        order = torch.randperm(number, generator=generator, device=where)
        return TIMES[self.times](((shift + order) / number).clamp(1e-6, 1 - 1e-6)).to(like)

    def pair(self, batch, t: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """``x_t`` from a random point of the orbit of ``batch.frac``, and σ² × the score to regress
        on."""
        shifts = PeriodicTranslation(batch.frac.shape[-1])
        labels = torch.where(batch.mask, batch.species, -1)
        whole = Product(shifts, Permutation(labels.shape[-1], labels))
        g = whole.sample(t.shape, generator=generator, device=t.device, dtype=t.dtype)
        moved = self._turned(whole.act(g, batch.frac, mask=batch.mask), batch.mask, generator)
        noise = self.process.frac
        xt = noise.perturb(moved, t, generator=generator, mask=batch.mask)
        given = (moved, xt, t, batch.mask)
        if self.target == "augmentation":
            score = noise.score(xt, moved, t, batch.mask)
        elif self.target == "translations":
            score = orbit_posterior(shifts, noise, *self._with_mirror(given)).score
        elif self.target == "exact":
            score = self._over_both(shifts, labels, given, generator)
        else:
            width = 2.0 if self.target == "snis_wrapped" else None
            options = {
                "proposals": self.proposals,
                "include_identity": True,
                "proposal_width": width,
            }
            score = orbit_posterior(
                shifts, noise, *given, "snis", generator=generator, **options
            ).score
        return xt, beside(noise.wrapped_sigma(t).square()) * score.to(xt)

    def _turned(self, x: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """With ``mirror`` half of the items as their mirror images."""
        if not self.mirror:
            return x
        where = x.device if generator is None else generator.device
        sign = torch.randint(0, 2, (len(x), 1, 1), generator=generator, device=where).to(x) * 2 - 1
        return wrap(sign * x) * mask[..., None]

    def _with_mirror(self, given):
        """The crystals as sets of two where their mirror images are part of the orbit."""
        x1, *rest = given
        return (torch.stack([x1, wrap(-x1)]), *rest) if self.mirror else (x1, *rest)

    def _over_both(self, shifts: PeriodicTranslation, labels: Tensor, given, generator) -> Tensor:
        """The mean score over translations and permutations, exact where these can be
        enumerated."""
        score = torch.zeros_like(given[0])
        for items, permutations in ItemPermutations.split(labels, self.max_order):
            some = [value[items] for value in given]
            group = Product(shifts, permutations)
            if permutations.finite:
                found = orbit_posterior(group, self.process.frac, *self._with_mirror(some))
            elif self.beyond == "translations":
                found = orbit_posterior(shifts, self.process.frac, *self._with_mirror(some))
            else:
                options = {"proposals": self.states, "generator": generator}
                found = orbit_posterior(group, self.process.frac, *some, self.beyond, **options)
            score[items] = found.score.to(score)
        return score
