"""Settings of a training run, and the learning rate they give at every step."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer

# settings that leave the result as it is, so that a resumed run may change them
NEUTRAL = frozenset(
    {"checkpoint_every", "log_every", "accelerator", "devices", "strategy", "max_nonfinite"}
)


class TrainConfig(BaseModel):
    """Settings of a training run. ``warmup``, ``*_every`` and the schedule count steps.

    ``shards``: parts a batch is cut into (None: one per process). Give it to get the same result on
    any number of processes that divides it, or more than one per process to save memory.
    ``clip_norm`` None: no clipping. ``optimiser``: AdamW, Muon for the weights of linear layers
    with AdamW for the rest, or SGD with momentum 0.9. ``precision="bf16-mixed"`` is meant for GPUs,
    and for processors with instructions for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(5000, ge=1)
    batch_size: int = Field(128, ge=1)
    shards: int | None = Field(None, ge=1)
    optimiser: Literal["adamw", "muon", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    checkpoint_every: int = Field(500, ge=1)
    log_every: int = Field(50, ge=1)
    max_nonfinite: int = Field(50, ge=1)
    seed: int = Field(0, ge=0, le=2_000_000_000)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1)
    strategy: str = "auto"

    @model_serializer(mode="wrap")
    def _as_before(self, dump) -> dict[str, Any]:
        """The usual optimiser is not written down: runs begun before there was a choice can still
        be resumed."""
        values = dump(self)
        if values.get("optimiser") == "adamw":
            del values["optimiser"]
        return values


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """The rate of step ``step`` (0, 1, ...): linear warm-up, then constant or half a cosine down to
    1 %."""
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "constant":
        return config.learning_rate * warm
    done = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return (
        config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
    )
