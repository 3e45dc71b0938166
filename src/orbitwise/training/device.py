"""Where a network runs when nobody says where."""

from __future__ import annotations

import torch


def device_for(accelerator: str = "auto") -> str:
    """``cuda`` where there is one, unless the processor is asked for; ``cpu`` otherwise."""
    return "cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu"
