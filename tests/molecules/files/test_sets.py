"""Sets of molecules with their conformers: archives, SDF folders, splits, and records that cannot
be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from orbitwise.errors import InputError
from orbitwise.molecules.files.conformers import write_conformer_set
from orbitwise.molecules.files.sets import (
    SPLITS,
    read_conformer_set,
    read_conformer_sets,
)
from orbitwise.molecules.files.structures import write_sdf
from orbitwise.molecules.identity import identity
from orbitwise.molecules.molecule import choose_isomer, embed, parse_smiles

SMILES = ["CCO", "C[C@H](F)Cl", "C/C=C/C", "CC(=O)[O-]", "c1ccncc1", "CC[N+](=O)[O-]"]


@pytest.fixture(scope="module")
def sdf_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdf")
    for k, smiles in enumerate(SMILES):
        mol = choose_isomer(parse_smiles(smiles))
        write_sdf(folder / f"{k}.sdf", mol, embed(mol, 3, k))
    return folder


@pytest.fixture(scope="module")
def archive(sdf_folder) -> Path:
    path = sdf_folder.parent / "set.npz"
    write_conformer_set(path, read_conformer_set(sdf_folder).molecules)
    return path


def changed(archive: Path, tmp_path: Path, **changes) -> Path:
    with np.load(archive) as file:
        data = {key: file[key] for key in file.files}
    for key, change in changes.items():
        if change is None:
            del data[key]
        else:
            data[key] = change(data[key].copy())
    np.savez(tmp_path / "changed.npz", **data)
    return tmp_path / "changed.npz"


def test_a_folder_of_sdf_files_and_the_archive_written_from_it_hold_the_same(sdf_folder, archive):
    first, second = read_conformer_set(sdf_folder), read_conformer_set(archive)
    assert len(first) == len(SMILES)
    for a, b, smiles in zip(first.molecules, second.molecules, SMILES, strict=True):
        assert a.smiles == b.smiles == Chem.CanonSmiles(smiles)
        assert a.split == b.split and len(a) == 3
        np.testing.assert_allclose(a.positions_angstrom, b.positions_angstrom, atol=1e-5)
        assert np.abs(a.positions_angstrom.mean(1)).max() < 1e-5


def test_stereochemistry_is_that_of_the_geometry_and_other_isomers_are_counted(tmp_path):
    one = parse_smiles("C[C@H](F)Cl")
    x = embed(one, 3, 0)
    write_sdf(tmp_path / "a.sdf", one, np.concatenate([x, -x[:2]]))  # two of the other hand
    (found,) = read_conformer_set(tmp_path / "a.sdf").molecules
    assert found.smiles == "C[C@H](F)Cl" and len(found) == 3 and found.other_isomers == 2
    write_sdf(tmp_path / "b.sdf", one, -x)
    assert read_conformer_set(tmp_path / "b.sdf").molecules[0].smiles == "C[C@@H](F)Cl"


def test_splits_follow_the_molecule_and_do_not_overlap(sdf_folder, archive):
    shares = {"shares": (0.3, 0.3)}
    whole = read_conformer_set(sdf_folder, **shares)
    names = [
        {identity(m.mol, exact=False) for m in whole.split(split).molecules} for split in SPLITS
    ]
    assert sum(map(len, names)) == len(SMILES) == len(set().union(*names))
    seeds = [
        tuple(m.split for m in read_conformer_set(sdf_folder, seed=s, **shares).molecules)
        for s in range(6)
    ]
    assert len(set(seeds)) > 1
    both = read_conformer_sets([sdf_folder, archive], **shares)
    assert len(both) == len(SMILES)  # each once


def test_a_molecule_held_out_in_one_file_is_trained_on_in_none(archive, tmp_path):
    train = changed(archive, tmp_path, split=lambda s: np.full_like(s, "train"))
    train = train.rename(tmp_path / "train.npz")
    test = changed(archive, tmp_path, split=lambda s: np.array(["test", *s[1:]], dtype="U5"))
    names = {m.smiles for m in read_conformer_sets([train, test], splits=("train",)).molecules}
    assert "CCO" not in names and len(names) > 0
    assert (
        next(m.smiles for m in read_conformer_sets([train, test], splits=("test",)).molecules)
        == "CCO"
    )


def test_without_charges_the_smiles_gives_them(archive, tmp_path):
    plain = read_conformer_set(changed(archive, tmp_path, formal_charge=None))
    assert [m.smiles for m in plain.molecules] == [Chem.CanonSmiles(s) for s in SMILES]


def nan_in_second(x):
    x[30] = np.nan
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bonds": None}, "has no bonds"),
        ({"positions": None}, r"has no positions"),
        ({"positions": lambda x: x[:-1]}, "the offsets of the positions give"),
        ({"positions": lambda x: x / 10}, r"record 1 .*are the coordinates in nm\?"),
        ({"positions": lambda x: x * 100}, r"record 1 .*are the coordinates in pm\?"),
        (
            {"positions": nan_in_second},
            r"record 2 \(C\[C@H\]\(F\)Cl\): a coordinate of conformer 1 is not a finite",
        ),
        ({"positions": lambda x: x * 0}, "record 1 .*lie 0.000 Å apart"),
        ({"positions": lambda x: x * 6}, "record 1 .*the bond .* is .* Å long"),
        (
            {"atomic_numbers": lambda z: np.where(np.arange(len(z)) == 1, 0, z)},
            "atom 2 has atomic number 0",
        ),
        (
            {"atomic_numbers": lambda z: np.where(z == 9, 6, z)},
            "record 2 .*(hydrogens are missing|is a radical)",
        ),
        (
            {"bond_order": lambda o: np.where(np.arange(len(o)) == 0, 3, o)},
            "record 1 .*RDKit refuses it: .*valence for atom # 1 C",
        ),
        (
            {"bond_order": lambda o: np.where(np.arange(len(o)) == 0, 2.5, o)},
            "record 1 .*of order 2.5 is none",
        ),
        (
            {"split": lambda s: np.full_like(s, "other")},
            "there is no usable molecule of the splits",
        ),
    ],
)
def test_what_cannot_be_used_is_named(archive, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_conformer_set(changed(archive, tmp_path, **changes))


def test_a_bad_record_is_skipped_only_on_request_and_counted(archive, tmp_path):
    path = changed(archive, tmp_path, positions=nan_in_second)
    found = read_conformer_set(path, skip_bad=True)
    assert len(found) == len(SMILES) - 1 and len(found.skipped) == 1
    assert "record 2" in found.skipped[0] and "not a finite number" in found.skipped[0]


def test_fragments_and_single_atoms_are_refused(tmp_path):
    two = Chem.AddHs(Chem.MolFromSmiles("C.C"))
    x = np.concatenate([embed(parse_smiles("C"), 1, 0)[0], embed(parse_smiles("C"), 1, 1)[0] + 5])
    two = Chem.RenumberAtoms(two, [0, 2, 3, 4, 5, 1, 6, 7, 8, 9])
    write_sdf(tmp_path / "two.sdf", two, x[None])
    with pytest.raises(InputError, match="2 separate fragments"):
        read_conformer_set(tmp_path / "two.sdf")
    write_sdf(tmp_path / "one.sdf", Chem.MolFromSmiles("[He]"), np.zeros((1, 1, 3)))
    with pytest.raises(InputError, match="a single atom has no conformers"):
        read_conformer_set(tmp_path / "one.sdf")


def test_malformed_sdf_records_are_named_and_skipped_on_request(sdf_folder, tmp_path):
    text = (sdf_folder / "0.sdf").read_text()
    (tmp_path / "bad.sdf").write_text(text + "rubbish\n\n\nno counts here\nM  END\n$$$$\n")
    with pytest.raises(InputError, match="record 4, line"):
        read_conformer_set(tmp_path / "bad.sdf")
    found = read_conformer_set(tmp_path / "bad.sdf", skip_bad=True)
    assert len(found) == 1 and len(found.molecules[0]) == 3 and "record 4" in found.skipped[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "no such file"),
        ("a.txt", "cannot tell the format"),
        ("", "there is no .sdf file"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, name, message):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=message):
        read_conformer_set(tmp_path / name)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        read_conformer_set(tmp_path / "broken.npz")


def test_the_real_sets_are_read_whole(shared_data):
    spice = read_conformer_set(shared_data("spice_des_monomers/spice_des_monomers.npz"))
    assert len(spice) == 348 and not spice.skipped
    assert all(len(m) + m.other_isomers == 50 for m in spice.molecules)
    openff = read_conformer_set(
        shared_data("openff_conformers/openff_conformers.npz"), max_atoms=24
    )
    assert [len(openff.split(s)) for s in SPLITS] == [72, 4, 2]
    geom = read_conformer_set(
        shared_data("geom_drugs_crest/geom_drugs_crest.npz"), skip_bad=True, max_atoms=34
    )
    assert len(geom) + len(geom.skipped) == 7
