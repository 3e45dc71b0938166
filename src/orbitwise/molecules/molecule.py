"""Molecules: SMILES to RDKit to batches of points, with errors a chemist can act on."""

from __future__ import annotations

import re
from typing import NoReturn

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from orbitwise.data.batch import PointBatch
from orbitwise.errors import InputError
from orbitwise.molecules.etkdg import as_conformer, captured_rdkit_log, run_etkdg, with_stereo_of
from orbitwise.molecules.handedness import relabel
from orbitwise.molecules.identity import without_maps
from orbitwise.molecules.stereo.open import unspecified_stereo

MAX_ATOMS = 250
_ATTEMPTS = 8


def parse_smiles(smiles: str, *, max_atoms: int = MAX_ATOMS) -> Chem.Mol:
    """The molecule of a SMILES with explicit hydrogens, stereochemistry as written, without the
    numbers of atom maps.

    Raises ``InputError`` for a SMILES that cannot be read (with the place and RDKit's reason),
    several fragments, a lone atom or ion, a placeholder atom, an open shell, or more than
    ``max_atoms`` atoms with hydrogens.
    """
    text = smiles.strip()
    if not text:
        raise InputError("the SMILES is empty")
    if not text.isascii():
        raise InputError(f"the SMILES {text!r} has a character that no SMILES has")
    if re.search(r"\s", text):
        raise InputError(f"the SMILES {text!r} has a blank inside; give one SMILES and no name")
    with captured_rdkit_log() as log:
        mol = Chem.MolFromSmiles(text, sanitize=False)
        problems = [] if mol is None else [p.Message() for p in Chem.DetectChemistryProblems(mol)]

    if mol is None:
        raise InputError(f"cannot read the SMILES {text!r}: {_syntax_reason(log)}")
    if problems:
        raise InputError(
            f"the SMILES {text!r} is not a possible molecule: {one_based(problems[0])}"
        )

    with captured_rdkit_log():
        mol = Chem.MolFromSmiles(text)
        if any(atom.GetAtomMapNum() for atom in mol.GetAtoms()):
            mol = Chem.RemoveHs(without_maps(mol))
    _check_contents(mol, text)
    mol = Chem.AddHs(mol)
    if mol.GetNumAtoms() == 1:
        raise InputError(f"the SMILES {text!r} is a single atom; it has no conformers")
    if mol.GetNumAtoms() > max_atoms:
        raise InputError(
            f"the molecule has {mol.GetNumAtoms()} atoms with hydrogens; the limit is {max_atoms}."
            " Cut it into parts, or use molecular dynamics for a molecule of this size"
        )
    return mol


def _syntax_reason(log: list[str]) -> str:
    place = next(
        (re.search(r"position (\d+)", line) for line in log if "around position" in line), None
    )
    reason = next(
        (line for line in log if "SMILES Parse Error" in line and "around position" not in line), ""
    )
    reason = re.sub(r"^SMILES Parse Error: ", "", reason)
    reason = re.split(r" while parsing| for input", reason)[0] or "not a SMILES"
    return reason + (f" around character {place.group(1)}" if place else "")


def one_based(message: str) -> str:
    """RDKit counts atoms from 0; people count from 1."""
    numbered = lambda match: match.group(0)[: -len(match.group(1))] + str(int(match.group(1)) + 1)  # noqa: E731
    message = re.sub(r"atom #? ?(\d+)", numbered, message)
    head, sep, tail = message.partition("Unkekulized atoms:")
    return head + sep + " ".join(["", *(str(int(k) + 1) for k in tail.split())]) if sep else message


def _check_contents(mol: Chem.Mol, text: str) -> None:
    parts = Chem.GetMolFrags(mol, asMols=True)
    if len(parts) > 1:
        names = ", ".join(Chem.MolToSmiles(part) for part in parts)
        raise InputError(
            f"the SMILES {text!r} has {len(parts)} separate fragments ({names}); give one molecule"
            " at a time"
        )
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 0:
            raise InputError(
                f"the SMILES {text!r} has a placeholder (atom {atom.GetIdx() + 1}); name every"
                " element"
            )
    if mol.GetNumAtoms() == 1 and mol.GetAtomWithIdx(0).GetTotalNumHs() == 0:
        atom = mol.GetAtomWithIdx(0)
        kind = "ion" if atom.GetFormalCharge() else "atom"
        raise InputError(f"the SMILES {text!r} is a lone {kind}; it has no conformers")
    for atom in mol.GetAtoms():
        if unpaired := atom.GetNumRadicalElectrons():
            _refuse_radical(
                text,
                f"atom {atom.GetIdx() + 1}, {atom.GetSymbol()}, has {unpaired} unpaired"
                f" electron{'s' if unpaired > 1 else ''}",
            )
    if mol.GetNumAtoms() == 2 and all(_is_bare_chalcogen(atom) for atom in mol.GetAtoms()):
        _refuse_radical(text, "two unpaired electrons, which its bonds do not show")


def _is_bare_chalcogen(atom: Chem.Atom) -> bool:
    """As in O2, S2 and SO, whose ground states are triplets."""
    bare = not atom.GetTotalNumHs() and not atom.GetFormalCharge()
    return atom.GetAtomicNum() in (8, 16, 34, 52) and bare


