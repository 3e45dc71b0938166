"""Parts of a diffusion sampler by name in a configuration: schedule, network, sampler."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field
from torch import nn

from orbitwise.errors import InputError
from orbitwise.methods.samplers.targets import Target
from orbitwise.networks import EGNN, MLP, ElementwiseMLP, PointTransformer
from orbitwise.networks.seeded import seeded
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Decaying, NoiseSchedule, Random, Uniform
from orbitwise.runs.choice import Choice, named
from orbitwise.runs.config import Config
from orbitwise.runs.named import needed
from orbitwise.runs.own import OrOwn, OwnNetwork


class ScheduleChoice(Choice):
    """``steps`` of the motion; ``start`` > 0 begins with a Gaussian."""

    flat: ClassVar = {"steps": 100, "start": 0.0, "first": 0.02, "last": 2e-3}

    steps: int = Field(100, ge=2)
    start: float = Field(0.0, ge=0, lt=1)

    def build(self) -> NoiseSchedule:
        raise NotImplementedError


class DecayingConfig(ScheduleChoice):
    """``first``, ``last``: see ``Decaying``."""

    name: Literal["decaying"] = "decaying"
    first: float = Field(0.02, gt=0, lt=1)
    last: float = Field(2e-3, gt=0, lt=1)

    def build(self) -> NoiseSchedule:
        return Decaying(self.steps, self.start, self.first, self.last)


class UniformConfig(ScheduleChoice):
    name: Literal["uniform"] = "uniform"

    def build(self) -> NoiseSchedule:
        return Uniform(self.steps, self.start)


class RandomConfig(ScheduleChoice):
    name: Literal["random"] = "random"

    def build(self) -> NoiseSchedule:
        return Random(self.steps, self.start)


ScheduleConfig = Annotated[
    DecayingConfig | UniformConfig | RandomConfig,
    Field(discriminator="name"),
    BeforeValidator(named("decaying")),
]


class NetworkChoice(Choice):
    """``hidden`` channels, ``layers``. ``dims``: of the points that a network reads; none for one
    that reads any vector."""

    flat: ClassVar = {"hidden": 256, "layers": 3, "width": 2, "radial": 32}

    hidden: int = Field(256, ge=8)
    layers: int = Field(3, ge=1)
    dims: ClassVar[tuple[int, ...]] = ()

    def build(self, target: Target) -> nn.Module:
        """Raises ``InputError`` where network and energy do not fit."""
        shape, dims = target.energy.event_shape, self.dims
        if dims and not (len(shape) == 2 and shape[1] in dims and target.labels is not None):
            raise InputError(
                f"network {self.name} is for points of {' or '.join(map(str, dims))} dimensions,"
                f" this energy is over {shape}; use mlp"
            )
        return self.network(target)

    def network(self, target: Target) -> nn.Module:
        raise NotImplementedError

    def reads_labels(self, network: nn.Module) -> bool:
        """Whether it is called with the labels of the points."""
        return bool(self.dims)


class MLPConfig(NetworkChoice):
    """Knows no symmetry."""

    name: Literal["mlp"] = "mlp"

    def network(self, target: Target) -> nn.Module:
        return MLP(target.energy.event_shape, self.hidden, self.layers)


class ElementwiseConfig(NetworkChoice):
    """Treats a vector as a set of blocks of ``width`` coordinates."""

    name: Literal["elementwise"] = "elementwise"
    width: int = Field(2, ge=1)

    def network(self, target: Target) -> nn.Module:
        size = math.prod(target.energy.event_shape)
        if size % self.width:
            raise InputError(f"network.width ({self.width}) must divide the {size} coordinates")
        return ElementwiseMLP(self.width, self.hidden, self.layers)


class EGNNConfig(NetworkChoice):
    """For points; ``radial`` functions of a distance."""

    name: Literal["egnn"] = "egnn"
    radial: int = Field(32, ge=4)
    dims: ClassVar[tuple[int, ...]] = (2, 3)

    def network(self, target: Target) -> nn.Module:
        molecule = target.start is not None
        return EGNN(
            hidden=self.hidden,
            layers=self.layers,
            vectors=16,
            radial=self.radial,
            chiral=molecule,
            graph=molecule,
        )


class TransformerConfig(NetworkChoice):
    """For points in space."""

    name: Literal["transformer"] = "transformer"
    dims: ClassVar[tuple[int, ...]] = (3,)

    def network(self, target: Target) -> nn.Module:
        return PointTransformer(hidden=self.hidden, layers=self.layers)


class OwnSamplerNetwork(OwnNetwork):
    """A network of one's own: ``net(x, t)`` or, of points, ``net(x, t, batch)``. One with
    parameters ``event_shape`` or ``points`` gets those of the energy."""

    def build(self, target: Target) -> nn.Module:  # type: ignore[override]
        """One that is there already is copied. Raises ``InputError`` as ``build_named``."""
        shape = target.energy.event_shape
        made = self.made(event_shape=shape, points=shape[0])
        if self.reads_labels(made) and target.labels is None:
            raise InputError(
                f"network {self.name}: net(x, t, batch) is for points, this energy is over {shape};"
                " define net(x, t)"
            )
        return made

    def reads_labels(self, network: nn.Module) -> bool:
        return needed(network.forward) > 2


NetworkConfig = Annotated[
    MLPConfig | ElementwiseConfig | EGNNConfig | TransformerConfig,
    Field(discriminator="name"),
    BeforeValidator(named("mlp")),
    OrOwn(OwnSamplerNetwork),
]


class SamplerConfig(Config):
    """The learner: see ``DiffusionSampler``. ``noise`` and ``data_scale`` in units of x; without
    them the scale is the root mean square coordinate found by the search, and the noise
    ``relative_noise`` times it."""

    network: NetworkConfig = MLPConfig()
    schedule: ScheduleConfig = DecayingConfig()
    noise: float | None = Field(None, gt=0)
    data_scale: float | None = Field(None, gt=0)
    relative_noise: float = Field(1.4, gt=0)
    variance: Literal["learned", "gaussian", "reference"] = "learned"
    langevin: bool = False
    langevin_clip: float = Field(100.0, gt=0)
    learned_backward: bool = False

    def build(self, target: Target, scale: float, seed: int, *, flows: bool) -> DiffusionSampler:
        """Fresh weights drawn from ``seed``; ``scale`` stands in for ``data_scale``."""
        scale = scale if self.data_scale is None else self.data_scale
        shape = target.energy.event_shape
        with seeded(seed):
            network = self.network.build(target)
            return DiffusionSampler(
                network,
                shape,
                self.schedule.build(),
                noise=self.relative_noise * scale if self.noise is None else self.noise,
                data_scale=scale,
                zero_com=target.energy.zero_com,
                variance=self.variance,
                langevin=self.langevin,
                langevin_clip=self.langevin_clip,
                flow=MLP(shape, 128, 2, out_shape=()) if flows else None,
                backward=self.network.build(target) if self.learned_backward else None,
                labels=target.labels if self.network.reads_labels(network) else None,
            )
