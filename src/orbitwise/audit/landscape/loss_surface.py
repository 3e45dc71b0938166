"""The two loss terms of an audit as functions of the model's parameters, with everything random
held fixed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from orbitwise.audit.batch import AuditBatch, checked_batches
from orbitwise.audit.estimate import loss_terms
from orbitwise.audit.losses import squared
from orbitwise.audit.nodes import Nodes, nodes_for
from orbitwise.audit.orbit import Outputs, over_orbit
from orbitwise.errors import InputError
from orbitwise.groups.base import Element, Group

Term = Literal["total", "twirled", "equivariance"]
TERMS: tuple[Term, ...] = ("total", "twirled", "equivariance")


@dataclass(frozen=True)
class LossPoint:
    """The terms at one point of parameter space, averaged over items: scalars, ``total = twirled +
    equivariance``."""

    total: Tensor
    twirled: Tensor
    equivariance: Tensor


class LossTerms:
    """The squared loss of a model and its two terms as differentiable functions of a vector
    ``theta: (P,)`` of its parameters, on fixed batches and fixed group elements (common random
    numbers: the same ``theta`` gives the same numbers, and differences between points are those of
    the model).

    For every set of group elements the terms are those of ``loss_terms``: ``total`` the mean over
    elements, ``twirled`` the product of means over *different* blocks (a U-statistic, unbiased),
    ``equivariance`` their difference. The unbiased ``twirled`` need not be convex where the loss
    is: with few blocks its Hessian has small negative eigenvalues, which are noise of the group
    elements.

    ``model``: an ``nn.Module`` called as ``audit_equivariance`` does; a copy in evaluation mode is
    kept, as it is now. ``parameters``: names or prefixes of names (``"head"`` for ``head.weight``
    and ``head.bias``); None: all that require gradients. ``output``: which one of several outputs.
    ``chunk``: most items in one call of the model. Precision is that of the model and batches: for
    eigenvalues below 10⁻⁶ of the largest give both in float64.

    Raises ``InputError`` for a model that is no module, names that fit nothing, and what
    ``audit_equivariance`` refuses in batches and answers.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        batches: Any,
        *,
        outputs: Outputs = "vector",
        output: str | None = None,
        parameters: Sequence[str] | None = None,
        nodes: Nodes | None = None,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"the loss of a {type(model).__name__} has no parameters to vary: give an nn.Module"
            )
        self.model = copy.deepcopy(
            getattr(model, "_orig_mod", model)
        ).eval()  # compiled: no second derivatives
        for p in self.model.parameters():
            p.requires_grad_(False)
        self.group, self.outputs, self.chunk = group, outputs, chunk
        self.nodes = nodes or nodes_for(group)
        self.batches = list(checked_batches(batches))
        self.output = _only(self.batches[0], output)
        self.names = _chosen(model, parameters)
        self.elements = [self._draw(batch, generator) for batch in self.batches]
        with torch.no_grad():
            found = dict(self.model.named_parameters())
            self.point = torch.cat([found[name].flatten() for name in self.names])
            self._shapes = [found[name].shape for name in self.names]

    @property
    def dimension(self) -> int:
        """P."""
        return len(self.point)

    @property
    def weights(self) -> Tensor:
        """Share of the items that every batch holds, ``(n,)`` float64."""
        items = torch.tensor([len(batch) for batch in self.batches], dtype=torch.float64)
        return items / items.sum()

    def redrawn(self, generator: torch.Generator | None = None) -> LossTerms:
        """The same loss with fresh randomness: items of every batch drawn with replacement, new
        group elements."""
        other = copy.copy(self)
        other.batches = [batch[_again(batch, generator)] for batch in self.batches]
        other.elements = [other._draw(batch, generator) for batch in other.batches]
        return other

    def __call__(self, theta: Tensor | None = None) -> LossPoint:
        """Both terms at ``theta`` (default: where the model is), over all items."""
        parts = [self.of_batch(k, theta) for k in range(len(self.batches))]
        weights = self.weights.to(parts[0].total)
        return LossPoint(
            *(sum(w * getattr(p, t) for w, p in zip(weights, parts, strict=True)) for t in TERMS)
        )

    def of_batch(self, k: int, theta: Tensor | None = None) -> LossPoint:
        """Both terms over the items of batch ``k``."""
        theta = self.point if theta is None else theta
        pieces = theta.split([shape.numel() for shape in self._shapes])
        named = {n: v.reshape(s) for n, v, s in zip(self.names, pieces, self._shapes, strict=True)}
        batch = self.batches[k]

        def model(*inputs):
            return functional_call(self.model, named, inputs)

        # the fused attention kernels have no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            answers = over_orbit(
                model, self.group, self.elements[k], batch, self.outputs, chunk=self.chunk
            )
        found = loss_terms(
            answers[self.output], batch.targets[self.output], squared, self.nodes.blocks, batch.mask
        )
        return LossPoint(*(getattr(found, term).mean() for term in TERMS))

    def gradient(self, term: Term, theta: Tensor | None = None) -> Tensor:
        """``(P,)``."""
        slopes = (self._slope(k, term, theta) for k in range(len(self.batches)))
        return sum(
            float(w) * slope.detach() for w, (_, slope) in zip(self.weights, slopes, strict=True)
        )

    def hessian_product(self, term: Term, vector: Tensor, theta: Tensor | None = None) -> Tensor:
        """``H v`` of ``v: (P,)`` at ``theta``; one batch at a time is in memory."""
        return sum(
            float(w) * self._product(k, term, vector, theta) for k, w in enumerate(self.weights)
        )

    def curvature(self, term: Term, vector: Tensor, theta: Tensor | None = None) -> Tensor:
        """``vᵀ H_k v`` of every batch k, ``(n,)``."""
        vector = vector.to(self.point)
        found = [vector @ self._product(k, term, vector, theta) for k in range(len(self.batches))]
        return torch.stack(found).double()

    def dense_hessian(
        self, k: int, term: Term, theta: Tensor | None = None, columns: int = 64
    ) -> Tensor:
        """The Hessian ``(P, P)`` of batch ``k``, ``columns`` at a time; for a few thousand
        parameters at most."""
        theta, slope = self._slope(k, term, theta)
        rows = []
        for part in torch.eye(len(theta), dtype=slope.dtype, device=slope.device).split(columns):
            (found,) = torch.autograd.grad(
                slope, theta, part, retain_graph=True, is_grads_batched=True
            )
            rows.append(found)
        dense = torch.cat(rows).double()
        return (dense + dense.mT) / 2

    def _product(self, k: int, term: Term, vector: Tensor, theta: Tensor | None) -> Tensor:
        theta, slope = self._slope(k, term, theta)
        return torch.autograd.grad(slope, theta, vector.to(slope))[0]

    def _slope(self, k: int, term: Term, theta: Tensor | None) -> tuple[Tensor, Tensor]:
        """A leaf ``theta`` and the gradient there, with its graph."""
        theta = (self.point if theta is None else theta).detach().clone().requires_grad_(True)
        with torch.enable_grad():
            value = getattr(self.of_batch(k, theta), term)
            if not value.requires_grad:
                raise InputError(
                    f"the loss does not depend on {', '.join(self.names[:4])}: choose other"
                    " parameters"
                )
            (slope,) = torch.autograd.grad(value, theta, create_graph=True)
        # a loss that is linear in theta has a gradient without graph; its Hessian is zero
        return theta, slope if slope.requires_grad else slope + 0 * theta

    def _draw(self, batch: AuditBatch, generator: torch.Generator | None) -> Element:
        return self.nodes.draw(self.group, len(batch), generator, batch.x)


