"""Protein chains in files: what is read back, and what a broken file is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orbitwise.errors import InputError
from orbitwise.proteins.chain import Chain, blank_batch, chain_batch, read_backbones, read_npz
from orbitwise.proteins.files import read_chains, write_pdb
from orbitwise.proteins.ideal_backbones import HELIX, STRAND, build_backbone

structure = pytest.importorskip("biotite.structure", reason="needs orbitwise[proteins]")
from biotite.structure.io import pdb, pdbx  # noqa: E402 (only where biotite is there)

LINE = (
    "{:6s}{:5d} {:>4s}{:1s}{:3s} {:1s}{:4d}{:1s}   {:8.3f}{:8.3f}{:8.3f}{:6.2f}{:6.2f}         "
    " {:>2s}\n"
)


def helix(residues: int = 12) -> np.ndarray:
    phi, psi = (torch.full((residues,), v) for v in HELIX)
    return build_backbone(phi, psi).numpy()


class Text:
    """A PDB file, line by line."""

    def __init__(self):
        self.lines: list[str] = []

    def atom(
        self,
        name,
        residue,
        number,
        xyz,
        *,
        chain="A",
        place="",
        occupancy=1.0,
        hetero=False,
        element=None,
    ):
        kind = "HETATM" if hetero else "ATOM"
        padded = f" {name:<3s}" if len(name) < 4 and element is None else f"{name:<4s}"
        row = (
            kind,
            len(self.lines) + 1,
            padded,
            place,
            residue,
            chain,
            number,
            "",
            *xyz,
            occupancy,
            0.0,
        )
        self.lines.append(LINE.format(*row, element or name[0]))

    def chain(self, xyz, *, chain="A", name="ALA", first=1, leave_out=()):
        for k, residue in enumerate(xyz):
            for atom, place in zip(("N", "CA", "C"), residue, strict=True):
                if (k + first, atom) not in leave_out:
                    self.atom(atom, name, k + first, place, chain=chain)
        return self

    def write(self, path: Path) -> Path:
        path.write_text("".join(self.lines) + "END\n")
        return path


# ---- what is read back


@pytest.mark.parametrize("mode", ["ca", "backbone"])
def test_a_written_pdb_is_read_back_by_us_and_by_biotite(tmp_path, mode):
    xyz = helix()[:, 1:2] if mode == "ca" else helix()
    path = write_pdb(tmp_path / "x.pdb", Chain(xyz, "MKTAYIAKQRXX"))
    file = read_chains(path, mode)
    assert (
        [c.sequence for c in file.chains] == ["MKTAYIAKQRGG"]
        and not file.skipped
        and not file.notes
    )
    assert np.abs(file.chains[0].xyz - xyz).max() < 6e-4  # three decimals
    array = pdb.PDBFile.read(str(path)).get_structure(model=1)
    assert array.array_length() == xyz.shape[0] * xyz.shape[1]
    assert set(array.element) == ({"C"} if mode == "ca" else {"N", "C"})


def test_mmcif_and_pdb_say_the_same(tmp_path):
    path = (
        Text()
        .chain(helix())
        .chain(helix(9) + 30, chain="B", name="LEU")
        .write(tmp_path / "two.pdb")
    )
    array = pdb.PDBFile.read(str(path)).get_structure(model=1)
    kinds = {"two.cif": pdbx.CIFFile(), "two.bcif": pdbx.BinaryCIFFile()}
    for name, file in kinds.items():
        pdbx.set_structure(file, array, data_block="two")
        file.write(str(tmp_path / name))
        ours, theirs = (
            read_chains(tmp_path / name, "backbone").chains,
            read_chains(path, "backbone").chains,
        )
        assert [(c.name, c.sequence) for c in ours] == [("two_A", "A" * 12), ("two_B", "L" * 9)]
        assert all(np.allclose(a.xyz, b.xyz, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


def test_a_folder_is_read_file_by_file(tmp_path):
    for k in (3, 1, 2):
        Text().chain(helix(8 + k)).write(tmp_path / f"f{k}.pdb")
    (tmp_path / "notes.txt").write_text("nothing")
    assert [len(c) for c in read_chains(tmp_path).chains] == [9, 10, 11]


def test_water_ligands_calcium_and_free_amino_acids_are_no_part_of_the_chain(tmp_path):
    text = Text().chain(helix())
    text.atom("O", "HOH", 101, (9, 9, 9), hetero=True)
    text.atom("CA", "CA", 102, (8, 8, 8), hetero=True, element="CA")
    for name, place in zip(("N", "CA", "C"), helix(1)[0] + 40, strict=True):
        text.atom(name, "GLU", 103, place, hetero=True)
    assert [len(c) for c in read_chains(text.write(tmp_path / "x.pdb")).chains] == [12]


def test_selenomethionine_in_the_chain_is_methionine(tmp_path):
    text, xyz = Text(), helix(5)
    for k, residue in enumerate(xyz, 1):
        for name, place in zip(("N", "CA", "C"), residue, strict=True):
            text.atom(name, "MSE" if k == 3 else "GLY", k, place, hetero=k == 3)
    assert read_chains(text.write(tmp_path / "x.pdb"), "backbone").chains[0].sequence == "GGMGG"


def test_the_alternative_location_of_highest_occupancy_is_read_and_said(tmp_path):
    text, xyz = Text(), helix(6)
    for k, residue in enumerate(xyz, 1):
        for name, place in zip(("N", "CA", "C"), residue, strict=True):
            if k == 4:
                text.atom(name, "SER", k, place + 0.5, place="A", occupancy=0.4)
                text.atom(name, "THR", k, place, place="B", occupancy=0.6)
            else:
                text.atom(name, "ALA", k, place)
    file = read_chains(text.write(tmp_path / "x.pdb"), "backbone")
    assert np.abs(file.chains[0].xyz - xyz).max() < 6e-4
    assert file.chains[0].sequence == "AAATAA"
    assert "residue THR 4: alternative locations, the one of highest occupancy" in file.notes[0]


def test_the_first_of_several_models_is_read_and_said(tmp_path):
    one, two = Text().chain(helix()), Text().chain(helix() + 3)
    path = tmp_path / "x.pdb"
    path.write_text(
        "MODEL        1\n"
        + "".join(one.lines)
        + "ENDMDL\nMODEL        2\n"
        + "".join(two.lines)
        + "ENDMDL\n"
    )
    file = read_chains(path)
    assert np.abs(file.chains[0].xyz - helix()[:, 1:2]).max() < 6e-4
    assert "2 models, the first is read" in file.notes[0]


# ---- what a broken file is told


def broken(tmp_path: Path, what: str) -> Path:
    xyz = helix()
    path = tmp_path / f"{what}.pdb"
    text = Text()
    if what == "gap":
        text.chain(xyz[:5]).chain(xyz[7:], first=8)
    elif what == "missing":
        text.chain(xyz, leave_out={(6, "CA")})
    elif what == "modified":
        text.chain(xyz[:5]).chain(xyz[5:6], name="SEP", first=6).chain(xyz[6:], first=7)
    elif what == "nucleic":
        text.atom("P", "DA", 1, (0, 0, 0))
    elif what == "letters":
        text.chain(xyz)
        text.lines[7] = text.lines[7].replace(text.lines[7][30:38], " 1.2x45 ")
    else:
        path.write_text("")
        return path
    return text.write(path)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (
            "gap",
            (
                r"gap.pdb, chain A, residue ALA 8: the chain is broken before it \(N is .* from"
                r" residue ALA 5\)"
            ),
        ),
        ("missing", r"missing.pdb, chain A, residue ALA 6: has no CA atom"),
        ("modified", r"modified.pdb, chain A, residue SEP 6: not one of the twenty"),
        ("nucleic", r"nucleic.pdb: there is no protein in it \(1 atoms\)"),
        ("letters", r"letters.pdb, line 8: cannot be read as PDB"),
        ("empty", r"empty.pdb"),
    ],
)
def test_every_fault_is_named_and_its_chain_skipped_only_on_request(tmp_path, what, told):
    bad = broken(tmp_path, what)
    with pytest.raises(InputError, match=told):
        read_chains(bad)
    Text().chain(helix(7)).write(tmp_path / "zz_good.pdb")
    with pytest.raises(InputError, match=told):
        read_chains(tmp_path)
    file = read_chains(tmp_path, skip_bad=True)
    assert [len(c) for c in file.chains] == [7] and len(file.skipped) == 1


def test_only_the_broken_chain_of_a_file_is_skipped(tmp_path):
    xyz = helix()
    path = (
        Text()
        .chain(xyz[:4])
        .chain(xyz[6:], first=7)
        .chain(xyz + 30, chain="B")
        .write(tmp_path / "x.pdb")
    )
    file = read_chains(path, "backbone", skip_bad=True)
    assert [c.name for c in file.chains] == ["x_B"] and "chain A, residue ALA 7" in file.skipped[0]


def test_a_break_of_a_file_of_c_alphas_is_seen(tmp_path):
    xyz = helix()[:, 1:2]
    path = write_pdb(tmp_path / "x.pdb", Chain(np.concatenate([xyz[:5], xyz[6:]]), "A" * 11))
    with pytest.raises(InputError, match=r"residue ALA 6: the chain is broken before it \(CA is"):
        read_chains(path)


def test_nothing_left_nothing_there_and_other_names(tmp_path):
    broken(tmp_path, "gap")
    with pytest.raises(InputError, match=r"no chain is left; 1 were skipped, the first: .*gap.pdb"):
        read_chains(tmp_path / "gap.pdb", skip_bad=True)
    with pytest.raises(InputError, match="no such file or folder"):
        read_chains(tmp_path / "none.pdb")
    (tmp_path / "x.xyz").write_text("1")
    with pytest.raises(InputError, match="cannot tell the format"):
        read_chains(tmp_path / "x.xyz")
    (tmp_path / "bad.cif").write_text("data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1\n")
    with pytest.raises(InputError, match=r"bad.cif: cannot be read as mmCIF"):
        read_chains(tmp_path / "bad.cif")
    with pytest.raises(InputError, match="unknown mode 'all'"):
        read_chains(tmp_path, "all")


# ---- batches and the .npz


def npz(path: Path, lengths=(5, 9, 7), breaks=(0, 1, 0)) -> Path:
    xyz = [helix(n) + 10 * k for k, n in enumerate(lengths)]
    np.savez(
        path,
        n_ca_c=np.concatenate(xyz).astype(np.float32),
        offsets=np.cumsum([0, *lengths]),
        sequence=np.array(["A" * n for n in lengths]),
        chain_id=np.array([f"c{k}" for k in range(len(lengths))]),
        chain_breaks=np.array(breaks),
        split=np.array(["train", "train", "val"]),
    )
    return path


def test_npz_marks_broken_chains(tmp_path):
    file = read_npz(npz(tmp_path / "x.npz"))
    assert [(c.name, len(c), c.split) for c in file.chains] == [
        ("c0", 5, "train"),
        ("c2", 7, "val"),
    ]
    assert len(file.skipped) == 1 and "chain c1" in file.skipped[0]
    assert len(read_npz(tmp_path / "x.npz", breaks=True).chains) == 3
    windows = read_backbones(tmp_path / "x.npz", "train", longest=4, breaks=True)
    assert windows.ca.shape == (2, 4, 3) and windows.lengths.tolist() == [5, 9]
    assert windows.ca.mean(1).abs().max() < 1e-5


def test_npz_with_wrong_offsets_or_values_is_refused(tmp_path):
    path = npz(tmp_path / "x.npz")
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "offsets": arrays["offsets"] + 1})
    with pytest.raises(InputError, match="offsets do not cut 21 residues into 3 chains"):
        read_npz(path)
    arrays["n_ca_c"][3] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"x.npz: chain c0: positions of residue 4 are not finite"):
        read_npz(path)


def test_a_batch_keeps_every_chain_and_cuts_its_padding():
    chains = [Chain(helix(n) + n, "A" * n, str(n)) for n in (4, 7, 5)]
    batch = chain_batch(chains, torch.float64)
    assert batch.x.shape == (3, 21, 3) and batch.lengths.tolist() == [4, 7, 5]
    assert batch.x[~batch.mask].abs().max() == 0
    for made, chain in zip(batch.chains(["4", "7", "5"]), chains, strict=True):
        assert np.allclose(made.xyz, chain.xyz - chain.xyz.mean((0, 1)))
    part = batch[torch.tensor([0, 2])]
    assert part.x.shape == (2, 15, 3) and torch.equal(part.by_residue[1], batch.by_residue[2, :5])
    assert torch.equal(blank_batch(batch.lengths, 3).mask, batch.mask)
    with pytest.raises(InputError, match="atoms per residue"):
        chain_batch([chains[0], Chain(helix(4)[:, :1], "AAAA")])
    with pytest.raises(InputError, match="no chains"):
        chain_batch([])


def test_ideal_backbones_have_the_torsions_asked_for():
    """Against biotite's own dihedral angles."""
    generator = torch.Generator().manual_seed(0)
    phi, psi = 360 * torch.rand(2, 15, generator=generator, dtype=torch.float64) - 180
    chain = Chain(build_backbone(phi, psi).numpy(), "A" * 15)
    array = structure.AtomArray(45)
    array.coord = chain.xyz.reshape(-1, 3)
    array.res_id, array.res_name[:] = np.repeat(np.arange(15), 3), "ALA"
    array.atom_name, array.chain_id[:] = np.tile(["N", "CA", "C"], 15), "A"
    found = [np.degrees(v) for v in structure.dihedral_backbone(array)]
    assert np.allclose(found[0][1:], phi[1:], atol=1e-2) and np.allclose(
        found[1][:-1], psi[:-1], atol=1e-2
    )
    assert np.allclose(np.abs(found[2][:-1]), 180, atol=1e-2)
    assert build_backbone(*(torch.full((2, 6), v) for v in STRAND)).shape == (2, 6, 3, 3)


def test_real_chains(shared_data):
    path = shared_data("protein_small_chains/protein_small_chains.npz")
    file = read_chains(path, "backbone")
    assert len(file.skipped) == 8 and {c.split for c in file.chains} == {"train", "val"}
    bonds = np.concatenate(
        [np.linalg.norm(c.xyz[1:, 0] - c.xyz[:-1, 2], axis=-1) for c in file.chains]
    )
    assert bonds.min() > 1.1 and bonds.max() <= 1.6
