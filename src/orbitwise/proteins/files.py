"""PDB and mmCIF files to and from backbones, with errors that name file, chain and residue.

What is decided here: the first model of a file is read; of alternative locations the one with the
highest occupancy in its residue (the first of equals); selenomethionine is methionine. The first
two are said in ``ChainFile.notes``. Waters, ligands and nucleic acids are no part of a chain.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from orbitwise.data.folder import replacing
from orbitwise.data.lines import lines_of, text_of
from orbitwise.data.physical import check_coordinates, unit_guess
from orbitwise.errors import InputError
from orbitwise.proteins.chain import ATOMS, Chain, ChainFile, read_npz

PDB, MMCIF = (".pdb", ".ent"), (".cif", ".mmcif", ".bcif")
BOND, STEP = (
    1.8,
    4.2,
)  # Å; a longer C-N bond, or where those atoms are not there a longer Cα-Cα step, is a break
SHORT, LONG = 0.9, 2.2  # Å, between the atoms of BONDS
BONDS = {("N", "CA"): 1.46, ("CA", "C"): 1.52}  # Å, of a residue
STANDARD = {
    "ALA": "A",
    "ARG": "R",
    "ASN": "N",
    "ASP": "D",
    "CYS": "C",
    "GLN": "Q",
    "GLU": "E",
    "GLY": "G",
    "HIS": "H",
    "ILE": "I",
    "LEU": "L",
    "LYS": "K",
    "MET": "M",
    "PHE": "F",
    "PRO": "P",
    "SER": "S",
    "THR": "T",
    "TRP": "W",
    "TYR": "Y",
    "VAL": "V",
    "MSE": "M",
}
# what force fields call the protonation states and bridges of the twenty
STATES = {
    "H": ("HIE", "HID", "HIP", "HSD", "HSE", "HSP"),
    "C": ("CYX", "CYM"),
    "D": ("ASH", "ASPP"),
    "E": ("GLH", "GLUP"),
    "K": ("LYN", "LSN"),
    "R": ("ARN",),
    "Y": ("TYM",),
}
LETTERS = STANDARD | {name: letter for letter, names in STATES.items() for name in names}
CAPS = ("ACE", "FOR", "NME", "NMA", "NH2")  # ends that are no residues
SKIP = "mend it, or leave such chains out with skip_bad=true"


def read_chains(
    path: str | Path, mode: str = "ca", *, skip_bad: bool = False, breaks: bool = False
) -> ChainFile:
    """The chains of an ``.npz`` (``data.proteins``), of a PDB or mmCIF file (.pdb, .ent, .cif,
    .mmcif, .bcif), or of all such files in a folder.

    ``mode``: a key of ``ATOMS``: Cα alone, or N, Cα and C. Raises ``InputError`` naming file, chain
    and residue for a chain break, a missing backbone atom, a residue that is not one of the twenty,
    a file without protein or one that cannot be read; with ``skip_bad`` that chain (or file) is
    left out instead and named in ``skipped``. ``breaks``: a chain may have breaks.
    ``MissingExtraError`` without biotite.
    """
    if mode not in ATOMS:
        raise InputError(f"unknown mode {mode!r}; use one of {', '.join(ATOMS)}")
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return read_npz(path, mode, breaks=breaks)
    if not path.exists():
        raise InputError(
            f"{path}: there is no such file or folder; say where the protein chains are: data=PATH"
        )

    files = (
        sorted(p for p in path.iterdir() if p.suffix.lower() in PDB + MMCIF)
        if path.is_dir()
        else [path]
    )
    if not files:
        raise InputError(f"{path}: a folder without a {', '.join(PDB + MMCIF)} file")
    chains, skipped, notes = [], [], []
    for file in files:
        try:
            found = _of_file(file, mode, skip_bad, breaks)
        except InputError as error:
            if not (skip_bad and path.is_dir()):
                raise
            skipped.append(str(error))
            continue
        chains += found.chains
        skipped += found.skipped
        notes += found.notes

    if not chains:
        raise InputError(
            f"{path}: no chain is left; {len(skipped)} were skipped, the first: {skipped[0]}"
        )
    return ChainFile(chains, tuple(skipped), tuple(notes))


def write_pdb(path: str | Path, chain: Chain) -> Path:
    """One chain as a PDB file; a residue of unknown type is written as glycine."""
    from biotite import structure
    from biotite.structure.io.pdb import PDBFile

    names = {letter: name for name, letter in STANDARD.items() if name != "MSE"}
    count, atoms = chain.xyz.shape[:2]
    array = structure.AtomArray(count * atoms)
    array.coord = chain.xyz.reshape(-1, 3).astype(np.float32)
    array.chain_id[:] = "A"
    array.res_id[:] = np.repeat(np.arange(1, count + 1), atoms)
    array.res_name[:] = np.repeat([names.get(letter, "GLY") for letter in chain.sequence], atoms)
    array.atom_name[:] = np.tile(ATOMS["ca" if atoms == 1 else "backbone"], count)
    array.element[:] = np.char.replace(array.atom_name.astype("U2"), "CA", "C")
    file = PDBFile()
    file.set_structure(array)
    with replacing(path) as temporary:
        file.write(str(temporary))
    return Path(path)


@dataclass
class _Residue:
    """``places``: alternative location -> atom -> position; ``""`` is what has none. ``weight``:
    its occupancy."""

    number: str
    hetero: bool
    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    weight: dict[str, float] = field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """The alternative location of the highest occupancy."""
        others = [place for place in self.places if place]
        return max(others, key=lambda place: self.weight[place]) if others else ""

    @property
    def name(self) -> str:
        return self.names.get(self.chosen) or self.names.get("", "")

    @property
    def atoms(self) -> dict[str, np.ndarray]:
        return self.places.get("", {}) | self.places.get(self.chosen, {})

    def __str__(self) -> str:
        return f"residue {self.name} {self.number}"


def _of_file(path: Path, mode: str, skip_bad: bool, breaks: bool) -> ChainFile:
    array, models = _read(path)
    by_part = {part: _polymer(found) for part, found in _residues(array).items()}
    by_chain = _named({part: found for part, found in by_part.items() if found})
    if not by_chain:
        raise InputError(f"{path}: there is no protein in it ({array.array_length()} atoms)")
    notes = [f"{path}: {models} models, the first is read"] if models > 1 else []
    if more := [name for name in by_chain if "-" in name]:
        notes.append(
            f"{path}: residue numbers repeat, or chains are ended by TER or told apart by their"
            f" label alone; read as chains of their own: {', '.join(more)} (frames of one chain"
            " need MODEL records)"
        )
    chains, skipped = [], []
    for name, residues in by_chain.items():
        where = f"{path}, chain {name or '(no name)'}"
        if problem := next(_problems(residues, mode, breaks), None):
            if not skip_bad:
                raise InputError(f"{where}, {problem}; {SKIP}")
            skipped.append(f"{where}, {problem}")
            continue
        if moved := [r for r in residues if len(r.places) > 1]:
            others = "" if len(moved) == 1 else f" and {len(moved) - 1} more"
            notes.append(
                f"{where}, {moved[0]}{others}: alternative locations, the one of highest occupancy"
                " is read"
            )
        xyz = np.array([[r.atoms[a] for a in ATOMS[mode]] for r in residues], dtype=np.float64)
        sequence = "".join(LETTERS[r.name] for r in residues)
        try:
            check_coordinates(xyz.reshape(-1, 3))
            chains.append(Chain(xyz, sequence, f"{path.stem}_{name}" if name else path.stem))
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{where}: {error}; {SKIP}") from None
            skipped.append(f"{where}: {error}")
    return ChainFile(chains, tuple(skipped), tuple(notes))


def _problems(residues: list[_Residue], mode: str, breaks: bool) -> Iterator[str]:
    """What makes a chain unusable, in the order of its residues; with ``breaks`` bonds of a wrong
    length are breaks, unless a unit explains them all."""
    bonds_count = not breaks or (len(units := _units(residues)) == 1 and "" not in units)
    for before, residue in zip([None, *residues], residues, strict=False):
        if residue.name not in LETTERS:
            yield f"{residue}: not one of the twenty amino acids"
        if missing := [a for a in ATOMS[mode] if a not in residue.atoms]:
            yield f"{residue}: has no {', '.join(missing)} atom"
        for (first, second), length in _bonds(residue):
            if bonds_count and not SHORT <= length <= LONG:
                unit = unit_guess(length / BONDS[first, second])
                yield f"{residue}: {second} is {length:.4g} Å from its {first}{unit}"
        if not breaks and before is not None and (gap := _gap(before, residue)) is not None:
            yield f"{residue}: the chain is broken before it ({gap} from {before})"


def _bonds(residue: _Residue) -> Iterator[tuple[tuple[str, str], float]]:
    """The bonds of a residue whose atoms are there, with their lengths in Å."""
    for first, second in BONDS:
        if first in residue.atoms and second in residue.atoms:
            apart = residue.atoms[first] - residue.atoms[second]
            yield (first, second), float(np.linalg.norm(apart))


def _units(residues: list[_Residue]) -> set[str]:
    """What ``unit_guess`` says of all bonds but the shortest and the longest tenth."""
    ratios = [length / BONDS[bond] for residue in residues for bond, length in _bonds(residue)]
    return {unit_guess(ratio) for ratio in np.quantile(ratios, [0.1, 0.9])} if ratios else set()


def _gap(before: _Residue, residue: _Residue) -> str | None:
    """The distance in words where two residues are not bonded."""
    for first, second, longest in (("C", "N", BOND), ("CA", "CA", STEP)):
        a, b = before.atoms.get(first), residue.atoms.get(second)
        if a is not None and b is not None:
            distance = float(np.linalg.norm(a - b))
            return None if distance <= longest else f"{second} is {distance:.1f} Å away"
    return None


def _polymer(residues: list[_Residue]) -> list[_Residue]:
    """Without free ligands: a HETATM residue belongs to the chain only if it is bonded to a
    neighbour in the file."""
    kept = []
    for i, residue in enumerate(residues):
        beside = [*residues[max(0, i - 1) : i], residue, *residues[i + 1 : i + 2]]
        bonded = any(_gap(a, b) is None for a, b in pairwise(beside))
        if not residue.hetero or bonded:
            kept.append(residue)
    return kept


def _named(by_part: dict[tuple[str, str], list[_Residue]]) -> dict[str, list[_Residue]]:
    """By the name of the chain: the first part of that name has it, the others (``A-2``) say which
    they are."""
    found: dict[str, list[_Residue]] = {}
    for (chain, part), residues in by_part.items():
        found[chain if chain not in found else f"{chain}-{part}"] = residues
    return found


def _residues(array: Any) -> dict[tuple[str, str], list[_Residue]]:
    """Amino acids by chain and part of it (another molecule of that name), in the order of the
    file, with their backbone atoms."""
    from biotite import structure

    backbone = np.isin(array.atom_name, ATOMS["backbone"]) & (
        array.element != "CA"
    )  # calcium is no Cα
    amino = structure.filter_amino_acids(array) | ~array.hetero
    amino &= ~np.isin(array.res_name, CAPS)
    found: dict[tuple[str, str], dict[str, _Residue]] = {}
    for i in np.flatnonzero(backbone & amino):
        chain = found.setdefault((str(array.chain_id[i]), str(array.part[i])), {})
        number = f"{array.res_id[i]}{array.ins_code[i]}".strip()
        residue = chain.setdefault(number, _Residue(number, bool(array.hetero[i])))
        place = str(array.altloc_id[i]).strip(" .?")
        residue.names[place] = str(array.res_name[i])
        residue.places.setdefault(place, {}).setdefault(str(array.atom_name[i]), array.coord[i])
        residue.weight[place] = residue.weight.get(place, 0.0) + float(array.occupancy[i])
    return {name: list(residues.values()) for name, residues in found.items()}


def _pdb_lines(path: Path) -> list[str]:
    """The lines of a PDB file with what may be left out: columns to the end, occupancy 1."""
    lines = []
    for line in lines_of(path):
        if line.startswith(("ATOM  ", "HETATM")):
            line = f"{line:<80}"
            line = line[:54] + (line[54:60].strip() or "1.00").rjust(6) + line[60:]
            line = line[:60] + (line[60:66].strip() or "0.00").rjust(6) + line[66:]
        lines.append(line.encode("ascii", "replace").decode())
    return lines


def _pdb_parts(lines: list[str]) -> list[str]:
    """Which molecule of its chain's name each atom of the first model is of: another one begins
    after TER or END, with another segment, and where a residue's number comes again."""
    parts, count = [], dict[str, int]()
    ended: set[str] = set()
    seen: dict[str, set[str]] = {}
    before: dict[str, tuple[str, str]] = {}
    inside = 0
    for line in lines:
        kind = line[:6].strip()
        inside += kind == "MODEL"
        if inside > 1 or (kind == "ENDMDL" and parts):
            break
        if kind in ("TER", "END"):
            ended.update(before)
        if kind not in ("ATOM", "HETATM"):
            continue
        chain, number, segment = line[21:22], line[22:27], line[72:76].strip()
        last, last_segment = before.get(chain, ("", segment))
        numbers = seen.setdefault(chain, set())
        again = number != last and number in numbers and not line[16:17].strip()
        if kind == "ATOM" and (again or chain in ended or segment != last_segment):
            count[chain] = count.get(chain, 1) + 1
            numbers.clear()
            ended.discard(chain)
        numbers.add(number)
        before[chain] = (number, segment if kind == "ATOM" else last_segment)
        parts.append(str(count.get(chain, 1)))
    return parts


