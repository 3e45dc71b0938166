"""Tensors on disk: whether they, and what their header tells, are what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

SEAL = "sha256"


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, the order of the names aside."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def sealed(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> dict[str, str]:
    """``told``, a header for a file of ``tensors``, with the digest of both."""
    return {**told, SEAL: _seal(tensors, told)}


def intact(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> bool:
    """Whether both are as ``sealed`` left them; a file of an earlier version has no digest."""
    return told.get(SEAL) in (None, _seal(tensors, told))


def _seal(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> str:
    rest = sorted((key, value) for key, value in told.items() if key != SEAL)
    return hashlib.sha256((tensor_digest(tensors) + json.dumps(rest)).encode()).hexdigest()
