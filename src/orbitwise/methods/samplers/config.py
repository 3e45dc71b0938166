"""What a search-guided sampler is made of, and which of it a stage depends on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orbitwise.methods.samplers.evaluation import EvaluationConfig
from orbitwise.methods.samplers.objectives import ObjectiveConfig, VarGradConfig
from orbitwise.methods.samplers.parts import SamplerConfig
from orbitwise.methods.samplers.searches import ChainsConfig, SearchConfig
from orbitwise.methods.samplers.targets import EnergyConfig
from orbitwise.runs.choice import with_all_keys
from orbitwise.runs.config import Config, Seed
from orbitwise.training import TrainConfig


class NoveltyConfig(Config):
    """``weight`` of the bonus in kT (0: none); the predictor makes ``steps`` on points that the
    learner draws."""

    weight: float = Field(10.0, ge=0)
    steps: int = Field(500, ge=1)
    points: int = Field(2000, ge=1)


class SGDSConfig(Config):
    """``restart`` of the learner between rounds: ``full``, ``partial`` (the last layers) or
    ``none`` (fine-tuning). ``likelihood_steps`` or ``balance_steps`` 0 leave that phase out.
    ``forces``: gradients found by the search serve as a control variate of the likelihood."""

    energy: EnergyConfig
    sampler: SamplerConfig = SamplerConfig()
    search: SearchConfig = ChainsConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    objective: ObjectiveConfig = VarGradConfig()
    rounds: int = Field(1, ge=1, le=10)
    restart: Literal["full", "partial", "none"] = "full"
    priority: Literal["uniform", "rank", "reward"] = "uniform"
    buffer: int = Field(60_000, ge=1)
    forces: bool = True
    likelihood_steps: int = Field(3000, ge=0)
    balance_steps: int = Field(500, ge=0)
    likelihood: TrainConfig = TrainConfig(batch_size=256)
    balance: TrainConfig = TrainConfig(batch_size=128, learning_rate=2e-4)
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Seed = 0


LATER = {
    "search": {
        "sampler",
        "forces",
        "likelihood",
        "likelihood_steps",
        "objective",
        "balance",
        "balance_steps",
    },
    "likelihood": {"objective", "balance", "balance_steps"},
}


def stage_key(config: SGDSConfig, phase: str, number: int) -> dict:
    """The settings that a stage depends on: in the first round not those of later phases."""
    later = LATER.get(phase, set()) | {"novelty", "rounds", "restart"} if number == 1 else set()
    settings = with_all_keys(config)
    return {"method": "sgds"} | {
        k: v for k, v in settings.items() if k not in {"evaluation", *later}
    }
