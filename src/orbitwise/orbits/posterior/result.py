"""What an orbit posterior is: the law of g given x_t, summarised by what training and mixing need
of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

from orbitwise.groups.base import Element
from orbitwise.orbits.posterior.call.targets import Assembled, Context, Targets

Method = Literal["exact", "snis", "mode", "gibbs"]
Draw = Callable[[int, torch.Generator | None], Element]  # that many elements per item


class Later:
    """A field that may be given as a function of nothing, called when the field is first read: what
    nobody reads costs nothing."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, post: Any, owner: type | None = None) -> Tensor:
        if post is None:
            raise AttributeError(self.name)  # to dataclass: no default
        value = post.__dict__[self.name]
        if callable(value):
            with torch.no_grad():
                value = post.__dict__[self.name] = value()
        found: Tensor = value
        return found

    def __set__(self, post: Any, value: Tensor | Callable[[], Tensor]) -> None:
        post.__dict__[self.name] = value


@dataclass(frozen=True, kw_only=True)
class OrbitPosterior(Targets):
    """The posterior ``p(g | x_t, x1) ∝ p_t(x_t | g·x1) dμ(g)`` of one batch.

    ``mean``: E[g·x1 | x_t], shape of ``x_t`` (padded rows are 0).
    ``log_evidence``: log ∫ p_t(x_t | g·x1) dμ(g), shape ``(*B)``. For ``method="mode"`` it is the
    log density at the mode instead, for ``"snis"`` the log of the mean over the proposals.
    ``score``: ∇_{x_t} of the log evidence, shape of ``x_t``. ``exact``: whether mean, evidence and
    draws are exact (up to rounding) or an approximation. ``draw``: what ``sample`` calls. ``ess``:
    effective sample size of the importance weights, ``(*B)``; None where nothing was sampled.
    ``velocity``, ``noise``, ``target(prediction)``: see ``Targets``. Evidence and score are worked
    out when they are first read.
    >>> import torch
    >>> import orbitwise as ow
    >>> x, process = torch.eye(3), ow.GaussianProcess.flow()
    >>> post = ow.orbit_posterior(ow.Permutation(3), process, x, x, 0.9)
    >>> post.mean.diagonal().mean().item() > 0.999
    True
    >>> post.sample(2).tolist()
    [[0, 1, 2], [0, 1, 2]]
    """

    mean: Tensor
    log_evidence: Later = Later()
    score: Later = Later()
    method: Method
    exact: bool
    draw: Draw = field(repr=False)
    ess: Tensor | None = None
    context: Context | Assembled | None = field(default=None, repr=False)

    def but(self, **changes: Any) -> OrbitPosterior:
        """The same with other fields; what is not worked out stays so."""
        return OrbitPosterior(**{f.name: self.__dict__[f.name] for f in fields(self)} | changes)

    def sample(self, K: int, generator: torch.Generator | None = None) -> Element:
        """``K`` group elements per item from the posterior, shape ``(K, *B, *E)``; ``group.act(g,
        x1, mask)`` gives the points. With a set of conformers: ``(index, g)``, ``index: (K, *B)``
        the conformer of each draw. For ``"mode"`` all draws are the mode; for ``"snis"`` they are
        proposals, resampled."""
        with torch.no_grad():
            return self.draw(K, generator)


def map_element(change: Callable[[Tensor], Tensor], g: Element) -> Element:
    """``change`` applied to every tensor of a group element (elements of a product are tuples)."""
    if isinstance(g, tuple):
        return tuple(map_element(change, part) for part in g)
    return g if g is None else change(g)
