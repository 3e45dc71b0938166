"""Torsions drawn anew from fitted von Mises mixtures, wherever they are now: an exact independence
proposal.

The mixtures of torsions are those of Swanson, Williams, Jonas, arXiv 2306.07472; here they are
fitted to frames of a search and corrected by a Metropolis test (Tierney, Ann. Statist. 22, 1701,
1994, section 2.3.3), which the paper does not do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from orbitwise.energies.base import Energy
from orbitwise.errors import InputError
from orbitwise.molecules.search.rotors import Rotors
from orbitwise.processes.von_mises import (
    LOG_TURN,
    ProductMixture,
    VonMisesMixture,
    sample_von_mises,
    wrap_angle,
)
from orbitwise.processes.von_mises_fit import fit_products
from orbitwise.search.base import Info, State, start
from orbitwise.search.metropolis import initial_step, keep_centre, metropolis, uniform

if TYPE_CHECKING:
    from rdkit import Chem

FRAMES = 2000  # so many frames of each law are fitted at most
SHARES = {"single": 0.5, "pair": 0.3, "all": 0.2}


@dataclass(frozen=True, eq=False)
class TorsionProposal:
    """P sets of D rotors, ``rotors: (P, D)`` long, each drawn together from its own law.

    ``law``: ``log_weight (*L, P, K)``, ``mean`` and ``concentration (*L, P, K, D)``; ``L``
    broadcasts against the batch of chains, so that every temperature can have its own. ``share``:
    how often, against the other proposals of a move.
    """

    rotors: Tensor
    law: ProductMixture
    share: float = 1.0

    def __post_init__(self) -> None:
        p, d = self.rotors.shape
        if self.law.log_weight.shape[-2:-1] != (p,) or self.law.mean.shape[-1] != d:
            raise InputError(
                f"{p} sets of {d} rotors need a law of shape (*L, {p}, K, {d}), got"
                f" {tuple(self.law.mean.shape)}"
            )

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The law of every index of L and set, in rows ``(L P, K, D)``: what its density has beside
        the angles, edges of the cumulated weights, means, concentrations."""
        law = self.law
        log_weight = law.log_weight.double().log_softmax(-1)
        scale = torch.special.i0e(law.concentration.double()).log() + LOG_TURN
        parts = log_weight - scale.sum(-1), log_weight.exp().cumsum(-1)
        density, edges = (v.flatten(0, -2).to(law.mean) for v in parts)
        return density, edges, law.mean.flatten(0, -3), law.concentration.flatten(0, -3)

    def propose(
        self, like: Tensor, angles: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For every chain a set of rotors ``(*B, D)``, angles for it in place of ``angles: (*B,
        R)`` as it turns, ``(*B, D)``, and the log density of the old ones over that of the new,
        ``(*B)``."""
        sets, lead = len(self.rotors), self.law.log_weight.shape[:-2]
        first = torch.arange(lead.numel(), device=like.device).view(lead).expand(like.shape)
        u = uniform((2, *like.shape), like, generator)
        row = first * sets + (u[0] * sets).long()
        density, edges, mean, concentration = (v.to(like.device)[row] for v in self._rows)

        rotor = self.rotors.to(like.device)[row % sets]
        component = (u[1].to(edges).unsqueeze(-1) > edges[..., :-1]).sum(-1)[..., None, None]
        chosen = (v.take_along_dim(component, -2).squeeze(-2) for v in (mean, concentration))
        new = sample_von_mises(*chosen, generator=generator).to(like)
        old = angles.gather(-1, rotor)

        away = ((torch.stack([old, new]).unsqueeze(-2) - mean) / 2).sin().square()
        log_old, log_new = (density - 2 * (concentration * away).sum(-1)).logsumexp(-1)
        return rotor, wrap_angle(new - old), log_old - log_new


@dataclass(frozen=True, eq=False)
class MixtureMove:
    """New angles for one, two or all rotors from a fitted mixture, a Metropolis test: one
    evaluation per step.

    A step takes one of the ``proposals`` with probability ∝ its share (one for all chains), a set
    of rotors for each chain, draws their angles θ' from its law q whatever they are now, and
    accepts with ``min(1, exp(U - U') q(θ)/q(θ'))``. Bonds turn, so Cartesian volume is kept and
    nothing else enters: every choice obeys detailed balance by itself, and the law only decides how
    often a proposal is accepted. It must not be fitted again while samples are kept. With
    ``energy.zero_com`` the centroid is put back. Raises ``InputError`` without a proposal.
    """

    rotors: Rotors
    proposals: tuple[TorsionProposal, ...]
    target_acceptance: ClassVar[float | None] = None
    step_dims: ClassVar[int] = 0

    def __post_init__(self) -> None:
        shares = [p.share for p in self.proposals]
        if not shares or min(shares) < 0 or not sum(shares) > 0:
            raise InputError(f"a mixture move needs proposals with shares >= 0, got {shares}")
        if any(int(p.rotors.max()) >= len(self.rotors) for p in self.proposals):
            raise InputError(f"a proposal turns a rotor beyond the {len(self.rotors)} there are")

    @classmethod
    def fit(
        cls,
        mol: Chem.Mol,
        x: Tensor,
        *,
        shares: dict[str, float] | None = None,
        components: dict[str, int] | None = None,
        floor: float = 0.05,
        seed: int = 0,
    ) -> MixtureMove | None:
        """Fitted to frames ``x: (S, *L, C, N, 3)`` of C chains: one law for each index of L (the
        temperatures), laws ``(*L, 1, P, K, D)`` for a batch of chains ``(*L, C)``. None where no
        bond turns. See ``from_angles``."""
        rotors = Rotors.from_mol(mol)
        if rotors is None:
            return None
        angles = rotors.to(x.device).angles(x)
        return cls.from_angles(
            rotors, angles, shares=shares, components=components, floor=floor, seed=seed
        )

    @classmethod
    def from_angles(
        cls,
        rotors: Rotors,
        angles: Tensor,
        *,
        shares: dict[str, float] | None = None,
        components: dict[str, int] | None = None,
        floor: float = 0.05,
        seed: int = 0,
    ) -> MixtureMove:
        """Fitted to torsions ``angles: (S, *L, C, R)`` alone, which is all a search has to keep.

        ``shares`` of ``"single"`` rotors, ``"pair"`` (bonds with a common atom) and ``"all"``
        rotors together; ``components`` of each (default 6, 12, 24). ``floor`` of the weight lies on
        the uniform law, so that what the frames have not seen can be reached. The same seed and
        frames give the same move.
        """
        shares, sizes = shares or SHARES, {"single": 6, "pair": 12, "all": 24, **(components or {})}
        r = len(rotors)
        sets = {"single": torch.arange(r).unsqueeze(-1), "pair": rotors.neighbours().cpu()}
        sets["all"] = torch.arange(r).unsqueeze(0)
        if unknown := sorted((shares.keys() | sizes.keys()) - sets.keys()):
            raise InputError(f"no kind of proposal {unknown}; there are {sorted(sets)}")

        data = angles.detach().cpu().double().movedim(-2, 1)  # (S, C, *L, R)
        data = data.flatten(0, 1)
        data = data[:: -(-len(data) // FRAMES)]
        generator = torch.Generator().manual_seed(seed)
        found = []
        for kind, which in sets.items():
            # One rotor: all of them are that one. Two: they are the pair.
            if shares.get(kind, 0) <= 0 or not len(which) or (kind == "all" and r == 1):
                continue
            law = fit_products(
                data[..., which], sizes[kind], floor=floor, prior=2.0, generator=generator
            )
            parts = law.log_weight, law.mean, law.concentration
            law = ProductMixture(*(v.unsqueeze(angles.ndim - 3).float() for v in parts))
            found.append(TorsionProposal(which, law, shares[kind]))
        return cls(rotors, tuple(found))

    @classmethod
    def from_law(cls, rotors: Rotors, law: VonMisesMixture, *, floor: float = 0.05) -> MixtureMove:
        """Single rotors from given laws ``(*L, R, K)``, those of a network for instance; ``floor``
        as in ``from_angles``."""
        weight = law.log_weight.log_softmax(-1)
        level = torch.full_like(weight[..., :1], floor).log()
        zero = torch.zeros_like(level)
        products = VonMisesMixture(
            torch.cat([weight + math.log1p(-floor), level], -1),
            torch.cat([law.mean, zero], -1),
            torch.cat([law.concentration, zero], -1),
        ).products
        return cls(rotors, (TorsionProposal(torch.arange(len(rotors)).unsqueeze(-1), products),))

    def tensors(self) -> dict[str, Tensor]:
        """All that the move is, as tensors by name: for files and other processes."""
        named = {f"rotors.{k}": getattr(self.rotors, k) for k in ("axes", "moving", "atoms")}
        for n, p in enumerate(self.proposals):
            named |= {
                f"{n}.rotors": p.rotors,
                f"{n}.log_weight": p.law.log_weight,
                f"{n}.mean": p.law.mean,
                f"{n}.concentration": p.law.concentration,
                f"{n}.share": torch.tensor(p.share, dtype=torch.float64),
            }
        return named

    @classmethod
    def from_tensors(cls, named: dict[str, Tensor]) -> MixtureMove:
        """The move that ``tensors`` came from."""
        rotors = Rotors(*(named[f"rotors.{k}"] for k in ("axes", "moving", "atoms")))
        found: list[TorsionProposal] = []
        while f"{len(found)}.rotors" in named:
            n = len(found)
            law = ProductMixture(
                *(named[f"{n}.{k}"] for k in ("log_weight", "mean", "concentration"))
            )
            found.append(TorsionProposal(named[f"{n}.rotors"], law, float(named[f"{n}.share"])))
        return cls(rotors, tuple(found))

    def init(self, x: Tensor, energy: Energy) -> State:
        if x.shape[-2:] != (self.rotors.moving.shape[1], 3):
            raise InputError(
                f"rotors of {self.rotors.moving.shape[1]} atoms do not fit points {tuple(x.shape)}"
            )
        value, grad = start(x, energy)
        return State(x, value, grad, initial_step(1.0, value))

    def step(
        self, state: State, energy: Energy, generator: torch.Generator | None
    ) -> tuple[State, Info]:
        like, rotors = state.energy, self.rotors.to(state.x.device)
        proposal, angles = self._proposal(like, generator), rotors.angles(state.x)
        rotor, turn, log_ratio = proposal.propose(like, angles, generator)
        x = rotors.turn(state.x, rotor, turn)
        if energy.zero_com:
            x = keep_centre(x, state.x)
        value, grad = energy.value_and_grad(x)
        return metropolis(state, x, value, grad, like - value + log_ratio, generator)

    def _proposal(self, like: Tensor, generator: torch.Generator | None) -> TorsionProposal:
        shares = torch.tensor([p.share for p in self.proposals], dtype=torch.float64)
        u = uniform(torch.Size(()), like, generator).cpu()
        return self.proposals[int((u * shares.sum() > shares.cumsum(0)[:-1]).sum())]
