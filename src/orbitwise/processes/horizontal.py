"""Motions and noise that do not turn the points, in the metric of a process's noise.

The score of a density that rotations leave alone is orthogonal to their orbits, in the metric in
which the noise is isotropic: so is ``E[x_1 | x_t]``, which is ``x_t`` and the score. For isotropic
noise this says that both have no angular momentum about ``x_t``; for springs the same of the
whitened points.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from orbitwise.groups.tangent import grown, horizontal_part
from orbitwise.processes.gaussian import GaussianProcess


@dataclass(frozen=True)
class Horizontal:
    """At points ``x: (*B, N, D)`` under the noise of ``process`` (a process with bonds: on its
    batch); rotations turn about the origin, which is the centre of mass with ``zero_com``."""

    process: GaussianProcess
    mask: Tensor | None = None

    def part(self, x: Tensor, v: Tensor) -> Tensor:
        """``v`` without what turns ``x``; ``part(x, x + v) = x + part(x, v)``."""
        found = horizontal_part(self._white(x), self._white(v), self.mask)
        return self._coloured(found).to(v.dtype)

    def noised(self, x: Tensor, size: Tensor, noise: Tensor) -> Tensor:
        """``x + size · noise`` in which the noise does not turn ``x``, with the drift that keeps
        the law of the shape as it is under full noise, to first order in ``size²``: ``½ size²``
        times the gradient of the logarithm of the orbit's volume (docs/theory.md, section 10).

        ``size: (*B, 1, 1)``.
        """
        found = self._coloured(grown(self._white(x), size.square(), self.mask)).to(x.dtype)
        # the rounding of a centre of mass beside a line would be blown up step by step
        return self.process.project(found + size * self.part(x, noise), self.mask)

    def _white(self, x: Tensor) -> Tensor:
        whiten = getattr(self.process, "whiten", None)
        return x if whiten is None else whiten(x, self.mask)

    def _coloured(self, x: Tensor) -> Tensor:
        colour = getattr(self.process, "colour", None)
        return x if colour is None else colour(x)