def _refuse_radical(text: str, reason: str) -> NoReturn:
    raise InputError(
        f"the SMILES {text!r} is a radical ({reason}); only closed shells have parameters"
    )


def choose_isomer(mol: Chem.Mol, seed: int = 0) -> Chem.Mol:
    """A copy of ``mol`` with every open stereocentre and double bond fixed as one embedding has
    it."""
    if not unspecified_stereo(mol):
        return Chem.Mol(mol)
    return with_stereo_of(mol, run_etkdg(mol, 1, seed)[0])


def embed(mol: Chem.Mol, n: int, seed: int = 0) -> np.ndarray:
    """``n`` ETKDGv3 embeddings ``(n, N, 3)`` in Å, float64, all of one labelled handedness.

    ``mol`` has explicit hydrogens. Open stereochemistry is fixed by ``choose_isomer`` with the same
    seed, and equivalent atoms (the hydrogens of a CH2, the methyls of an isopropyl) are renumbered
    as in the first embedding, so that continuous motions join all of them. Raises ``InputError``
    when RDKit finds no geometry.
    """
    mol = choose_isomer(mol, seed)
    kept, seen = np.empty((0, mol.GetNumAtoms(), 3)), 0
    for attempt in range(_ATTEMPTS):
        missing = n - len(kept)
        if missing <= 0:
            break
        new = run_etkdg(mol, missing if attempt == 0 else 2 * missing, seed + 7919 * attempt)
        result = relabel(mol, new, kept[0] if len(kept) else new[0])
        kept = np.concatenate([kept, result.positions[result.same_isomer]])[:n]
        seen += len(new)
    if len(kept) < n:
        name = Chem.MolToSmiles(Chem.RemoveHs(mol))
        if len(kept) == seen:
            raise InputError(
                f"RDKit (ETKDGv3) embeds {name} {seen} times where {n} are needed; it may be too"
                " crowded"
            )
        raise InputError(
            f"only {len(kept)} of {seen} embeddings of {name} have one handedness, where {n} are"
            " needed; the molecule has isomers that its SMILES cannot tell apart"
        )
    return kept


def etkdg(mol: Chem.Mol, n: int, seed: int = 0) -> np.ndarray:
    """``n`` embeddings ``(n, N, 3)`` in Å by RDKit's ETKDGv3 as they come, for comparison with it.

    Fails to embed now and then; those are drawn again with another seed. Raises ``InputError`` when
    RDKit finds no geometry, or far too few.
    """
    found = [run_etkdg(mol, n, seed)]
    for attempt in range(1, _ATTEMPTS):
        if (missing := n - sum(map(len, found))) <= 0:
            break
        found.append(run_etkdg(mol, missing, seed + 7919 * attempt))
    every = np.concatenate(found)[:n]
    if len(every) < n:
        raise InputError(
            f"RDKit embeds {Chem.MolToSmiles(Chem.RemoveHs(mol))} {len(every)} times of {n}"
        )
    return every


def with_conformers(mol: Chem.Mol, positions_angstrom: np.ndarray) -> Chem.Mol:
    """A copy of ``mol`` with the frames ``(F, N, 3)`` as its conformers."""
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    for x in positions_angstrom:
        mol.AddConformer(as_conformer(x), assignId=True)
    return mol


def bond_orders(mol: Chem.Mol) -> Tensor:
    """``(N, N)`` long: 0 none, 1, 2, 3, and 4 for aromatic; dative and other kinds count as
    single."""
    codes = {Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    orders = torch.zeros(mol.GetNumAtoms(), mol.GetNumAtoms(), dtype=torch.long)
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        orders[i, j] = orders[j, i] = codes.get(bond.GetBondType(), 1)
    return orders


def to_batch(
    mol: Chem.Mol, positions_angstrom: np.ndarray | Tensor, *, dtype: torch.dtype | None = None
) -> PointBatch:
    """Frames ``(F, N, 3)`` of one molecule as a batch; labels are shared views, not copies."""
    x = torch.as_tensor(positions_angstrom, dtype=dtype or torch.get_default_dtype())
    if x.ndim != 3 or x.shape[1:] != (mol.GetNumAtoms(), 3):
        raise InputError(
            f"positions have shape {tuple(x.shape)}, expected (frames, {mol.GetNumAtoms()}, 3)"
        )
    species = torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()], device=x.device)
    frames, atoms = x.shape[:2]
    return PointBatch(
        x=x,
        species=species.expand(frames, atoms),
        bonds=bond_orders(mol).to(x.device).expand(frames, atoms, atoms),
        mask=torch.ones(atoms, dtype=torch.bool, device=x.device).expand(frames, atoms),
    )


def from_batch(batch: PointBatch, mol: Chem.Mol) -> Chem.Mol:
    """``mol`` with the batch's points as its conformers; raises ``InputError`` where the elements
    differ."""
    species = torch.tensor([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    if (
        batch.species.shape[1:] != species.shape
        or (batch.species.cpu() != species).any()
        or not batch.mask.all()
    ):
        raise InputError(
            f"the batch does not hold frames of {Chem.MolToSmiles(Chem.RemoveHs(mol))} in its atom"
            " order"
        )
    return with_conformers(mol, batch.x.detach().cpu().double().numpy())
