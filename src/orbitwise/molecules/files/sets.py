"""Sets of molecules, each with its conformers: .npz archives and SDF files or folders, one bad
record at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from orbitwise.data.lines import lines_of
from orbitwise.data.physical import check_distances
from orbitwise.errors import InputError
from orbitwise.molecules.files.conformers import Graph, Record, npz_records, sdf_records
from orbitwise.molecules.files.physical import check_geometry
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.identity import identity, without_maps
from orbitwise.molecules.molecule import choose_isomer, embed, one_based, parse_smiles

Split = Literal["train", "val", "test"]
SPLITS = ("train", "val", "test")
_TOO_FAR = 4.0  # Å: bonds of conformers longer than this are a broken record


@dataclass(frozen=True)
class Conformers:
    """One molecule: ``mol`` sanitised, hydrogens as atoms, stereochemistry from the first
    conformer; ``positions_angstrom: (C, N, 3)`` float32, centred, all of one labelled handedness.
    ``where``: file and record. ``other_isomers``: conformers left out because they are another
    stereoisomer than the first."""

    mol: Chem.Mol
    positions_angstrom: np.ndarray
    smiles: str
    where: str
    split: Split
    other_isomers: int = 0

    def __len__(self) -> int:
        return len(self.positions_angstrom)

    @property
    def atoms(self) -> int:
        """Number of atoms, hydrogens included."""
        return self.positions_angstrom.shape[1]


@dataclass(frozen=True)
class ConformerSet:
    """``molecules`` in the order of the file, and the records left out, each in words."""

    molecules: tuple[Conformers, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.molecules)

    def split(self, name: Split) -> ConformerSet:
        """The molecules of one split."""
        return replace(self, molecules=tuple(m for m in self.molecules if m.split == name))

    def without(self, others: ConformerSet) -> ConformerSet:
        """Without the molecules of ``others``, their stereoisomers and isotopologues."""
        known = {identity(m.mol, exact=False) for m in others.molecules}
        kept = (m for m in self.molecules if identity(m.mol, exact=False) not in known)
        return replace(self, molecules=tuple(kept))


def read_conformer_sets(
    paths: Sequence[str | Path],
    *,
    splits: Sequence[Split] = SPLITS,
    max_atoms: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    shares: tuple[float, float] = (0.1, 0.1),
) -> ConformerSet:
    """Several files as one set, in which no molecule of a test or validation split is trained on.

    Arguments as in ``read_conformer_set``. A molecule that is held out in one file is taken out of
    the training molecules of all, its stereoisomers and isotopologues too; of one that stands in
    two records the conformers of the first are kept. What is left out so is named in ``skipped``.
    What is one molecule: ``molecules.identity``.
    """
    sets = [
        read_conformer_set(
            path, splits=SPLITS, max_atoms=max_atoms, skip_bad=skip_bad, seed=seed, shares=shares
        )
        for path in paths
    ]
    skipped = [line for found in sets for line in found.skipped]
    every = [(m, identity(m.mol, exact=False)) for found in sets for m in found.molecules]
    held: dict[str, Conformers] = {}
    for m, name in every:
        if name not in held or SPLITS.index(m.split) > SPLITS.index(held[name].split):
            held[name] = m
    kept: dict[str, Conformers] = {}
    for m, name in every:
        if m.split not in splits:
            continue
        if m.split != held[name].split:
            skipped.append(
                f"{m.where}: left out of {m.split}, it is held out for {held[name].split} in"
                f" {held[name].where}"
            )
        elif (one := kept.setdefault(identity(m.mol), m)) is not m:
            skipped.append(f"{m.where}: the same molecule as {one.where}, left out")
    return ConformerSet(tuple(kept.values()), tuple(skipped))


def read_conformer_set(
    path: str | Path,
    *,
    splits: Sequence[Split] = SPLITS,
    max_atoms: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    shares: tuple[float, float] = (0.1, 0.1),
) -> ConformerSet:
    """Molecules with their conformers from one ``.npz`` archive, an ``.sdf`` file or a folder of
    SDF files.

    An archive holds, molecule after molecule, ``smiles``, ``atomic_numbers``, ``bonds`` (atom pairs
    within the molecule) with ``bond_order`` (1.5 = aromatic), each cut by its ``*_offsets``, and
    ``positions`` in Å or ``positions_milliangstrom``, molecule by molecule, conformer by conformer;
    optionally ``formal_charge`` (else the SMILES gives orders and charges) and ``split``. Records
    of an SDF with the same atoms and bonds are the conformers of one molecule.

    ``splits``: what to return. A file without a split column is split by molecule: a hash of
    ``seed`` and the SMILES without stereochemistry decides, so the same molecule falls alike in
    every file; ``shares``: of ``val`` and ``test``. ``max_atoms``: larger molecules are left out,
    hydrogens counted. Conformers of another stereoisomer than the first are left out and counted.

    Raises ``InputError`` naming file and record for a record that cannot be used (not finite, one
    atom, several fragments, an unknown element, a valence that RDKit refuses, atoms on top of each
    other), unless ``skip_bad``: then it is left out and named in ``skipped``; always for a missing
    file or key, and where nothing is left.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".sdf", ".sd"))
        if not files:
            raise InputError(f"{path}: there is no .sdf file in this folder")
        records = (record for file in files for record in sdf_records(file, skip_bad))
    elif path.suffix.lower() == ".npz":
        records = npz_records(path, splits, max_atoms)
    elif path.suffix.lower() in (".sdf", ".sd"):
        records = sdf_records(path, skip_bad)
    else:
        raise InputError(
            f"{path}: cannot tell the format; give an .npz or .sdf file or a folder of SDF files"
        )

    molecules, skipped = [], []
    for record in records:
        try:
            made = record if isinstance(record, InputError) else _checked(record, seed, shares)
        except InputError as error:
            made = error
        if isinstance(made, InputError):
            if not skip_bad:
                raise made
            skipped.append(str(made))
        elif made.split in splits and (max_atoms is None or made.atoms <= max_atoms):
            molecules.append(made)

    if not molecules:
        what = f", nor of at most {max_atoms} atoms" if max_atoms else ""
        note = f" ({len(skipped)} records skipped; the first: {skipped[0]})" if skipped else ""
        raise InputError(
            f"{path}: there is no usable molecule of the splits {', '.join(splits)}{what}{note}"
        )
    return ConformerSet(tuple(molecules), tuple(skipped))


