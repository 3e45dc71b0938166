"""The posterior over the common rotation of rigid frames, by quadrature over SO(3).

The density of the noise on a rotation is a function of an angle alone, so ``p(g | x_t) ∝ Π_i
f_σ(angle(R_tiᵀ g R_i)) exp(α/σ_T² tr(gᵀ Σ_i T_ti T_iᵀ))``. Its first factor is no exponential
family and has no closed integral, but the group has three dimensions: where the posterior is wide a
product grid integrates it, where it is narrow grids around its modes, all converging exponentially.
Only traces of products with g are asked of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from orbitwise.errors import InputError
from orbitwise.groups.se3 import rotation_angle
from orbitwise.orbits.posterior.rigid.quadrature import LogDensity, Modes, peaks, whole_group

_WIDE = 0.25  # rad: where no axis is narrower the whole group is integrated at once
_STARTS, _APART = 8, 0.4  # modes looked for; rad between their first guesses
_SAME = -4.5  # a mode within 3 standard deviations of another one is that one
_BEYOND = -18.0  # 6 standard deviations: where a box ends
_NEGLIGIBLE = -36.0  # nodes of less of the largest weight are dropped
_ITEMS = 4  # at once: those that need few modes do not wait for one that needs many
_AT_ONCE = 1 << 19  # angles
_SKEW = ((2, 1), (0, 2), (1, 0))  # entries whose differences are 2 sin(ω) times the axis
_SINE = 1e-9


class Origins(Protocol):
    """What is asked of the noise on origins; a ``GaussianProcess`` is one."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor: ...
    def log_density(
        self, xt: Tensor, x1: Tensor, t: Tensor, mask: Tensor | None = None
    ) -> Tensor: ...


