"""The posterior over translations of space: flat measure, the centre of mass integrated out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from orbitwise.groups.translation import Translation
from orbitwise.orbits.posterior.dispatch import exact, mode
from orbitwise.orbits.posterior.noise import zero_com
from orbitwise.orbits.posterior.question import Question
from orbitwise.orbits.posterior.result import OrbitPosterior


@exact.register(Translation)
def exact_translation(group: Translation, question: Question) -> OrbitPosterior:
    """Exact: ``x1`` moved so that alpha times its centre of mass is that of ``x_t``.

    The evidence is the density in the subspace of zero centre of mass, D(N-1) dimensions. The shift
    is ``N(com(x_t)/alpha - com(x1), sigma²/(alpha² N))``, without spread for a process of zero
    centre of mass. Where alpha = 0 it is flat and has no mean; the shift to zero centre of mass
    stands in for it.
    """
    return _solve(question, spread=not zero_com(question.process))


@mode.register(Translation)
def mode_translation(group: Translation, question: Question) -> OrbitPosterior:
    """The most probable shift, which is also the mean one; evidence and score as in ``exact``."""
    return _solve(question, spread=False).but(method="mode", exact=False)


def _solve(question: Question, spread: bool) -> OrbitPosterior:
    noise, x1, xt, mask = question.gaussian, question.x1, question.xt, question.mask
    real = (torch.ones(xt.shape[:-1], device=xt.device) if mask is None else mask).to(xt)[..., None]
    count = real.sum(-2)
    com_t, com_1 = xt.sum(-2) / count, x1.sum(-2) / count
    alpha = noise.alpha[..., None]
    safe = torch.where(alpha != 0, alpha, 1.0)
    shift = torch.where(alpha != 0, com_t / safe, 0.0) - com_1
    width = torch.where(alpha != 0, (noise.variance[..., None] / count).sqrt() / safe, 0.0) * float(
        spread
    )

    centred_t, centred_1 = real * (xt - com_t[..., None, :]), real * (x1 - com_1[..., None, :])
    subspace = replace(noise, dof=xt.shape[-1] * (count[..., 0] - 1))

    def draw(K: int, generator: torch.Generator | None) -> Tensor:
        where = xt.device if generator is None else generator.device
        normal = torch.randn((K, *shift.shape), generator=generator, device=where, dtype=xt.dtype)
        return shift + width * normal.to(xt.device)

    return OrbitPosterior(
        mean=real * (x1 + shift[..., None, :]),
        log_evidence=subspace.log_density(centred_t, centred_1),
        score=noise.score(centred_1, centred_t),
        method="exact",
        exact=True,
        draw=draw,
    )
