"""The reader of archives: what is whole comes back, what is not is one clear error."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from orbitwise.data import archive
from orbitwise.data.archive import Array, array_names, read_archive
from orbitwise.errors import InputError

SCHEMA = {"start": Array("i", "K+1"), "positions": Array("f", "M 3")}


def _write(path, **change):
    arrays = {"start": np.array([0, 2, 4]), "positions": np.arange(12.0).reshape(4, 3)}
    np.savez_compressed(path, **(arrays | change))
    return path


def test_what_is_written_comes_back(tmp_path):
    found = read_archive(_write(tmp_path / "a.npz", other=np.ones(3)), SCHEMA)
    assert sorted(found) == ["positions", "start"]
    assert found["start"].tolist() == [0, 2, 4]
    assert np.array_equal(found["positions"], np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": np.array([0.0, 2.0])}, "start.*integers"),
        ({"start": np.zeros(0, dtype=int)}, "start.*shape"),
        ({"positions": np.ones((4, 2))}, "positions.*shape"),
        ({"positions": np.ones(4)}, "positions.*shape"),
        ({"positions": np.array([["a"] * 3])}, "positions.*numbers"),
        ({"positions": np.array([[None] * 3])}, "positions.*objects"),
    ],
)
def test_other_kinds_ranks_and_lengths(tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        read_archive(_write(tmp_path / "a.npz", **change), SCHEMA)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 3), }\n"
        file.writestr("positions.npy", b"\x93NUMPY\x01\x00" + bytes([len(head), 0]) + head)
    with pytest.raises(InputError, match="positions"):
        read_archive(path, {"positions": SCHEMA["positions"]})


def test_a_bomb_that_is_whole_is_refused_even_where_it_is_not_wanted(tmp_path):
    path = _write(tmp_path / "a.npz", other=np.zeros(2**24))
    with pytest.raises(InputError, match=r"other.*more bytes"):
        read_archive(path, SCHEMA)


def test_any_byte_flipped_or_cut_is_read_or_one_error(tmp_path):
    whole = _write(tmp_path / "a.npz").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for k in range(300):
        data = bytearray(whole)
        at = int(generator.integers(len(data)))
        data[at] ^= 1 << int(generator.integers(8))
        (tmp_path / "b.npz").write_bytes(data[:at] if k % 3 == 0 else data)
        try:
            read_archive(tmp_path / "b.npz", SCHEMA)
        except InputError as error:
            refused += "b.npz" in str(error)
    assert refused > 150


def test_no_other_reader_of_archives():
    package = Path(archive.__file__).parents[1]
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\b(np|numpy)\.load\(", path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_numbers_that_have_to_be_finite(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([[0.0, 1.0], [np.nan, 2.0]]))
    assert array_names(path) == ["x"]
    assert read_archive(path, {"x": Array("f", "...")})["x"].shape == (2, 2)
    with pytest.raises(InputError, match=r"array x: entry \[1, 0\] is nan"):
        read_archive(path, {"x": Array("f", "M 2", finite=True)})


def test_arrays_that_nobody_asked_for(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros(3), name=np.array(["a"]), thing=np.array([{}], dtype=object))
    schema = {"x": Array("f", "M")}
    assert set(read_archive(path, schema)) == {"x"}
    assert set(read_archive(path, schema, others="fU")) == {"x", "name"}
    with pytest.raises(InputError, match="thing: holds Python objects"):
        read_archive(path, {"thing": Array("f", "M")})
