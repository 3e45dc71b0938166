"""Initial weights from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orbitwise.errors import InputError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Networks made within draw their weights from ``seed``; the caller's random stream stays as it
    was. Sizes that a network refuses (``ValueError``) are an ``InputError``."""
    with torch.random.fork_rng(devices=[]):  # torch initialises layers from its global stream
        torch.manual_seed(seed)
        try:
            yield
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"network: {error}") from error
