"""The objective of a sampler configuration by name: the loss on paths that balances the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from orbitwise.data.buffer import ReplayBuffer
from orbitwise.energies import Energy
from orbitwise.groups.base import Group
from orbitwise.objectives.paths.adjoint_matching import AdjointMatching
from orbitwise.objectives.paths.augmented_flow import AugmentedFlow
from orbitwise.objectives.paths.detailed_balance import DetailedBalance
from orbitwise.objectives.paths.maximum_likelihood import MaximumLikelihood
from orbitwise.objectives.paths.objective import PathObjective
from orbitwise.objectives.paths.reverse_kl import ReverseKL
from orbitwise.objectives.paths.subtrajectory_balance import SubTrajectoryBalance
from orbitwise.objectives.paths.trajectory_balance import TrajectoryBalance, VarGrad
from orbitwise.runs.choice import Choice, named


@dataclass(frozen=True)
class Source:
    """What an objective learns from: the ``energy``, a ``buffer`` of points that were found (None
    without a search) with the symmetry ``group`` of the energy, whether the ``forces`` there are
    used, and how many ``steps`` a path has."""

    energy: Energy
    buffer: ReplayBuffer | None
    group: Group | None
    forces: bool
    steps: int


def likelihood(source: Source) -> MaximumLikelihood:
    """Maximum likelihood of the points that were found."""
    return MaximumLikelihood(
        source.energy, source.buffer, source.group, forces=source.forces, steps=source.steps
    )


class ObjectiveChoice(Choice):
    """``flows``: whether it needs flows of inner states; ``learns_log_z``: whether log Z is a
    parameter that is trained."""

    flat: ClassVar = {
        "on_policy": 0.5,
        "time_steps": 10,
        "decay": 0.9,
        "partial_energy": False,
        "endpoints": 256,
        "refresh": 50,
        "clip": 1e3,
        "memory": 10_000,
        "novelty": 0.1,
    }
    flows: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = False

    @property
    def energies_on_the_way(self) -> bool:
        """Whether every state of a path is asked for its energy, not its end alone."""
        return False

    def own_paths(self, batch_size: int, steps: int) -> float:
        """About how many paths of the learner ``steps`` of training draw."""
        return float(batch_size * steps)

    def build(self, source: Source) -> PathObjective:
        raise NotImplementedError


class ReverseKLConfig(ObjectiveChoice):
    name: Literal["reverse_kl"] = "reverse_kl"

    def build(self, source: Source) -> ReverseKL:
        return ReverseKL(source.energy)


class MaximumLikelihoodConfig(ObjectiveChoice):
    name: Literal["maximum_likelihood"] = "maximum_likelihood"

    def own_paths(self, batch_size: int, steps: int) -> float:
        return 0.0

    def build(self, source: Source) -> MaximumLikelihood:
        return likelihood(source)


class AdjointMatchingConfig(ObjectiveChoice):
    """``endpoints`` drawn every ``refresh`` steps into a ``memory``; gradients longer than ``clip``
    are cut."""

    name: Literal["adjoint_matching"] = "adjoint_matching"
    endpoints: int = Field(256, ge=1)
    refresh: int = Field(50, ge=1)
    clip: float = Field(1e3, gt=0)
    memory: int = Field(10_000, ge=1)

    def own_paths(self, batch_size: int, steps: int) -> float:
        return self.endpoints * (steps / self.refresh)

    def build(self, source: Source) -> AdjointMatching:
        memory = ReplayBuffer(self.memory, source.energy.event_shape)
        return AdjointMatching(
            source.energy, memory, endpoints=self.endpoints, refresh=self.refresh, clip=self.clip
        )


class MixedPaths(ObjectiveChoice):
    """``on_policy`` share of paths; the others lead back from the buffer."""

    on_policy: float = Field(0.5, ge=0, le=1)

    def own_paths(self, batch_size: int, steps: int) -> float:
        return self.on_policy * batch_size * steps

    def share(self, source: Source) -> float:
        return 1.0 if source.buffer is None else self.on_policy


class SomeSteps(MixedPaths):
    """``time_steps`` per path get a gradient (null: all)."""

    time_steps: int | None = Field(10, ge=1)


class InnerFlows(MixedPaths):
    """Flows of the states on the way, with ``partial_energy`` of these states in them."""

    partial_energy: bool = False
    flows: ClassVar[bool] = True
    learns_log_z: ClassVar[bool] = True

    @property
    def energies_on_the_way(self) -> bool:
        return self.partial_energy


class SubTrajectoryBalanceConfig(InnerFlows):
    """``decay`` of the weight of long pieces."""

    name: Literal["subtrajectory_balance"] = "subtrajectory_balance"
    decay: float = Field(0.9, gt=0)

    def build(self, source: Source) -> SubTrajectoryBalance:
        return SubTrajectoryBalance(
            source.energy,
            source.buffer,
            on_policy=self.share(source),
            decay=self.decay,
            partial_energy=self.partial_energy,
        )


class DetailedBalanceConfig(SomeSteps, InnerFlows):
    name: Literal["detailed_balance"] = "detailed_balance"

    def build(self, source: Source) -> DetailedBalance:
        return DetailedBalance(
            source.energy,
            source.buffer,
            on_policy=self.share(source),
            time_steps=self.time_steps,
            partial_energy=self.partial_energy,
        )


class TrajectoryBalanceConfig(SomeSteps):
    name: Literal["trajectory_balance"] = "trajectory_balance"
    learns_log_z: ClassVar[bool] = True

    def build(self, source: Source) -> TrajectoryBalance:
        share = self.share(source)
        return TrajectoryBalance(
            source.energy, source.buffer, on_policy=share, time_steps=self.time_steps
        )


class VarGradConfig(SomeSteps):
    name: Literal["vargrad"] = "vargrad"

    def build(self, source: Source) -> VarGrad:
        share = self.share(source)
        return VarGrad(source.energy, source.buffer, on_policy=share, time_steps=self.time_steps)


class AugmentedFlowConfig(SomeSteps):
    """``novelty``: weight of the reward of what is new."""

    name: Literal["augmented_flow"] = "augmented_flow"
    novelty: float = Field(0.1, gt=0)
    learns_log_z: ClassVar[bool] = True

    def build(self, source: Source) -> AugmentedFlow:
        return AugmentedFlow(
            source.energy,
            source.buffer,
            on_policy=self.share(source),
            time_steps=self.time_steps,
            weight=self.novelty,
        )


ObjectiveConfig = Annotated[
    TrajectoryBalanceConfig
    | VarGradConfig
    | DetailedBalanceConfig
    | SubTrajectoryBalanceConfig
    | ReverseKLConfig
    | MaximumLikelihoodConfig
    | AugmentedFlowConfig
    | AdjointMatchingConfig,
    Field(discriminator="name"),
    BeforeValidator(named("vargrad")),
]
