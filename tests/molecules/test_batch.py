"""Batches of different molecules: labels, handedness, symmetries and padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.molecules.batch import MARKS, ConformerData, Graph, Graphs
from orbitwise.molecules.files.sets import Conformers
from orbitwise.molecules.molecule import choose_isomer, embed, parse_smiles

SMILES = ["CC(C)(C)C", "C[C@H](F)Cl", "C/C=C/C", "OCCO", "CC(=O)[O-]", "c1ccccc1C"]


def conformers(smiles: str, n: int = 3, seed: int = 0) -> Conformers:
    mol = choose_isomer(parse_smiles(smiles), seed)
    x = embed(mol, n, seed)
    return Conformers(
        mol, (x - x.mean(1, keepdims=True)).astype(np.float32), smiles, smiles, "train"
    )


@pytest.fixture(scope="module")
def molecules():
    return [conformers(s) for s in SMILES]


@pytest.fixture(scope="module")
def data(molecules):
    return ConformerData(molecules, max_group=24, buckets=3)


def volumes(x: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    p = x[corners]
    return torch.linalg.det(p[:, :3] - p[:, 3:])


def test_corners_are_ordered_so_that_their_volume_is_positive(molecules):
    for m in molecules:
        graph = Graph.of(m.mol, m.positions_angstrom[0])
        for x in torch.from_numpy(m.positions_angstrom):
            assert (volumes(x, graph.corners) > 0.5).all()
        mirrored = Graph.of(m.mol, -m.positions_angstrom[0])
        assert (volumes(torch.from_numpy(m.positions_angstrom[0]), mirrored.corners) < -0.5).all()


def test_marks_tell_sides_of_double_bonds_rings_and_conjugation(molecules):
    bit = {name: 1 << k for k, name in enumerate(MARKS)}
    butene, toluene = molecules[2], molecules[5]
    marks = Graph.of(butene.mol, butene.positions_angstrom[0]).pairs
    assert (
        marks[0, 3] & bit["trans"] and not marks[0, 3] & bit["cis"] and marks[3, 0] == marks[0, 3]
    )
    marks = Graph.of(toluene.mol, toluene.positions_angstrom[0]).pairs
    assert marks[0, 3] & bit["ring6"] and not marks[0, 6] and marks[0, 1] & bit["conjugated"]


def test_large_groups_become_subgroups_and_small_ones_stay(molecules):
    neopentane = molecules[0]
    graph = Graph.of(neopentane.mol, neopentane.positions_angstrom[0], max_group=24)
    whole = Automorphism.from_mol(neopentane.mol, neopentane.positions_angstrom[0]).enumerate()[0]
    part = graph.automorphisms.enumerate()[0]
    assert graph.whole_order == len(whole) == 972 and 1 < len(part) <= 24
    every = {tuple(p) for p in whole.tolist()}
    tables = {tuple(p) for p in part.tolist()}
    assert tables <= every
    assert all(tuple(np.array(a)[list(b)]) in tables for a in tables for b in tables)  # closed
    other = molecules[3]
    graph = Graph.of(other.mol, other.positions_angstrom[0], max_group=24)
    assert graph.automorphisms.order == graph.whole_order > 1


def test_batches_hold_what_the_molecules_are(data, molecules):
    index = torch.tensor([0, 4, 16])  # neopentane, fluorochloroethane, toluene
    batch = data.batch(index)
    for row, k in enumerate([0, 1, 5]):
        m, n = molecules[k], molecules[k].atoms
        assert batch.mask[row].sum() == n and not batch.mask[row, n:].any()
        assert batch.species[row, :n].tolist() == [a.GetAtomicNum() for a in m.mol.GetAtoms()]
        assert (batch.x[row, n:] == 0).all() and (batch.species[row, n:] == 0).all()
        assert (batch.bonds[row] > 0).sum() == 2 * m.mol.GetNumBonds()
        group = Graph.of(m.mol, m.positions_angstrom[0], 24).automorphisms
        assert batch.renamings.order[row] == group.order
    tables = batch.renamings.tables  # each keeps the bonds of its molecule
    bonds = batch.bonds.expand(len(tables), -1, -1, -1)
    moved = bonds.gather(2, tables[..., None].expand_as(bonds)).gather(
        3, tables[:, :, None].expand_as(bonds)
    )
    assert (moved == bonds).all()


def test_a_training_batch_is_cut_by_size_without_losing_anything(data):
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    parts = data[index].parts
    assert len(parts) == 3 and sum(len(p) for p in parts) == len(data) == len(data[index])
    widths = [p.x.shape[1] for p in parts]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    assert all(p.mask.any(0).all() for p in parts)  # no column of padding alone
    found = torch.cat([p.x.flatten(1).norm(dim=1) for p in parts]).sort().values
    torch.testing.assert_close(found, data.x.flatten(1).norm(dim=1).sort().values)


def test_items_of_a_batch_can_be_taken_and_moved(data):
    batch = data.batch(torch.arange(6))
    part = batch[torch.tensor([5, 0])].to("cpu")
    assert torch.equal(part.x, batch.x[[5, 0]]) and torch.equal(part.corners, batch.corners[[5, 0]])
    assert torch.equal(part.renamings.order, batch.renamings.order[[5, 0]])
    assert torch.equal(batch.with_x(batch.x + 1).charge, batch.charge)


def test_molecules_without_tetrahedral_atoms_and_no_molecules(molecules):
    flat = Graphs.of(
        [Graph.of(m.mol, m.positions_angstrom[0]) for m in (conformers("C=C"), molecules[3])]
    )
    assert flat.stereo.tolist() == [0, 2] and (flat.corners[0] == -1).all()
    only = Graphs.of(
        [Graph.of(conformers("c1ccccc1").mol, conformers("c1ccccc1").positions_angstrom[0])]
    )
    assert only.batch(torch.zeros(2, dtype=torch.long), torch.zeros(2, 12, 3)).corners.shape == (
        2,
        0,
        4,
    )
    with pytest.raises(InputError, match="no molecules"):
        ConformerData([])
