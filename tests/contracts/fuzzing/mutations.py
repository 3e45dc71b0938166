"""One damaged copy of a file: its bytes, words, lines or arrays, as transport and people do."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

# fmt: off
WORDS = (
    "nan", "inf", "-inf", "NaN", "1e30", "-1e30", "1e6", "-1", "0", "1", "9999999999999999999",
    "1e400", "0x1f", "?", ".", "*", "-", "+", ",", "=", "'", '"', "[", "]", "{", "}", "(", ")", ":",
    ";", "#", "None", "null", "true", "yes", "H", "Xx", "C3", "Q", "²", "é", "\x00", "\x7f", "1,5",
    "1.2.3", "--1", "1e", "5.64(2)", "data_", "loop_", "_cell_length_a", "ATOM", "TER", "END",
    "MODEL", "M", "END", "$$$$", "&a", "*a", "<<:", "!!int", "!!python/object", "!!binary",
)
# fmt: on
BYTES = (b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"\x1a", b"\xe9")


def mutated(content: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """A copy of a file that ends in ``suffix`` with one to three kinds of damage."""
    kinds = [_of_bytes] if suffix in (".npz", ".safetensors") else [_of_bytes, _of_text, _of_text]
    if suffix == ".npz":
        kinds += [_of_arrays, _of_arrays, _of_arrays]
    elif suffix == ".safetensors":
        kinds += [_of_header, _of_header]
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        content = kinds[rng.integers(len(kinds))](content, rng)
    return content


def _place(length: int, rng: np.random.Generator) -> int:
    return int(rng.integers(max(length, 1)))


def _of_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    at, size = _place(len(content), rng), int(rng.choice([1, 1, 2, 4, 16, 100, 1000]))
    kind = rng.integers(7)
    if kind == 0 and content:  # one bit
        return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + content[at + size :]
    if kind == 3:
        return content[:at] + content[at : at + size] * int(rng.choice([2, 3, 50])) + content[at:]
    if kind == 4:
        return content[:at] + BYTES[rng.integers(len(BYTES))] + content[at:]
    if kind == 5:
        return content[:at] + rng.bytes(size) + content[at + size :]
    other = _place(len(content), rng)
    return content[:at] + content[other : other + size] + content[at + size :]


def _of_text(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.decode("latin-1").split("\n")
    at, other = _place(len(lines), rng), _place(len(lines), rng)
    kind = rng.integers(9)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines[at:at] = [lines[other]] * int(rng.choice([1, 1, 2, 200]))
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        return "\r".join(lines).encode("latin-1")
    elif kind == 4:
        lines[at] = lines[at][: _place(len(lines[at]), rng)]
    elif kind == 5:
        lines[at] += WORDS[rng.integers(len(WORDS))] * int(rng.choice([1, 2, 5000]))
    else:
        words = lines[at].split(" ")
        words[_place(len(words), rng)] = WORDS[rng.integers(len(WORDS))]
        lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8")


def _of_header(content: bytes, rng: np.random.Generator) -> bytes:
    """The JSON of a safetensors file with one value changed, its length put right."""
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
    except ValueError:
        return _of_bytes(content, rng)
    about = header.get("__metadata__", {})
    names = sorted(about) if rng.random() < 0.7 and about else sorted(header)
    table = about if names == sorted(about) else header
    if not names:
        return _of_bytes(content, rng)
    name, kind = names[_place(len(names), rng)], rng.integers(4)
    if kind == 0:
        del table[name]
    elif kind == 1:
        table[f"{name}x"] = table.pop(name)
    elif isinstance(table[name], str):
        table[name] = _of_text(table[name].encode(), rng).decode("latin-1")
    else:
        values = table[name] if isinstance(table[name], dict) else {}
        for key in [k for k in values if rng.random() < 0.5]:
            values[key] = {"dtype": "F64", "shape": [-1, 3], "data_offsets": [0, 2**40]}.get(key, 0)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _of_arrays(content: bytes, rng: np.random.Generator) -> bytes:
    """An archive whose arrays are whole and one of them is another than it should be."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, MemoryError):
        return _of_bytes(content, rng)
    except Exception:  # damaged before: whatever NumPy makes of it
        return _of_bytes(content, rng)
    if not arrays:
        return _of_bytes(content, rng)
    name = sorted(arrays)[_place(len(arrays), rng)]
    wrong = _array(arrays[name], rng)
    if wrong is None:
        del arrays[name]
    else:
        arrays[name] = wrong
    if rng.random() < 0.05:
        return _bomb(name)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    kind = rng.integers(9)
    if kind == 0:
        return None
    if kind == 1:
        return array[: _place(len(array), rng)] if array.ndim else array[None]
    if kind == 2:
        return array[..., None] if rng.random() < 0.5 else array.reshape(-1)
    if kind == 3:
        kinds = ("int8", "uint64", "float16", "float32", "complex128", "bool", "U4", "S3", "M8[D]")
        try:
            return array.astype(kinds[rng.integers(len(kinds))])
        except (ValueError, TypeError, OverflowError):
            return np.zeros(array.shape, "V3")
    if kind == 4:
        return np.concatenate([array, array]) if array.ndim else np.array([array, array])
    if kind == 5:
        return np.zeros((0, *array.shape[1:]), array.dtype)
    if not array.size or array.dtype.kind not in "iuf":
        return np.zeros(array.shape)
    array = array.copy()
    values = (np.nan, np.inf, -1, 0, 1e30, 1e6, 999.0, -(2**31), 127)
    value = values[rng.integers(len(values))]
    at = _place(array.size, rng)
    if array.dtype.kind != "f":
        value = np.int64(value if np.isfinite(value) and abs(value) < 2**62 else -7)
    with np.errstate(all="ignore"):
        array.flat[at] = np.asarray(value).astype(array.dtype)
    return array


def _bomb(name: str) -> bytes:
    """An archive whose header promises far more than it holds."""
    header = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (2**40, 3)}
    np.lib.format.write_array_header_2_0(header, about)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + bytes(1 << 20))
    return file.getvalue()