def _with_columns(sites: Any) -> None:
    """Give the atoms of an mmCIF file the columns that it may leave out."""
    n = sites.row_count
    if "group_PDB" not in sites:
        names = sites["label_comp_id" if "label_comp_id" in sites else "auth_comp_id"].as_array(str)
        known = np.isin(names, list(LETTERS))
        sites["group_PDB"] = np.where(known, "ATOM", "HETATM")
    for name, value in (
        ("label_alt_id", "."),
        ("pdbx_PDB_ins_code", "?"),
        ("pdbx_PDB_model_num", "1"),
        ("occupancy", "1.0"),
    ):
        if name not in sites:
            sites[name] = np.full(n, value)
    occupancy = sites["occupancy"].as_array(str)
    sites["occupancy"] = np.where(np.isin(occupancy, ["", ".", "?"]), "1.0", occupancy)
    for kind in ("asym_id", "seq_id", "comp_id", "atom_id"):
        label, author = f"label_{kind}", f"auth_{kind}"
        if label not in sites or author not in sites:
            there = author if author in sites else label
            sites[label] = sites[author] = sites[there].as_array(str)
        own = sites[author].as_array(str)
        sites[author] = np.where(np.isin(own, ["", ".", "?"]), sites[label].as_array(str), own)


def _read(path: Path) -> tuple[Any, int]:
    """The atoms of the first model with every alternative location, and the number of models."""
    import biotite  # noqa: F401 (outside of the try below, so that its absence is told as such)

    suffix = path.suffix.lower()
    if suffix not in PDB + MMCIF:
        raise InputError(
            f"{path}: cannot tell the format; use a name that ends in"
            f" {', '.join((*PDB, *MMCIF, '.npz'))}"
        )
    options = {"model": 1, "altloc": "all", "extra_fields": ["occupancy"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns that nothing here reads
            if suffix in PDB:
                from biotite.structure.io.pdb import PDBFile

                lines = _pdb_lines(path)
                file = PDBFile.read(io.StringIO("\n".join(lines)))
                array, models = file.get_structure(**options), file.get_model_count()
                array.set_annotation("part", np.array(_pdb_parts(lines)))
                return array, models
            from biotite.structure.io import pdbx

            kind = pdbx.BinaryCIFFile if suffix == ".bcif" else pdbx.CIFFile
            if suffix == ".bcif":
                file = kind.read(str(path))
            else:
                file = kind.read(io.StringIO(text_of(path)))
                _with_columns(file.block["atom_site"])
            options["extra_fields"].append("label_asym_id")
            array = pdbx.get_structure(file, **options)
            array.set_annotation("part", array.label_asym_id.astype(str))
            return array, pdbx.get_model_count(file)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # biotite raises many kinds for malformed text
        place = _bad_line(path) if suffix in PDB else ""
        kind = "PDB" if suffix in PDB else "mmCIF"
        raise InputError(
            f"{path}{place}: cannot be read as {kind}"
            f" ({str(error).strip() or type(error).__name__})"
        ) from None


def _bad_line(path: Path) -> str:
    """The first atom of a PDB file whose coordinates are not numbers, as ``, line 12``."""
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
    ):
        if line.startswith(("ATOM", "HETATM")):
            try:
                [float(line[k : k + 8]) for k in (30, 38, 46)]
            except ValueError:
                return f", line {number}"
    return ""
