"""Mixed precision in which the network rounds, and nothing before it."""

from __future__ import annotations

from typing import Any

from lightning_fabric.plugins import MixedPrecision, Precision

from orbitwise.training.config import TrainConfig
from orbitwise.training.device import training_device


class _Bfloat16(MixedPrecision):
    """Fabric's, but noisy points come as they are: it would round them, and bfloat16 has eight bits
    for a place in space. Nor does it look into the batches that networks get."""

    def convert_input(self, data: Any) -> Any:
        return data


def precision_plugins(config: TrainConfig) -> list[Precision]:
    """For ``Fabric(plugins=...)``: none for 32 bits."""
    if config.precision == "32-true":
        return []
    return [_Bfloat16("bf16-mixed", training_device(config.accelerator))]
