"""Backbones of protein chains: one chain as arrays, padded batches, and the ``.npz`` of many
chains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbitwise.data.archive import Array, read_archive
from orbitwise.data.physical import check_coordinates, check_distances, unit_guess
from orbitwise.errors import InputError

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"  # types 1 to 20; 0 is padding, 21 anything else
_ARRAYS = {
    "n_ca_c": Array("f", "M 3 3"),
    "offsets": Array("i", "C+1"),
    "sequence": Array("U", "C"),
    "chain_id": Array("U", "C"),
    "split": Array("U", "C", optional=True),
    "chain_breaks": Array("ifb", "C", optional=True),
}
CA = 1  # of N, CA, C
ATOMS = {"ca": ("CA",), "backbone": ("N", "CA", "C")}  # of a residue, by the mode of a model
LONGEST = 128  # residues that a model of backbones takes

CA_STEP = 3.8  # Å between neighbours of a trans chain
ONE_SITE = 0.1  # Å: atoms that lie nearer stand twice; what a crude model gives may clash


@dataclass(frozen=True)
class Chain:
    """The backbone of one chain.

    ``xyz: (R, A, 3)`` Å, A = 1 (Cα) or 3 (N, Cα, C); ``sequence`` of R letters (``X``: unknown);
    ``name`` as in the file it came from; ``split`` where that file has splits. Raises
    ``InputError`` for other shapes, no residue, or positions that are not finite.
    """

    xyz: np.ndarray
    sequence: str
    name: str = ""
    split: str = ""

    def __post_init__(self):
        where = f"chain {self.name}: " if self.name else "chain: "
        if (
            self.xyz.ndim != 3
            or self.xyz.shape[1] not in (1, 3)
            or self.xyz.shape[2] != 3
            or not len(self.xyz)
        ):
            raise InputError(
                f"{where}needs xyz (R, 1, 3) or (R, 3, 3) with at least one residue, got"
                f" {self.xyz.shape}"
            )
        if len(self.sequence) != len(self.xyz):
            raise InputError(
                f"{where}{len(self.xyz)} residues, but a sequence of {len(self.sequence)}"
            )
        if not np.isfinite(self.xyz).all():
            bad = int(np.flatnonzero(~np.isfinite(self.xyz).all((1, 2)))[0])
            raise InputError(f"{where}positions of residue {bad + 1} are not finite")

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True)
class ChainBatch:
    """Padded chains as points: ``x: (B, L·A, 3)`` Å, atoms of one residue beside each other, zero
    mean over real points; ``mask: (B, L·A)`` True = real; ``atoms`` A per residue."""

    x: Tensor
    mask: Tensor
    atoms: int

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> ChainBatch:
        """A part of the batch, without the padding that none of its chains needs."""
        mask = self.mask[index]
        width = max(self.atoms, int(mask.sum(-1).max())) if len(mask) else self.mask.shape[1]
        return ChainBatch(self.x[index][:, :width], mask[:, :width], self.atoms)

    def to(self, device: torch.device | str) -> ChainBatch:
        return ChainBatch(self.x.to(device), self.mask.to(device), self.atoms)

    @property
    def residues(self) -> Tensor:
        """``(B, L)`` True = real residue."""
        return self.mask[:, :: self.atoms]

    @property
    def lengths(self) -> Tensor:
        """Residues of each chain, ``(B,)``."""
        return self.residues.sum(-1)

    @property
    def by_residue(self) -> Tensor:
        """Positions ``(B, L, A, 3)``."""
        return self.x.unflatten(1, (-1, self.atoms))

    def chains(self, names: Sequence[str]) -> list[Chain]:
        """One ``Chain`` per item, its sequence not known."""
        rows = zip(
            self.by_residue.double().cpu().numpy(), self.lengths.tolist(), names, strict=True
        )
        return [Chain(x[:n], "X" * n, name) for x, n, name in rows]


def chain_batch(chains: Sequence[Chain], dtype: torch.dtype = torch.float32) -> ChainBatch:
    """A batch of chains of any lengths; raises ``InputError`` for none, or for Cα beside N-Cα-C
    chains."""
    if not chains:
        raise InputError("there are no chains to make a batch of")
    atoms = chains[0].xyz.shape[1]
    if odd := [c.name for c in chains if c.xyz.shape[1] != atoms]:
        raise InputError(
            f"chain {odd[0]}: {chains[0].name} has {atoms} atoms per residue, this one has not"
        )
    x = np.zeros((len(chains), max(map(len, chains)) * atoms, 3))
    for row, chain in zip(x, chains, strict=True):  # ragged input
        row[: len(chain) * atoms] = chain.xyz.reshape(-1, 3) - chain.xyz.mean((0, 1))
    count = torch.tensor([len(c) * atoms for c in chains])
    return ChainBatch(
        torch.from_numpy(x).to(dtype), torch.arange(x.shape[1]) < count[:, None], atoms
    )


def blank_batch(lengths: Tensor, atoms: int) -> ChainBatch:
    """Chains of these ``lengths: (B,)`` with all atoms at the origin: what a sampler is told."""
    mask = (
        torch.arange(int(lengths.max()) * atoms, device=lengths.device) < (lengths * atoms)[:, None]
    )
    return ChainBatch(torch.zeros(*mask.shape, 3, device=lengths.device), mask, atoms)


@dataclass(frozen=True)
class Backbones:
    """``ca: (C, L, 3)`` positions of the Cα atoms in Å, float32, zero mean over real residues;
    ``types: (C, L)`` 1 to 21 in the order of ``RESIDUES``; ``mask: (C, L)`` True = residue;
    ``names`` and whole ``lengths (C,)`` of the chains."""

    ca: Tensor
    types: Tensor
    mask: Tensor
    lengths: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ca)


def read_backbones(
    path: str | Path,
    split: str | None = None,
    *,
    longest: int = 64,
    shortest: int = 1,
    breaks: bool = False,
) -> Backbones:
    """Cα windows of the chains of an ``.npz`` file (``read_npz``), of one ``split``.

    Longer chains are cut to their first ``longest`` residues, shorter ones padded; those with fewer
    than ``shortest``, and unless ``breaks`` those with a break in the chain, are left out. Raises
    ``InputError`` for a file that is missing or holds something else, and where no chain is left.
    """
    file = read_npz(path, "ca", breaks=breaks)
    if split is not None and not any(c.split for c in file.chains):
        raise InputError(f"{path}: has no split, so its {split} chains cannot be told")
    chosen = [c for c in file.chains if len(c) >= shortest and (split is None or c.split == split)]
    if not chosen:
        raise InputError(
            f"{path}: no chain is left of split {split!r} with at least {shortest} residues"
        )
    batch = chain_batch([Chain(c.xyz[:longest], c.sequence[:longest], c.name) for c in chosen])
    pad = longest - batch.mask.shape[1]
    place = {letter: number for number, letter in enumerate(RESIDUES, 1)}
    types = [
        [place.get(letter, len(RESIDUES) + 1) for letter in c.sequence[:longest]] for c in chosen
    ]
    return Backbones(
        torch.nn.functional.pad(batch.x, (0, 0, 0, pad)),
        torch.tensor([row + [0] * (longest - len(row)) for row in types]),
        torch.nn.functional.pad(batch.mask, (0, pad)),
        torch.tensor([len(c) for c in chosen]),
        tuple(c.name for c in chosen),
    )


@dataclass(frozen=True)
class ChainFile:
    """What was read: ``chains``; ``skipped``: why a chain was left out, one line each; ``notes``:
    what was decided on the way (the model taken, alternative locations)."""

    chains: list[Chain]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _check_chain(n_ca_c: np.ndarray) -> None:
    """``InputError`` where ``(residues, 3, 3)`` in Å is no chain's."""
    check_coordinates(n_ca_c.reshape(-1, 3))
    step = np.linalg.norm(np.diff(n_ca_c[:, CA], axis=0), axis=-1)
    if len(step) and (unit := unit_guess(float(np.median(step)) / CA_STEP)):
        raise InputError(f"Cα atoms of neighbours lie {np.median(step):.3g} Å apart{unit}")
    check_distances(n_ca_c.reshape(-1, 3), nearest=ONE_SITE)


