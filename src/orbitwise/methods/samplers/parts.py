"""Parts of a diffusion sampler by name in a configuration: schedule, network, sampler,
objective."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import Energy
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.methods.samplers.targets import Target
from orbitwise.networks import EGNN, MLP, ElementwiseMLP, PointTransformer
from orbitwise.objectives.paths.adjoint_matching import AdjointMatching
from orbitwise.objectives.paths.augmented_flow import AugmentedFlow
from orbitwise.objectives.paths.detailed_balance import DetailedBalance
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.reverse_kl import ReverseKL
from orbitwise.objectives.paths.sampler import DiffusionSampler
from orbitwise.objectives.paths.schedule import Decaying, NoiseSchedule, Random, Uniform
from orbitwise.objectives.paths.subtrajectory_balance import SubTrajectoryBalance
from orbitwise.objectives.paths.trajectory_balance import TrajectoryBalance, VarGrad
from orbitwise.runs.config import Config


class ScheduleConfig(Config):
    """``steps`` of the motion; ``start`` > 0 begins with a Gaussian; ``first``, ``last``: see
    ``Decaying``."""

    name: Literal["decaying", "uniform", "random"] = "decaying"
    steps: int = Field(100, ge=2)
    start: float = Field(0.0, ge=0, lt=1)
    first: float = Field(0.02, gt=0, lt=1)
    last: float = Field(2e-3, gt=0, lt=1)

    def build(self) -> NoiseSchedule:
        if self.name == "decaying":
            return Decaying(self.steps, self.start, self.first, self.last)
        return {"uniform": Uniform, "random": Random}[self.name](self.steps, self.start)


class NetworkConfig(Config):
    """``mlp`` knows no symmetry; ``elementwise`` treats a vector as a set of blocks of ``width``
    coordinates; ``egnn`` and ``transformer`` are for points. ``hidden`` channels, ``layers``;
    ``radial``: distances of ``egnn``."""

    name: Literal["mlp", "elementwise", "egnn", "transformer"] = "mlp"
    hidden: int = Field(256, ge=8)
    layers: int = Field(3, ge=1)
    width: int = Field(2, ge=1)
    radial: int = Field(32, ge=4)

    def build(self, target: Target) -> nn.Module:
        """Raises ``InputError`` where network and energy do not fit."""
        shape = target.energy.event_shape
        allowed = {"egnn": (2, 3), "transformer": (3,)}.get(self.name)
        if allowed and not (len(shape) == 2 and shape[1] in allowed and target.labels is not None):
            raise InputError(
                f"network {self.name} is for points of {' or '.join(map(str, allowed))} dimensions,"
                f" this energy is over {shape}; use mlp"
            )
        if self.name == "mlp":
            return MLP(shape, self.hidden, self.layers)
        if self.name == "elementwise":
            if math.prod(shape) % self.width:
                raise InputError(
                    f"network.width ({self.width}) must divide the {math.prod(shape)} coordinates"
                )
            return ElementwiseMLP(self.width, self.hidden, self.layers)
        if self.name == "transformer":
            return PointTransformer(hidden=self.hidden, layers=self.layers)
        molecule = target.start is not None
        heads = {"hidden": self.hidden, "layers": self.layers, "vectors": 16, "radial": self.radial}
        return EGNN(**heads, chiral=molecule, graph=molecule)


class SamplerConfig(Config):
    """The learner: see ``DiffusionSampler``. ``noise`` and ``data_scale`` in units of x; without
    them the scale is the root mean square coordinate found by the search, and the noise
    ``relative_noise`` times it."""

    network: NetworkConfig = NetworkConfig()
    schedule: ScheduleConfig = ScheduleConfig()
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
        with torch.random.fork_rng(devices=[]):  # torch initialises layers from its global stream
            torch.manual_seed(seed)
            network = self.network.build(target)
            points = target.labels is not None and self.network.name in ("egnn", "transformer")
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
                labels=target.labels if points else None,
            )


class ObjectiveConfig(Config):
    """``on_policy`` share of paths; ``time_steps`` per path that get a gradient (null: all);
    ``decay`` of sub-trajectory balance; ``partial_energy`` in its flows and those of detailed
    balance; ``endpoints``, ``refresh``, ``clip`` and ``memory`` of adjoint matching; ``novelty``:
    weight of the augmented flow."""

    name: Literal[
        "trajectory_balance",
        "vargrad",
        "detailed_balance",
        "subtrajectory_balance",
        "reverse_kl",
        "maximum_likelihood",
        "augmented_flow",
        "adjoint_matching",
    ] = "vargrad"
    on_policy: float = Field(0.5, ge=0, le=1)
    time_steps: int | None = Field(10, ge=1)
    decay: float = Field(0.9, gt=0)
    partial_energy: bool = False
    endpoints: int = Field(256, ge=1)
    refresh: int = Field(50, ge=1)
    clip: float = Field(1e3, gt=0)
    memory: int = Field(10_000, ge=1)
    novelty: float = Field(0.1, gt=0)

    @property
    def flows(self) -> bool:
        """Whether the objective needs flows of inner states."""
        return self.name in ("detailed_balance", "subtrajectory_balance")

    @property
    def learns_log_z(self) -> bool:
        """Whether log Z is a parameter that is trained."""
        return self.flows or self.name in ("trajectory_balance", "augmented_flow")

    def build(
        self,
        energy: Energy,
        buffer: ReplayBuffer | None,
        group: Group | None,
        forces: bool,
        steps: int,
    ) -> PathObjective:
        """``group``, ``forces`` and the number of ``steps`` are for maximum likelihood."""
        if self.name == "reverse_kl":
            return ReverseKL(energy)
        if self.name == "maximum_likelihood":
            return MaximumLikelihood(energy, buffer, group, forces=forces, steps=steps)
        if self.name == "adjoint_matching":
            memory = ReplayBuffer(self.memory, energy.event_shape)
            return AdjointMatching(
                energy, memory, endpoints=self.endpoints, refresh=self.refresh, clip=self.clip
            )
        options = {"on_policy": self.on_policy if buffer is not None else 1.0}
        if self.name == "subtrajectory_balance":
            return SubTrajectoryBalance(
                energy, buffer, **options, decay=self.decay, partial_energy=self.partial_energy
            )
        options["time_steps"] = self.time_steps
        if self.name == "detailed_balance":
            return DetailedBalance(energy, buffer, **options, partial_energy=self.partial_energy)
        if self.name == "augmented_flow":
            return AugmentedFlow(energy, buffer, **options, weight=self.novelty)
        return {"trajectory_balance": TrajectoryBalance, "vargrad": VarGrad}[self.name](
            energy, buffer, **options
        )
