"""The one training loop, with its checkpoints, averaged weights, logs and progress."""

from orbitwise.training.checkpoint import (
    Checkpoint,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from orbitwise.training.config import TrainConfig, learning_rate_at
from orbitwise.training.log import Metrics
from orbitwise.training.loop import DivergedError, Moment, TrainResult, estimate_step_seconds, train
from orbitwise.training.progress import Progress, ProgressBar

__all__ = [
    "Checkpoint",
    "DivergedError",
    "Metrics",
    "Moment",
    "Progress",
    "ProgressBar",
    "TrainConfig",
    "TrainResult",
    "estimate_step_seconds",
    "learning_rate_at",
    "load_weights",
    "read_checkpoint",
    "train",
    "write_checkpoint",
]
