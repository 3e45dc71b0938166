"""Every reader of the files that people hand in or leave on disk, with a small sound file for
each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from orbitwise.audit.dynamics import read_audits
from orbitwise.crystals.crystal import Crystal
from orbitwise.crystals.files.read import read_crystals, write_cif, write_crystal_extxyz
from orbitwise.data.structures import read_structures
from orbitwise.data.voxels import read_geometries
from orbitwise.molecules.files.ensemble import read_ensemble
from orbitwise.molecules.files.forces import read_forces
from orbitwise.molecules.files.inputs import read_inputs
from orbitwise.molecules.files.reference import Reference
from orbitwise.molecules.files.sets import read_conformer_set
from orbitwise.molecules.files.structures import read_molecule
from orbitwise.molecules.files.torsion_profiles import read_torsion_profiles
from orbitwise.proteins.chain import read_npz
from orbitwise.proteins.files import read_chains
from orbitwise.runs.config import load, load_run, save_run
from orbitwise.runs.stages import Stages
from orbitwise.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint


@dataclass(frozen=True)
class Reader:
    """``read`` takes a file named ``name``; ``sound`` writes one there."""

    name: str
    read: Callable[[Path], Any]
    sound: Callable[[Path], Any]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix


KEY = {"settings": 1}
MMCIF_COLUMNS = (
    *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id"),
    *("label_asym_id", "label_seq_id", "auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code"),
    *("Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "pdbx_PDB_model_num"),
)
CONFIG = """method: sgds
energy: {name: lennard_jones, points: 4}
seed: 3
search: {steps: 20, chains: 8}
"""


def _crystals() -> list[Any]:
    a = 5.64
    salt = Crystal(
        frac=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        lattice=a / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
        species=np.array([11, 17]),
        name="salt",
    )
    return [salt, salt]


def _cif_by_name(path: Path) -> None:
    path.write_text(
        "data_salt\n_cell_length_a 5.64(1)\n_cell_length_b 5.64\n_cell_length_c 5.64\n"
        "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
        "_symmetry_space_group_name_H-M 'F m -3 m'\n_chemical_formula_sum 'Na1 Cl1'\n"
        "loop_\n_atom_site_label\n"
        "_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "_atom_site_occupancy\nNa1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1\n"
    )


def _crystal_csv(path: Path) -> None:
    cif = path.with_suffix(".cif")
    write_cif(cif, _crystals()[:1])
    text = cif.read_text().replace('"', "'")
    path.write_text(f'material_id,cif,energy\nm-1,"{text}",-1.5\nm-2,"{text}",-2.5\n')


def _crystal_npz(path: Path) -> None:
    np.savez(
        path,
        lengths_angles=np.array([[4.0, 4, 4, 90, 90, 90]] * 2),
        num_atoms=np.array([2, 2]),
        offsets=np.array([0, 2, 4]),
        atomic_numbers=np.array([55, 17, 55, 17]),
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]] * 2),
        material_id=np.array(["a", "b"]),
    )


def _butane(frames: int = 12) -> tuple[Chem.Mol, np.ndarray]:
    mol = Chem.AddHs(Chem.MolFromSmiles("CCCO"))
    AllChem.EmbedMultipleConfs(mol, frames, randomSeed=7)
    return mol, np.array([c.GetPositions() for c in mol.GetConformers()])


def _sdf(path: Path) -> None:
    mol, _ = _butane()
    with Chem.SDWriter(str(path)) as writer:
        for conformer in mol.GetConformers():
            writer.write(mol, confId=conformer.GetId())


def _extxyz(path: Path) -> None:
    mol, x = _butane()
    symbols = [a.GetSymbol() for a in mol.GetAtoms()]
    rng = np.random.default_rng(1)
    with open(path, "w") as file:
        for frame in x:
            forces = rng.standard_normal(frame.shape)
            columns = "Properties=species:S:1:pos:R:3:forces:R:3"
            file.write(f'{len(frame)}\n{columns} energy={rng.normal():.6f} pbc="F F F" charge=0\n')
            for symbol, p, f in zip(symbols, frame, forces, strict=True):
                numbers = " ".join(f"{v:.6f}" for v in (*p, *f))
                file.write(f"{symbol} {numbers}\n")


def _forces(path: Path) -> None:
    mol, x = _butane()
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    np.savez(path, atomic_numbers=numbers, positions=x, forces=np.ones_like(x))


def _conformer_set(path: Path) -> None:
    mol, x = _butane(3)
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    np.savez(
        path,
        smiles=np.array([Chem.MolToSmiles(Chem.RemoveHs(mol))]),
        atomic_numbers=np.array([a.GetAtomicNum() for a in mol.GetAtoms()]),
        atom_offsets=np.array([0, mol.GetNumAtoms()]),
        bonds=np.array(bonds),
        bond_order=np.ones(len(bonds)),
        bond_offsets=np.array([0, len(bonds)]),
        positions=x.reshape(-1, 3),
        conformer_offsets=np.array([0, len(x)]),
        formal_charge=np.zeros(mol.GetNumAtoms(), dtype=np.int8),
        split=np.array(["train"]),
    )


def _profiles(path: Path) -> None:
    angle = np.arange(-180, 180, 15.0)
    np.savez(
        path,
        smiles=np.array(["CCCC", "CCCO"]),
        atoms=np.array([[0, 1, 2, 3]] * 2),
        energy_kcal=1.5 * np.cos(np.radians(3 * angle))[None].repeat(2, 0) + 1.5,
        angle_degree=angle,
        split=np.array([0, 2]),
    )


def _reference(path: Path) -> None:
    mol, x = _butane(4)
    Reference(
        torsions=np.zeros((50, 2)),
        energy=np.linspace(0, 3, 50),
        bond_mean=np.full(mol.GetNumBonds(), 1.3),
        minima=x,
        population=np.full(4, 0.25),
        population_error=np.full(4, 0.01),
        meta={"smiles": "CCCO", "temperature": 300.0},
    ).save(path)


def _geometries(path: Path) -> None:
    mol, x = _butane(2)
    numbers = [a.GetAtomicNum() for a in mol.GetAtoms()]
    n = len(numbers)
    np.savez(
        path,
        offsets=np.array([0, n, 2 * n]),
        atomic_numbers=np.array(numbers * 2),
        positions=x.reshape(-1, 3),
    )


def _backbone(n: int = 8) -> np.ndarray:
    """A helix, ``(n, 3, 3)`` of N, Cα, C in Å."""
    k = np.arange(3 * n)
    radius = np.tile([1.55, 2.28, 1.68], n)
    angle = np.radians(100) * (k // 3) + np.tile(np.radians([-27.6, 0, 26.6]), n)
    height = 1.5 * (k // 3) + np.tile([-0.87, 0, 1.11], n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1).reshape(n, 3, 3)


def _chains(path: Path) -> None:
    xyz = np.concatenate([_backbone(), _backbone()])
    np.savez(
        path,
        n_ca_c=xyz,
        offsets=np.array([0, 8, 16]),
        sequence=np.array(["ACDEFGHI", "KLMNPQRS"]),
        chain_id=np.array(["1abc_A", "2abc_B"]),
        split=np.array(["train", "test"]),
        chain_breaks=np.zeros(2, dtype=int),
    )


def _pdb(path: Path) -> None:
    serial, lines = 0, []
    for chain in "AB":
        for r, residue in enumerate(_backbone(), 1):
            for name, p in zip(("N", "CA", "C"), residue, strict=True):
                serial += 1
                x, y, z = p
                lines.append(
                    f"ATOM  {serial:5d}  {name:<3} ALA {chain}{r:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                    f"  1.00  0.00           {name[0]}"
                )
        lines.append("TER")
    path.write_text("\n".join([*lines, "END", ""]))


def _mmcif(path: Path) -> None:
    lines = ["data_1ABC", "loop_", *(f"_atom_site.{name}" for name in MMCIF_COLUMNS)]
    serial = 0
    for r, residue in enumerate(_backbone(), 1):
        for name, p in zip(("N", "CA", "C"), residue, strict=True):
            serial += 1
            place = " ".join(f"{v:.3f}" for v in p)
            lines.append(f"ATOM {serial} {name[0]} {name} . ALA A {r} A {r} ? {place} 1.00 1")
    path.write_text("\n".join([*lines, "#", ""]))


def _checkpoint(path: Path) -> None:
    weights = {"layer.weight": torch.ones(2, 3), "layer.bias": torch.zeros(2)}
    state = {"layer.weight": {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, 3)}}
    write_checkpoint(path, Checkpoint(3, weights, weights, state, {"method": "x", "seed": 1}))


def _stage(path: Path) -> None:
    folder = path.parent / f"{path.stem}-folder"
    Stages(folder).save(path.stem, KEY, {"x": torch.zeros(4, 3)}, {"calls": 7})
    path.write_bytes((folder / "stages" / path.name).read_bytes())


def _read_stage(path: Path) -> Any:
    stages = Stages(path.parent / f"{path.stem}-folder")
    (stages.folder / path.name).write_bytes(path.read_bytes())
    return stages.load(path.stem, KEY)


def _read_run(path: Path) -> Any:
    folder = path.parent / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_bytes(path.read_bytes())
    return load_run(folder)


def _config(path: Path) -> None:
    save_run(load("sgds/lj13"), path.parent / "preset")
    path.write_bytes((path.parent / "preset" / "config.yaml").read_bytes())


def _smi(path: Path) -> None:
    path.write_text("CCO ethanol\nc1ccccc1 benzene\nC[C@H](N)C(=O)O alanine\n[NH4+].[Cl-] salt\n")


def _smiles_csv(path: Path) -> None:
    path.write_text('name,smiles\nethanol,CCO\n"a, b",c1ccccc1\n')


def _audits(path: Path) -> None:
    path.write_text(
        json.dumps({"step": 1, "rows": [], "numbers": {"loss": 1.0}, "warnings": []}) + "\n"
    )


READERS = (
    Reader("crystals.cif", read_crystals, lambda p: write_cif(p, _crystals())),
    Reader("named_group.cif", read_crystals, _cif_by_name),
    Reader("crystals.csv", read_crystals, _crystal_csv),
    Reader("crystals.extxyz", read_crystals, lambda p: write_crystal_extxyz(p, _crystals())),
    Reader("crystals.npz", read_crystals, _crystal_npz),
    Reader("frames.extxyz", read_molecule, _extxyz),
    Reader("records.sdf", read_molecule, _sdf),
    Reader("ensemble.sdf", read_ensemble, _sdf),
    Reader("inputs.sdf", lambda p: read_inputs(str(p)), _sdf),
    Reader("inputs.xyz", lambda p: read_inputs(str(p)), _extxyz),
    Reader("inputs.smi", lambda p: read_inputs(str(p)), _smi),
    Reader("inputs.csv", lambda p: read_inputs(str(p)), _smiles_csv),
    Reader("inputs.pdb", lambda p: read_inputs(str(p)), _pdb),
    Reader("set.sdf", read_conformer_set, _sdf),
    Reader("set.npz", read_conformer_set, _conformer_set),
    Reader("profiles.npz", lambda p: read_torsion_profiles(p).data(300.0), _profiles),
    Reader("reference.npz", Reference.load, _reference),
    Reader("forces.npz", read_forces, _forces),
    Reader("forces.extxyz", read_forces, _extxyz),
    Reader("structures.extxyz", read_structures, _extxyz),
    Reader("geometries.npz", read_geometries, _geometries),
    Reader("chains.npz", read_npz, _chains),
    Reader("chains.pdb", lambda p: read_chains(p, "backbone"), _pdb),
    Reader("chains.cif", lambda p: read_chains(p, "backbone"), _mmcif),
    Reader("config.yaml", load, lambda p: p.write_text(CONFIG)),
    Reader("stored.yaml", _read_run, _config),
    Reader("checkpoint.safetensors", read_checkpoint, _checkpoint),
    Reader("stage.safetensors", _read_stage, _stage),
    Reader("audit.jsonl", read_audits, _audits),
)
