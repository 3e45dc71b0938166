"""Which residues are of one chain, what their names mean, and what no protein can be."""

import numpy as np
import pytest

from orbitwise.errors import InputError
from orbitwise.proteins.files import read_chains


def helix(n: int, at: float = 0.0) -> np.ndarray:
    """``(n, 3, 3)`` of N, Cα, C in Å, bonded."""
    k = np.arange(3 * n)
    radius = np.tile([1.55, 2.28, 1.68], n)
    angle = np.radians(100) * (k // 3) + np.tile(np.radians([-27.6, 0, 26.6]), n)
    height = 1.5 * (k // 3) + np.tile([-0.87, 0, 1.11], n)
    xyz = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    return xyz.reshape(n, 3, 3) + at


def atoms(names, chain="A", at=0.0, first=1, segment="", scale=1.0, occupancy="  1.00") -> str:
    lines, serial = [], 0
    for r, (name, residue) in enumerate(zip(names, scale * helix(len(names), at), strict=True)):
        for atom, (x, y, z) in zip(("N", "CA", "C"), residue, strict=True):
            serial += 1
            lines.append(
                f"ATOM  {serial:5d}  {atom:<3} {name:<4}{chain}{first + r:4d}    {x:8.3f}{y:8.3f}"
                f"{z:8.3f}{occupancy}  0.00      {segment:<4}{atom[0]:>2}"
            )
    return "\n".join(lines) + "\n"


def sequences(tmp_path, text, encoding="ascii"):
    path = tmp_path / "x.pdb"
    path.write_bytes(text.encode(encoding))
    found = read_chains(path, "backbone")
    return [c.sequence for c in found.chains], found


A, G = ["ALA"] * 5, ["GLY"] * 5


@pytest.mark.parametrize(
    "text",
    [
        atoms(A) + "TER\n" + atoms(G, at=30) + "TER\nEND\n",
        atoms(A) + "END\n" + atoms(G, at=30) + "END\n",
        atoms(A) + atoms(G, at=30),
        atoms(A, chain=" ") + "TER\n" + atoms(G, chain=" ", at=30),
        atoms(A, segment="P1") + atoms(G, at=30, first=6, segment="P2"),
        atoms(A) + "TER\n" + atoms(G, at=30, first=6),
    ],
)
def test_chains_of_one_name_are_not_mixed(tmp_path, text):
    found, file = sequences(tmp_path, text)
    assert found == ["AAAAA", "GGGGG"]
    assert len({c.name for c in file.chains}) == 2
    assert any("chains of their own" in note for note in file.notes)
    assert file.chains[1].xyz.min() > 25


def test_models_are_still_models(tmp_path):
    text = "".join(f"MODEL {k}\n{atoms(A)}TER\nENDMDL\n" for k in (1, 2)) + "END\n"
    found, file = sequences(tmp_path, text)
    assert found == ["AAAAA"] and any("2 models" in note for note in file.notes)


@pytest.mark.parametrize(
    ("name", "letter"),
    [("HIE", "H"), ("HSD", "H"), ("HSP", "H"), ("CYX", "C"), ("ASH", "D"), ("GLH", "E")],
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 2, 4])
def test_states_of_the_twenty(tmp_path, name, letter, at):
    names = [*A[:at], name, *A[at + 1 :]]
    assert sequences(tmp_path, atoms(names))[0] == ["A" * at + letter + "A" * (4 - at)]


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_residue_that_nobody_knows_is_named(tmp_path, at):
    with pytest.raises(InputError, match=f"XYZ {at + 1}: not one of the twenty"):
        sequences(tmp_path, atoms([*A[:at], "XYZ", *A[at + 1 :]]))


def test_text_as_people_have_it(tmp_path):
    plain = atoms(A, occupancy="      ")
    for text, encoding in [
        (plain, "ascii"),
        (plain, "utf-8-sig"),
        ("REMARK Müller\n" + plain, "latin-1"),
        (plain.replace("\n", "\r\n"), "ascii"),
    ]:
        assert sequences(tmp_path, text, encoding)[0] == ["AAAAA"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (atoms(A, scale=0.1), "Å from its N; are the coordinates in nm"),
        (atoms(A, scale=1.889), "Å from its N; are the coordinates in bohr"),
        (atoms(A).replace(f"{helix(5)[2, 1, 0]:8.3f}", "1000.000", 1), "ALA 3: CA is"),
    ],
)
def test_no_protein(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        sequences(tmp_path, text)


def cif(rows, columns) -> str:
    loop = "\n".join(f"_atom_site.{name}" for name in columns)
    return f"data_x\nloop_\n{loop}\n" + "\n".join(" ".join(row) for row in rows) + "\n"


def sites(drop=(), author="A", number=None):
    """Two chains by label, one by author."""
    rows, columns = [], None
    for label, name, at in (("A", "ALA", 0.0), ("B", "GLY", 30.0)):
        for r, residue in enumerate(helix(5, at), 1):
            for atom, place in zip(("N", "CA", "C"), residue, strict=True):
                x, y, z = (f"{v:.3f}" for v in place)
                row = {
                    "group_PDB": "ATOM", "id": str(len(rows) + 1), "type_symbol": atom[0],
                    "label_atom_id": atom, "label_alt_id": ".", "label_comp_id": name,
                    "label_asym_id": label, "label_seq_id": str(r), "pdbx_PDB_ins_code": "?",
                    "Cartn_x": x, "Cartn_y": y, "Cartn_z": z, "occupancy": "1.0",
                    "auth_seq_id": number or str(r), "auth_asym_id": author,
                    "pdbx_PDB_model_num": "1",
                }  # fmt: skip
                row = {k: v for k, v in row.items() if k not in drop}
                columns = list(row)
                rows.append(list(row.values()))
    return cif(rows, columns)


@pytest.mark.parametrize(
    "text",
    [
        sites(),
        sites(number="?"),
        sites(author="?"),
        *(
            sites(drop=[name])
            for name in (
                "group_PDB",
                "label_alt_id",
                "pdbx_PDB_ins_code",
                "occupancy",
                "pdbx_PDB_model_num",
                "auth_seq_id",
                "auth_asym_id",
            )
        ),
    ],
)
def test_labels_and_authors_of_mmcif(tmp_path, text):
    (tmp_path / "x.cif").write_text(text)
    found = read_chains(tmp_path / "x.cif", "backbone")
    assert [c.sequence for c in found.chains] == ["AAAAA", "GGGGG"]
    assert found.chains[1].xyz.min() > 25


@pytest.mark.parametrize("scale", [0.1, 1.889])
def test_where_breaks_are_allowed_a_unit_is_still_refused_and_one_bad_bond_is_not(tmp_path, scale):
    bad = atoms(A).replace(f"{helix(5)[2, 1, 0]:8.3f}", "1000.000", 1)
    (tmp_path / "bad.pdb").write_text(bad)
    assert [c.sequence for c in read_chains(tmp_path / "bad.pdb", breaks=True).chains] == ["AAAAA"]
    (tmp_path / "unit.pdb").write_text(atoms(A, scale=scale))
    with pytest.raises(InputError, match="are the coordinates in"):
        read_chains(tmp_path / "unit.pdb", breaks=True)
