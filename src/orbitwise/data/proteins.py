"""Backbones of protein chains: one point per residue, padded to one length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbitwise.errors import InputError

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"  # types 1 to 20; 0 is padding, 21 anything else
CA = 1  # of N, CA, C


@dataclass(frozen=True)
class Backbones:
    """``ca: (C, L, 3)`` positions of the Cα atoms in Å, float32, zero mean over real residues; ``types: (C, L)`` 1 to
    21 in the order of ``RESIDUES``; ``mask: (C, L)`` True = residue; ``names`` and whole ``lengths (C,)`` of the
    chains."""

    ca: Tensor
    types: Tensor
    mask: Tensor
    lengths: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ca)


def read_backbones(
    path: str | Path, split: str | None = None, *, longest: int = 64, shortest: int = 1, breaks: bool = False
) -> Backbones:
    """Chains of an ``.npz`` file: ``n_ca_c (residues, 3, 3)`` in Å, ``offsets (C + 1,)``, ``sequence``, ``chain_id``,
    and where they are there ``split`` and ``chain_breaks``.

    Longer chains are cut to their first ``longest`` residues, shorter ones padded; those with fewer than ``shortest``,
    and unless ``breaks`` those with a break in the chain, are left out. Raises ``InputError`` for a file that is
    missing or holds something else, and where no chain is left.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; say where the protein chains are: data=FILE.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not an .npz file of arrays ({error})") from None
    if missing := {"n_ca_c", "offsets", "sequence", "chain_id"} - arrays.keys():
        raise InputError(
            f"{path}: has no {', '.join(sorted(missing))}; found {', '.join(sorted(arrays)[:8])}"
        )
    offsets = arrays["offsets"].astype(np.int64)
    lengths = np.diff(offsets)
    keep = lengths >= shortest
    if split is not None:
        if "split" not in arrays:
            raise InputError(f"{path}: has no split, so its {split} chains cannot be told")
        keep &= arrays["split"] == split
    if not breaks and "chain_breaks" in arrays:
        keep &= arrays["chain_breaks"] == 0
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        raise InputError(f"{path}: no chain is left of split {split!r} with at least {shortest} residues")
    place = np.arange(longest)
    mask = place < lengths[chosen, None]
    index = np.where(mask, offsets[chosen, None] + place, offsets[chosen, None])
    ca = arrays["n_ca_c"][index, CA].astype(np.float64) * mask[..., None]
    ca -= ca.sum(1, keepdims=True) / mask.sum(1)[:, None, None]
    if not np.isfinite(ca).all():
        raise InputError(f"{path}: positions are not finite")
    letters = arrays["sequence"][chosen].astype(f"<U{longest}").view("<U1").reshape(len(chosen), -1)
    types = np.full(mask.shape, len(RESIDUES) + 1)
    for number, letter in enumerate(RESIDUES, 1):  # over the alphabet
        types[:, : letters.shape[1]][letters == letter] = number
    return Backbones(
        torch.from_numpy((ca * mask[..., None]).astype(np.float32)),
        torch.from_numpy(types * mask),
        torch.from_numpy(mask),
        torch.from_numpy(lengths[chosen]),
        tuple(arrays["chain_id"][chosen].tolist()),
    )
