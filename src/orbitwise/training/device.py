"""Where a network runs when nobody says where."""

from __future__ import annotations

import torch

from orbitwise.errors import InputError


def device_for(accelerator: str = "auto") -> str:
    """``cuda`` where there is one, unless the processor is asked for; ``cpu`` otherwise.

    Never ``mps``: raises ``InputError`` where it is asked for.
    """
    if accelerator == "mps":
        raise InputError(
            "accelerator: mps has no float64, which the posterior and the geometry need; use"
            " accelerator: cpu (or auto, which never chooses mps)"
        )
    return "cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu"


def training_device(accelerator: str) -> str:
    """As ``device_for``, but ``cuda`` that is asked for is not replaced: a training that was to
    have it should not begin without."""
    return accelerator if accelerator == "cuda" else device_for(accelerator)
