"""Tensors on disk: whether they, and what their header tells, are what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

SEAL = "sha256"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its header, of one and the same file: the library opens
    it twice, between which another process may put a newer one in its place.

    Raises ``FileNotFoundError``, and what safetensors raises.
    """
    from safetensors import safe_open

    while True:
        before = _place(path)
        try:
            with safe_open(str(path), framework="pt") as file:
                told = file.metadata() or {}
                found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except Exception:
            if _place(path) == before:
                raise
            continue
        if _place(path) == before:
            return found, told


def _place(path: Path) -> tuple[int, int, int]:
    about = os.stat(path)
    return about.st_ino, about.st_mtime_ns, about.st_size


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