class FrameNoise(Protocol):
    """What is asked of a process on frames; ``ow.FrameProcess`` is one."""

    @property
    def translation(self) -> Origins: ...
    def turn_log_density(self, angle: Tensor, t: Tensor) -> Tensor: ...
    def turn_slope(self, angle: Tensor, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class FramePosterior:
    """``p(g | frames_t, frames)`` of one batch, g the rotation that all frames share.

    ``rotations: (Q, *B, 3, 3)`` with ``log_weights: (Q, *B)`` (sum of exp = 1): the nodes, in
    float64; means and scores are in the dtype of ``frames_t`` and 0 on padded rows.
    ``log_evidence: (*B)``: log of the integral over the Haar measure. ``outside: (*B)``: the share
    of the mass that a coarse grid over the whole group finds beyond the nodes; where it is not far
    below 1 there are more modes than were looked for, and the posterior is that over some of them.
    >>> import torch
    >>> import orbitwise as ow
    >>> frames = torch.eye(3, 4).expand(4, 3, 4)
    >>> process = ow.FrameProcess(ow.GaussianProcess.flow(zero_com=True))
    >>> post = ow.frame_posterior(process, frames, frames, 0.9)
    >>> [round(a, 3) for a in post.mean[0].diagonal().tolist()]  # shrunk: g is not known
    [0.967, 0.967, 0.967]
    >>> post.sample(5).shape
    torch.Size([5, 3, 3])
    """

    rotations: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    outside: Tensor
    process: FrameNoise
    frames_t: Tensor
    frames: Tensor
    t: Tensor
    mask: Tensor | None
    dtype: torch.dtype

    @property
    def mean_rotation(self) -> Tensor:
        """E[g], a matrix in the hull of the rotations, ``(*B, 3, 3)``."""
        return (self.log_weights.exp()[..., None, None] * self.rotations).sum(0)

    @property
    def mean(self) -> Tensor:
        """E[g·frames], ``(*B, N, 3, 4)``: what a network of denoised origins and, by the matrix
        entries, rotations regresses on."""
        return self._handed_out(self.mean_rotation[..., None, :, :] @ self.frames)

    @property
    def mean_turns(self) -> Tensor:
        """E[log(R_tᵀ g R)] in radians, ``(*B, N, 3)`` in the noisy frame of each residue: the mean
        rotation vector from there to the clean one. The logarithm jumps at half turns: to 0.01 rad
        only where those are likely; ``mean`` and the scores do not."""
        return self._averaged(lambda angle: angle)

    @property
    def score_turns(self) -> Tensor:
        """Gradient of ``log_evidence`` in the rotations, ``(*B, N, 3)`` per radian in the noisy
        frame of each residue: ``R_t -> R_t exp(v)``."""
        return self._averaged(lambda angle: -self.process.turn_slope(angle, self.t))

    @property
    def score_origins(self) -> Tensor:
        """Gradient of ``log_evidence`` in the origins, ``(*B, N, 3)``."""
        origins = self.process.translation
        alpha, sigma = (a(self.t)[..., None, None] for a in (origins.alpha, origins.sigma))
        clean = self.frames[..., 3] @ self.mean_rotation.mT
        away = origins.project(alpha * clean - self.frames_t[..., 3], self.mask)
        return self._handed_out(away / sigma**2)

    def sample(self, K: int, generator: torch.Generator | None = None) -> Tensor:
        """``K`` of the nodes by their weights, ``(K, *B, 3, 3)``; between neighbours, 0.75 of a
        standard deviation apart at most, the posterior changes little."""
        batch = self.log_weights.shape[1:]
        weights = self.log_weights.exp().flatten(1).mT if batch else self.log_weights.exp()[None]
        at = torch.multinomial(weights, K, replacement=True, generator=generator).mT
        nodes = self.rotations.reshape(len(self.rotations), -1, 3, 3)
        return nodes.gather(0, at[..., None, None].expand(-1, -1, 3, 3)).view(K, *batch, 3, 3)

    def _averaged(self, length: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over g of ``length(ω)`` along the axis of ``R_tᵀ g R``, ω its angle; ``(*B, N,
        3)``."""
        batch, residues = self.log_weights.shape[1:], self.frames.shape[-3]
        noisy, clean = (a[..., :3] for a in (self.frames_t, self.frames))
        turned = noisy[..., :, None, :, None] * clean[..., None, :, None, :]  # entries ij per g_ab
        skew = torch.stack([turned[..., i, j] - turned[..., j, i] for i, j in _SKEW], -1)
        asked = torch.cat([turned.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None], skew], -1)
        asked = asked.flatten(-3, -2).transpose(-3, -2).flatten(-2)  # (*B, 9, N 4)

        total = torch.zeros_like(clean[..., 0])
        some = max(1, _AT_ONCE // (4 * batch.numel() * residues))
        pairs = zip(self.log_weights.split(some), self.rotations.split(some), strict=True)
        for log_weight, g in pairs:
            entries = torch.einsum("q...x,...xn->q...n", g.flatten(-2), asked)
            entries = entries.unflatten(-1, (residues, 4))
            angle = rotation_angle(entries[..., 0])
            # at half turns both axes are as good, and cancel
            share = length(angle) / (2 * torch.sin(angle)).clamp_min(_SINE)
            part = (log_weight.exp()[..., None] * share)[..., None] * entries[..., 1:]
            total = total + part.sum(0)
        return self._handed_out(total)

    def _handed_out(self, x: Tensor) -> Tensor:
        """0 on padded rows, in the dtype of the frames."""
        if self.mask is not None:
            x = x * self.mask.view(*self.mask.shape, *[1] * (x.ndim - self.mask.ndim))
        return x.to(self.dtype)


def frame_posterior(
    process: FrameNoise,
    frames_t: Tensor,
    frames: Tensor,
    t: Tensor | float,
    mask: Tensor | None = None,
) -> FramePosterior:
    """The exact posterior of the rotation that frames ``[R | T]: (*B, N, 3, 4)`` share, given noisy
    ones: ``frames_t ~ process`` around ``g·frames``; ``t: (*B)`` or one number, ``mask: (*B, N)``.

    To about 1e-7 where ``outside`` is as small. Works in float64; costs 9,000 to 15,000 densities
    of each item, whatever the noise, and 4,100 more for each further mode; constants to autograd.
    Raises ``InputError`` for shapes that do not fit, values that are not finite and times at which
    there is no noise.
    >>> import torch
    >>> import orbitwise as ow
    >>> generator = torch.Generator().manual_seed(0)
    >>> turns = ow.SO3().sample((5,), generator=generator, dtype=torch.float64)
    >>> origins = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    >>> frames = torch.cat([turns, (origins - origins.mean(0))[..., None]], -1)
    >>> process = ow.FrameProcess(ow.GaussianProcess.flow(zero_com=True))
    >>> t = torch.tensor(0.9, dtype=torch.float64)
    >>> frames_t = process.perturb(frames, t, generator=generator)
    >>> post = ow.frame_posterior(process, frames_t, frames, t)
    >>> post.mean.shape, post.score_turns.shape, bool(post.outside < 1e-6)
    (torch.Size([5, 3, 4]), torch.Size([5, 3]), True)
    """
    with torch.no_grad():
        asked = _Asked.of(process, frames_t, frames, t, mask)
        found = [_kept(*_nodes(part)) for part in asked.split(_ITEMS)]
        most = max(len(logs) for _, logs, _ in found)
        logs = torch.cat([_lengthened(logs, most, -math.inf) for _, logs, _ in found], 1)
        rotations = torch.cat([_lengthened(g, most, 0.0) for g, _, _ in found], 1)
        outside = torch.cat([share for _, _, share in found])
        evidence = logs.logsumexp(0)
        batch = asked.batch
        return FramePosterior(
            rotations=rotations.view(most, *batch, 3, 3),
            log_weights=(logs - evidence).view(most, *batch),
            log_evidence=evidence.view(batch),
            outside=outside.view(batch),
            process=process,
            frames_t=asked.frames_t.view(*batch, -1, 3, 4),
            frames=asked.frames.view(*batch, -1, 3, 4),
            t=asked.t.view(batch),
            mask=mask,
            dtype=frames_t.dtype,
        )


@dataclass(frozen=True)
class _Asked:
    """One axis of items B, in float64, and what stands still while g turns."""

    process: FrameNoise
    frames_t: Tensor
    frames: Tensor
    t: Tensor
    mask: Tensor | None
    batch: torch.Size
    turns: Tensor  # (B, 9, N): tr(gᵀ R_t Rᵀ) of each residue
    pull: Tensor  # (B, 9): alpha/sigma² Σ T_t Tᵀ
    level: Tensor  # (B): log density of the origins without their trace

    @classmethod
    def of(
        cls,
        process: FrameNoise,
        frames_t: Tensor,
        frames: Tensor,
        t: Tensor | float,
        mask: Tensor | None,
    ) -> _Asked:
        if frames.shape != frames_t.shape or frames.ndim < 3 or frames.shape[-2:] != (3, 4):
            raise InputError(
                "frames and frames_t must both be [R | T] of shape (*B, N, 3, 4), not"
                f" {tuple(frames.shape)} and {tuple(frames_t.shape)}"
            )
        if mask is not None and mask.shape != frames.shape[:-2]:
            raise InputError(f"mask must be {tuple(frames.shape[:-2])}, not {tuple(mask.shape)}")
        batch, device = frames.shape[:-3], frames.device
        times = torch.as_tensor(t, dtype=torch.float64, device=device).expand(batch).reshape(-1)
        clean, noisy = (a.double().reshape(-1, *frames.shape[-3:]) for a in (frames, frames_t))
        real = None if mask is None else mask.reshape(-1, mask.shape[-1])
        if real is not None:
            unmoved = torch.eye(3, 4, dtype=clean.dtype, device=device)
            clean, noisy = (torch.where(real[..., None, None], a, unmoved) for a in (clean, noisy))
        if not (clean.isfinite().all() and noisy.isfinite().all()):
            raise InputError("frames hold values that are not finite")

        origins = process.translation
        at, around = (origins.project(a[..., 3], real) for a in (noisy, clean))
        level = origins.log_density(at, around, times, real)
        alpha, sigma = origins.alpha(times), origins.sigma(times)
        if not (sigma > 0).all():
            raise InputError(
                "frame_posterior: sigma(t) = 0 at some t, where there is no noise and no density;"
                " keep t below 1"
            )
        pull = (alpha / sigma**2)[..., None, None] * (at.mT @ around)
        return cls(
            process=process,
            frames_t=noisy,
            frames=clean,
            t=times,
            mask=real,
            batch=batch,
            turns=(noisy[..., :3] @ clean[..., :3].mT).flatten(-2).mT,
            pull=pull.flatten(-2),
            level=level - pull.diagonal(dim1=-2, dim2=-1).sum(-1),
        )

    def split(self, items: int) -> list[_Asked]:
        """Some items at a time."""
        cut = [slice(k, k + items) for k in range(0, len(self.t), items)]
        names = ("frames_t", "frames", "t", "mask", "turns", "pull", "level")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return [replace(self, **{name: a[part] for name, a in given.items()}) for part in cut]

    def log_density(self, g: Tensor) -> Tensor:
        """``(Q, M, B, 3, 3) -> (Q, M, B)``, for M modes of each item."""
        items, _, residues = self.turns.shape
        some = max(1, _AT_ONCE // (g.shape[1] * items * residues))
        return torch.cat([self._log_density(part) for part in g.flatten(-2).split(some)])

    def _log_density(self, g: Tensor) -> Tensor:
        trace = torch.einsum("qmbx,bxn->qmbn", g, self.turns)
        each = self.process.turn_log_density(rotation_angle(trace), self.t)
        each = each if self.mask is None else torch.where(self.mask, each, 0.0)
        return each.sum(-1) + torch.einsum("qmbx,bx->qmb", g, self.pull) + self.level


def _nodes(asked: _Asked) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes ``(Q, B, 3, 3)``, logs of density times volume ``(Q, B)``, and ``outside: (B)``."""
    items = len(asked.t)
    grid, volume = (a.to(asked.t.device) for a in whole_group())
    everywhere = grid[:, None].expand(-1, items, 3, 3)
    height = asked.log_density(everywhere[:, None])[:, 0]
    coarse = height + volume[:, None]
    modes = Modes.near(peaks(height, _STARTS, _APART), asked.log_density)
    modes, real = _told_apart(modes, asked.log_density)
    wide = modes.deviation[0].amin(-1) > _WIDE
    if wide.all():
        return everywhere, coarse, torch.zeros_like(asked.t)

    fine, logs = _around(modes, real, asked)
    near = modes.nearness(everywhere).masked_fill(~real, -math.inf).amax(1)
    missed = torch.where(near < _BEYOND, coarse, -math.inf).logsumexp(0)
    outside = (missed - torch.logaddexp(missed, logs.logsumexp(0))).exp()

    # one list for both kinds of items
    logs = torch.cat([coarse.masked_fill(~wide, -math.inf), logs.masked_fill(wide, -math.inf)])
    return torch.cat([everywhere, fine]), logs, outside.masked_fill(wide, 0.0)


def _kept(rotations: Tensor, logs: Tensor, outside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes without those that weigh nothing, by falling weight."""
    count = int((logs > logs.amax(0) + _NEGLIGIBLE).sum(0).max())
    logs, best = logs.topk(count, dim=0)
    return rotations.gather(0, best[..., None, None].expand(-1, -1, 3, 3)), logs, outside


def _lengthened(x: Tensor, length: int, value: float) -> Tensor:
    return torch.cat([x, x.new_full((length - len(x), *x.shape[1:]), value)])


def _told_apart(modes: Modes, log_density: LogDensity) -> tuple[Modes, Tensor]:
    """The modes of each item by falling mass, and which are modes indeed, no repetition and not
    negligible: ``(M, B)`` bool. As many as the item with most needs."""
    height = log_density(modes.centre[None])[0]
    aside = torch.cat([torch.eye(3), -torch.eye(3)]).to(height)[:, None, None]
    valley = (log_density(modes.moved(aside * modes.deviation)) > height).any(0)
    mass = height + modes.deviation.log().sum(-1) + 2 * _NEGLIGIBLE * valley
    mass, order = mass.sort(0, descending=True)
    at = order[..., None]
    modes = Modes(
        centre=modes.centre.gather(0, at[..., None].expand_as(modes.centre)),
        axes=modes.axes.gather(0, at[..., None].expand_as(modes.axes)),
        deviation=modes.deviation.gather(0, at.expand_as(modes.deviation)),
    )
    like = modes.nearness(modes.centre) > _SAME  # (mode, earlier mode, B)
    earlier = torch.ones_like(like[..., 0]).tril(-1)[..., None]
    real = ~(like & earlier).any(1) & (mass > mass[0] + _NEGLIGIBLE)
    needed = int(real.any(1).nonzero().max()) + 1
    found = (a[:needed] for a in (modes.centre, modes.axes, modes.deviation))
    return Modes(*found), real[:needed]


def _around(modes: Modes, real: Tensor, asked: _Asked) -> tuple[Tensor, Tensor]:
    """Nodes ``(Q, B, 3, 3)`` of boxes around the modes, and logs of density times volume.

    Where boxes overlap each node counts by the share that its mode has in the sum of Gaussians
    around all of them: smooth, and 1 in total.
    """
    nodes, volume, _ = modes.box()
    to_each = torch.stack([modes.nearness(g) for g in nodes.unbind(1)], 1)
    to_each = (to_each - modes.deviation.log().sum(-1)).masked_fill(~real, -math.inf)
    own = to_each.log_softmax(2).diagonal(dim1=1, dim2=2).mT
    return nodes.flatten(0, 1), (asked.log_density(nodes) + volume + own).flatten(0, 1)
