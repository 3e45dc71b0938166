"""Records of molecules with conformers, as files hold them, and files written from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem

from orbitwise.data.archive import Array, array_names, read_archive
from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.molecules.bonds import orders_from
from orbitwise.molecules.files.structures import read_sdf
from orbitwise.molecules.molecule import parse_smiles

_PLACES = ("positions", "positions_milliangstrom")
_SCHEMA = {
    "smiles": Array("U", "M"),
    "smiles_3d_first": Array("U", "M", optional=True),
    "split": Array("U", "M", optional=True),
    "atom_offsets": Array("i", "M+1"),
    "atomic_numbers": Array("i", "atoms"),
    "formal_charge": Array("i", "atoms", optional=True),
    "bond_offsets": Array("i", "M+1"),
    "bonds": Array("i", "pairs 2"),
    "bond_order": Array("f", "pairs", finite=True),
    "conformer_offsets": Array("i", "M+1"),
}
_ORDERS = {
    1.0: Chem.BondType.SINGLE,
    2.0: Chem.BondType.DOUBLE,
    3.0: Chem.BondType.TRIPLE,
    1.5: Chem.BondType.AROMATIC,
}


@dataclass(frozen=True)
class Record:
    """A record as read; ``mol`` is built on demand, so that what is not wanted costs nothing."""

    where: str
    smiles: str
    split: str | None
    positions: np.ndarray
    mol: Chem.Mol | Graph


@dataclass(frozen=True)
class Graph:
    """A molecule as arrays, made into an RDKit molecule by ``build``."""

    numbers: np.ndarray
    charges: np.ndarray | None
    bonds: np.ndarray
    orders: np.ndarray

    def build(self, smiles: str) -> Chem.Mol:
        """Without charges, the SMILES gives them and the bond orders."""
        plain = self.charges is None
        charges = np.zeros_like(self.numbers) if plain else self.charges
        mol = Chem.RWMol()
        for number, charge in zip(self.numbers.tolist(), charges.tolist(), strict=True):
            atom = Chem.Atom(number)
            atom.SetFormalCharge(charge)
            atom.SetNoImplicit(True)
            mol.AddAtom(atom)
        for (i, j), order in zip(self.bonds.tolist(), self.orders.tolist(), strict=True):
            if order not in _ORDERS or not (
                0 <= i < len(self.numbers) and 0 <= j < len(self.numbers) and i != j
            ):
                raise InputError(f"the bond {i + 1}-{j + 1} of order {order} is none")
            mol.AddBond(i, j, Chem.BondType.SINGLE if plain else _ORDERS[order])
            if order == 1.5 and not plain:
                for part in (
                    mol.GetAtomWithIdx(i),
                    mol.GetAtomWithIdx(j),
                    mol.GetBondBetweenAtoms(i, j),
                ):
                    part.SetIsAromatic(True)
        return orders_from(parse_smiles(smiles), mol.GetMol()) if plain else mol.GetMol()


def sdf_records(path: Path, skip_bad: bool) -> Iterator[Record | InputError]:
    """The molecules of an SDF file, then, with ``skip_bad``, what is wrong with the others."""
    skipped: list[str] | None = [] if skip_bad else None
    for frames in read_sdf(path, skipped=skipped):
        name = Chem.MolToSmiles(Chem.RemoveHs(frames.mol))
        yield Record(
            f"{frames.where[0]} ({name})", name, None, frames.positions_angstrom, frames.mol
        )
    yield from map(InputError, skipped or ())


def npz_records(path: Path, splits: Sequence[str], max_atoms: int | None) -> Iterator[Record]:
    """The molecules of an archive that are of these splits and sizes; ``InputError`` for one that
    is not whole."""
    names = array_names(path)
    place = next((key for key in _PLACES if key in names), _PLACES[0])
    data = read_archive(path, _SCHEMA | {place: Array("f", "points 3")})
    atoms, bonds, frames = (
        data[f"{k}_offsets"].astype(np.int64) for k in ("atom", "bond", "conformer")
    )
    if min(np.diff(part).min(initial=0) for part in (atoms, bonds, frames)) < 0:
        raise InputError(f"{path}: offsets must not fall")
    count = len(data["smiles"])
    sizes, conformers = np.diff(atoms), np.diff(frames)
    start = np.concatenate([[0], np.cumsum(sizes * conformers)])
    ends = (
        ("atom", atoms, len(data["atomic_numbers"])),
        ("bond", bonds, len(data["bonds"])),
        ("position", start, len(data[place])),
    )

    for name, offsets, length in ends:
        if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != length:
            raise InputError(
                f"{path}: the offsets of the {name}s give {len(offsets) - 1} molecules and"
                f" {offsets[-1]} {name}s; there are {count} and {length}"
            )

    scale = 1e-3 if place == "positions_milliangstrom" else 1.0
    split = data.get("split")
    for i in range(count):
        if (max_atoms is not None and sizes[i] > max_atoms) or (
            split is not None and split[i] not in splits
        ):
            continue
        a, b = slice(*atoms[i : i + 2]), slice(*bonds[i : i + 2])
        smiles = str(data.get("smiles_3d_first", data["smiles"])[i])
        charges = data["formal_charge"][a] if "formal_charge" in data else None
        yield Record(
            f"{path}, record {i + 1} ({smiles})",
            smiles,
            None if split is None else str(split[i]),
            data[place][start[i] : start[i + 1]].reshape(conformers[i], sizes[i], 3) * scale,
            Graph(
                data["atomic_numbers"][a].astype(int),
                charges,
                data["bonds"][b],
                data["bond_order"][b],
            ),
        )


def write_conformer_set(path: str | Path, molecules: Sequence) -> None:
    """Write molecules (``Conformers``) as an ``.npz`` archive that ``read_conformer_set`` reads."""
    numbers, charges, bonds, orders = [], [], [], []
    for m in molecules:  # ragged
        numbers += [a.GetAtomicNum() for a in m.mol.GetAtoms()]
        charges += [a.GetFormalCharge() for a in m.mol.GetAtoms()]
        bonds += [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in m.mol.GetBonds()]
        orders += [1.5 if b.GetIsAromatic() else b.GetBondTypeAsDouble() for b in m.mol.GetBonds()]
    offsets = lambda counts: np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)  # noqa: E731
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            smiles=np.array([m.smiles for m in molecules]),
            split=np.array([m.split for m in molecules]),
            atom_offsets=offsets([m.atoms for m in molecules]),
            atomic_numbers=np.array(numbers, dtype=np.uint8),
            formal_charge=np.array(charges, dtype=np.int8),
            bond_offsets=offsets([m.mol.GetNumBonds() for m in molecules]),
            bonds=np.array(bonds, dtype=np.int16),
            bond_order=np.array(orders, dtype=np.float32),
            conformer_offsets=offsets([len(m) for m in molecules]),
            positions=np.concatenate(
                [m.positions_angstrom.reshape(-1, 3) for m in molecules]
            ).astype("f4"),
        )


def write_conformer_sdf(path: str | Path, molecules: Sequence) -> None:
    """Write every conformer as an SDF record named by its SMILES, for other programs."""
    with replacing(path) as temporary:
        writer = Chem.SDWriter(str(temporary))
        for m in molecules:
            mol = Chem.Mol(m.mol)
            mol.SetProp("_Name", m.smiles)
            mol.RemoveAllConformers()
            mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()), assignId=True)
            mol.GetConformer().Set3D(True)
            for x in m.positions_angstrom:
                mol.GetConformer().SetPositions(x.astype(np.float64))
                writer.write(mol)
        writer.close()
