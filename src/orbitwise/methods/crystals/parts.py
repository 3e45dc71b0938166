"""Parts of crystal models by name in a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from orbitwise.crystals.cspnet import CSPNet
from orbitwise.crystals.denoiser import CrystalDenoiser
from orbitwise.crystals.process import CrystalProcess
from orbitwise.crystals.sampling import PredictorCorrector
from orbitwise.crystals.transformer import CrystalTransformer
from orbitwise.errors import InputError
from orbitwise.networks.seeded import seeded
from orbitwise.processes.wrapped_normal import WrappedNormalProcess
from orbitwise.runs.config import Config
from orbitwise.runs.own import OrOwn, OwnNetwork

# share of the steps that are done, and the time reached by then
_LEVELS = {
    "uniform": ((0, 1), (0, 1)),
    "choosing": ((0, 0.02, 0.08, 0.68, 0.85, 1), (0, 0.05, 0.1, 0.5, 0.75, 1)),
}
NETWORKS = {"cspnet": CSPNet, "transformer": CrystalTransformer}


class CrystalModelConfig(Config):
    """``sigma_min``, ``sigma_max`` of the wrapped noise in fractions of the cell; ``hidden``
    channels and ``layers``; ``centred``: scores of zero mean over the atoms; ``prompt``: size of a
    text embedding, 0 for none; it follows from the ``prompt`` of the run."""

    network: Annotated[Literal["cspnet", "transformer"], OrOwn(OwnNetwork)] = "cspnet"
    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    centred: bool = True
    prompt: int = Field(0, ge=0)
    sigma_min: float = Field(0.005, gt=0)
    sigma_max: float = Field(0.5, gt=0)

    def process(self) -> CrystalProcess:
        return CrystalProcess(WrappedNormalProcess(self.sigma_min, self.sigma_max))

    def _network(self) -> nn.Module:
        own: object = self.network
        if isinstance(own, OwnNetwork):
            sizes = {"hidden": self.hidden, "layers": self.layers}
            return own.made(**sizes, centred=self.centred, prompt=self.prompt)
        try:
            return NETWORKS[self.network](
                hidden=self.hidden, layers=self.layers, centred=self.centred, prompt=self.prompt
            )
        except ValueError as error:
            raise InputError(f"model: {error}") from error

    def denoiser(self, cell_mean: Tensor, cell_std: Tensor) -> CrystalDenoiser:
        """With untrained weights and the given scale of the cells (6,)."""
        texts = (torch.zeros(2, self.prompt), torch.ones(2, self.prompt)) if self.prompt else ()
        return CrystalDenoiser(self._network(), self.process(), cell_mean, cell_std, *texts)

    def fitted(self, batch, seed: int) -> CrystalDenoiser:
        """Weights drawn from ``seed``, cells and texts scaled by those of ``batch``; the caller's
        random stream stays.

        Raises ``InputError`` where ``batch`` has other texts than ``prompt`` numbers each.
        """
        given = 0 if batch.prompt is None else batch.prompt.shape[-1]
        if given != self.prompt:
            raise InputError(
                f"model.prompt is {self.prompt}, the crystals come with texts of {given} numbers"
            )
        with seeded(seed):
            return CrystalDenoiser.fitted(self._network(), self.process(), batch)


class CrystalSamplingConfig(Config):
    """``steps`` levels of noise, each followed by ``corrections`` Langevin steps; ``last``: time of
    the last one, whose answer is the structure; an early one answers with the mean of what is still
    open. ``levels``: ``uniform`` times, or ``choosing``: most between t = 0.1 and 0.5, where atoms
    choose their sites. ``consensus`` draws are made for each guess; of all that are made for a
    composition those are kept that stand for all of them best, first the one that the others agree
    with.

    ``guidance`` w, for a model with texts: the estimate is (1 − w) × that without the text + w ×
    that with it (Ho & Salimans 2207.12598, eq. 6), at twice the network calls; none: the text as it
    is, as w = 1.
    """

    steps: int = Field(50, ge=2)
    stochasticity: float = Field(1.0, ge=0, le=1)
    corrections: int = Field(0, ge=0)
    correction_size: float = Field(0.02, gt=0)
    last: float = Field(0.999, gt=0, lt=1)
    levels: Literal["uniform", "choosing"] = "uniform"
    consensus: int = Field(1, ge=1)
    batch_size: int = Field(1024, ge=1)
    guidance: float | None = Field(None, ge=0)

    def build(self) -> PredictorCorrector:
        return PredictorCorrector(self.stochasticity, self.corrections, self.correction_size)

    def grid(self) -> Tensor:
        """Increasing times ``(steps,)``; uniform ones are geometric noise levels."""
        share, time = _LEVELS[self.levels]
        end = np.interp(self.last, time, share)
        return torch.from_numpy(np.interp(np.linspace(0, end, self.steps), share, time)).float()

    @property
    def evaluations(self) -> int:
        """Network calls per structure."""
        once = self.steps + self.corrections * (self.steps - 1)
        return once * self.consensus * (1 if self.guidance is None else 2)