def _checked(record: Record, seed: int, shares: tuple[float, float]) -> Conformers:
    try:
        return _usable(record, seed, shares)
    except InputError as error:
        raise InputError(f"{record.where}: {error}") from error


def _usable(record: Record, seed: int, shares: tuple[float, float]) -> Conformers:
    x = np.asarray(record.positions, dtype=np.float64)
    if not len(x):
        raise InputError("it has no conformer")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all((1, 2))).argmax())
        raise InputError(f"a coordinate of conformer {bad + 1} is not a finite number")

    if x.shape[1] < 2:
        raise InputError("a single atom has no conformers")
    mol = record.mol
    if isinstance(mol, Graph):
        wrong = (mol.numbers < 1) | (mol.numbers > 118)
        if wrong.any():
            raise InputError(
                f"atom {int(wrong.argmax()) + 1} has atomic number"
                f" {int(mol.numbers[wrong.argmax()])}: no element"
            )
        mol = mol.build(record.smiles)

    if (fragments := len(Chem.GetMolFrags(mol))) > 1:
        raise InputError(f"it has {fragments} separate fragments; one connected molecule is needed")
    check_geometry(mol, x[0])
    for a in range(1, len(x)):
        try:
            check_distances(x[a])
        except InputError as error:
            raise InputError(f"conformer {a + 1}: {error}") from None
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()])
    length = np.linalg.norm(x[:, ends[:, 0]] - x[:, ends[:, 1]], axis=-1)
    if length.max() > _TOO_FAR:
        a, k = np.unravel_index(length.argmax(), length.shape)
        i, j = ends[k] + 1
        raise InputError(f"the bond {i}-{j} of conformer {a + 1} is {length.max():.1f} Å long")

    mol = _with_stereo(mol, x[0])
    found = relabel(mol, x)
    kept = found.positions[found.same_isomer]
    kept = (kept - kept.mean(1, keepdims=True)).astype(np.float32)
    smiles = Chem.MolToSmiles(Chem.RemoveHs(mol))
    split = record.split if record.split is not None else _drawn_split(mol, seed, shares)
    if split not in SPLITS:
        raise InputError(f"its split {split!r} is none of {', '.join(SPLITS)}")

    return Conformers(
        mol,
        positions_angstrom=kept,
        smiles=smiles,
        where=record.where,
        split=split,
        other_isomers=int((~found.same_isomer).sum()),
    )


def _with_stereo(mol: Chem.Mol, x: np.ndarray) -> Chem.Mol:
    """Sanitised, chirality and double bonds as in the geometry ``x: (N, 3)``."""
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    try:
        with BlockLogs():
            Chem.SanitizeMol(mol)
            mol = without_maps(mol)
    except ValueError as error:
        raise InputError(f"RDKit refuses it: {one_based(str(error))}") from error
    open_shells = [a for a in mol.GetAtoms() if a.GetNumRadicalElectrons()]
    missing = sum(a.GetTotalNumHs() for a in mol.GetAtoms())
    if open_shells or missing:
        what = (
            f"{missing} hydrogens are missing"
            if missing
            else f"atom {open_shells[0].GetIdx() + 1} is a radical"
        )
        raise InputError(f"{what}; conformers need every atom and closed shells")
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(x))
    mol.AddConformer(conformer, assignId=True)
    Chem.AssignStereochemistryFrom3D(mol)
    mol.RemoveAllConformers()
    return mol


def _drawn_split(mol: Chem.Mol, seed: int, shares: tuple[float, float]) -> Split:
    # not ``identity``: the splits of earlier runs stay as they are
    name = Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)
    u = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") / 2**64
    return "val" if u < shares[0] else "test" if u < sum(shares) else "train"


def read_smiles(path: str | Path, seed: int = 0) -> list[Conformers]:
    """Molecules from a file with one SMILES in each line (a name may follow), each with one RDKit
    embedding.

    Stereochemistry that is left open is chosen by the embedding, which also says which of two equal
    hydrogens is on which side. Raises ``InputError`` with the line of a SMILES that cannot be used.
    """
    found = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            mol = choose_isomer(parse_smiles(line.split()[0]), seed)
            x = embed(mol, 1, seed)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        smiles = Chem.MolToSmiles(Chem.RemoveHs(mol))
        x = (x - x.mean(1, keepdims=True)).astype(np.float32)
        found.append(Conformers(mol, x, smiles, f"{path}, line {number}", "test"))
    if not found:
        raise InputError(f"{path}: there is no SMILES in it")
    return found