def read_npz(path: str | Path, mode: str = "backbone", *, breaks: bool = False) -> ChainFile:
    """Chains of an ``.npz`` file: ``n_ca_c (residues, 3, 3)`` in Å, ``offsets (C + 1,)``,
    ``sequence``, ``chain_id``, and where they are there ``split`` and ``chain_breaks``.

    ``mode``: a key of ``ATOMS``. Chains that the file marks as broken are skipped unless
    ``breaks``. Raises ``InputError`` for a file that is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; say where the protein chains are: data=FILE.npz"
        )

    arrays = read_archive(path, _ARRAYS)
    offsets, count = arrays["offsets"].astype(np.int64), len(arrays["chain_id"])
    xyz = arrays["n_ca_c"].astype(np.float64)
    if offsets[0] != 0 or offsets[-1] != len(xyz) or (np.diff(offsets) < 1).any():
        raise InputError(f"{path}: its offsets do not cut {len(xyz)} residues into {count} chains")
    broken = arrays.get("chain_breaks", np.zeros(count)) > 0
    kept = np.flatnonzero(~broken | breaks)
    atoms = slice(CA, CA + 1) if mode == "ca" else slice(0, 3)
    names, splits = arrays["chain_id"].tolist(), arrays.get("split", np.full(count, "")).tolist()
    for i in kept:
        if not np.isfinite(xyz[offsets[i] : offsets[i + 1]]).all():
            continue  # the chain says which residue
        try:
            _check_chain(xyz[offsets[i] : offsets[i + 1]])
        except InputError as error:
            raise InputError(f"{path}, chain {names[i]}: {error}") from None
    try:
        chains = [
            Chain(
                xyz[offsets[i] : offsets[i + 1], atoms],
                str(arrays["sequence"][i]),
                names[i],
                splits[i],
            )
            for i in kept
        ]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

    left = np.flatnonzero(broken) if not breaks else ()
    return ChainFile(
        chains,
        tuple(f"{path}, chain {names[i]}: the file marks a break in the chain" for i in left),
    )