def quadratic_in(loss: LossTerms, tolerance: float = 1e-3, seed: int = 0) -> bool:
    """Whether the total loss is quadratic in its parameters: whether ``H v`` stays the same far
    from the point."""
    generator = torch.Generator().manual_seed(seed)

    def random() -> Tensor:
        return torch.randn(loss.dimension, generator=generator).to(loss.point)

    v, away = random(), loss.point + random() * (1 + loss.point.abs())
    near, far = loss.hessian_product("total", v), loss.hessian_product("total", v, away)
    return bool((near - far).norm() <= tolerance * near.norm())


def _only(batch: AuditBatch, output: str | None) -> str:
    names = list(batch.targets)
    if output is None and len(names) == 1:
        return names[0]
    if output not in names:
        raise InputError(f"output: name one of {', '.join(names)}; got {output!r}")
    return output


def _chosen(model: nn.Module, wanted: Sequence[str] | None) -> list[str]:
    names = [name for name, _ in getattr(model, "_orig_mod", model).named_parameters()]
    if wanted is None:
        learned = {id(p) for p in model.parameters() if p.requires_grad}
        found = [
            n for n, p in getattr(model, "_orig_mod", model).named_parameters() if id(p) in learned
        ]
    else:
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        fits: Callable[[str, str], bool] = lambda name, w: name == w or name.startswith(w + ".")  # noqa: E731
        missing = [w for w in wanted if not any(fits(name, w) for name in names)]
        if missing:
            shown = ", ".join(names[-8:])
            raise InputError(
                f"no parameter is called {missing[0]!r} or begins so; the last ones are {shown}"
            )
        found = [name for name in names if any(fits(name, w) for w in wanted)]
    if not found:
        raise InputError(
            "the model has no parameters that require gradients: name them with parameters=[…]"
        )
    return found


def _again(batch: AuditBatch, generator: torch.Generator | None) -> Tensor:
    where = batch.x.device if generator is None else generator.device
    index = torch.randint(0, len(batch), (len(batch),), generator=generator, device=where)
    return index.to(batch.x.device)
