"""YAML: what is read as it stands, and everything else refused at once, in one line."""

from __future__ import annotations

import time

import pytest
import yaml

from orbitwise.errors import InputError
from orbitwise.runs.yaml_text import in_yaml, read_yaml, yaml_value


def read(tmp_path, content: bytes | str):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(path)


# PyYAML itself is the oracle where a text means the same to it
SAME = """\
method: x   # a comment
whole: [1, -2, +3, 0x1f, 0b11, 1_000]
parts: {a: 1.5, b: -.5, c: 1.0e-3, d: .inf}
words: [true, No, null, ~, '', "a\\tb", plain text, 'it''s', 1.2.3, a:b]
block: |
  two
  lines
folded: >-
  one
  line
empty:
deep: {a: {b: [{c: [[1]]}]}}
"""


def test_what_settings_need_is_read_as_ever(tmp_path):
    found = read(tmp_path, SAME)
    assert found.values == yaml.safe_load(SAME)
    assert (
        found.lines["method"] == 1 and found.lines["parts.b"] == 3 and found.lines["deep.a"] == 12
    )
    assert found.texts["plain text"] == 4


@pytest.mark.parametrize(
    "content",
    [
        "name: Müller".encode(),
        "\ufeffname: Müller".encode(),
        "name: Müller".encode("utf-16"),
        "name: Müller".encode("latin-1"),
        "name: Müller\r\n".encode(),
    ],
)
def test_encodings(tmp_path, content):
    assert read(tmp_path, content).values == {"name": "Müller"}


def test_quotes_of_windows(tmp_path):
    assert read(tmp_path, "name: “a–b”".encode("cp1252")).values == {"name": "“a–b”"}


def test_powers_and_dates(tmp_path):
    found = read(tmp_path, "a: 1e-3\nb: 2001-01-01\nc: 2001-99-99\n1: x\nnull: y\n<: z\n=: =\n")
    assert found.values == {
        **{"a": 1e-3, "b": "2001-01-01", "c": "2001-99-99"},
        **{"1": "x", "null": "y", "<": "z", "=": "="},
    }


def test_what_is_written_is_read_again(tmp_path):
    shared = [1, {"a": 1e-3}]
    words = ["1e-3", "1e5", "-2E+7", "2001-01-01", "null", "1", "1.5", "yes", "~", "", "a: b", "*a"]
    words += ["<<", "=", "Å", "two\nlines", " x ", "'", '"', "0x1f", "1:30", ".inf", "!a", "# no"]
    values = {"b": shared, "a": shared, "words": words, "none": None, "floats": [1e300, -0.1, 1e-9]}
    values |= {word: k for k, word in enumerate(words) if word != "<<"}
    found = read(tmp_path, in_yaml(values)).values
    assert found == values and list(found) == list(values)
    assert [type(v) for v in found["words"]] == [str] * len(words)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)
REFUSED = {
    "bomb": (BOMB, "line 2: .*alias"),
    "itself": ("a: &x [*x]", "line 1: .*alias"),
    "mapping of itself": ("a: &x {b: *x}", "alias"),
    "alias as a key": ("? &x a\n: 1\n? *x\n: 2", "alias"),
    "lists": ("[" * 5000, "nested more than"),
    "mappings": ("{a: " * 5000, "nested more than"),
    "dashes": ("- " * 5000, "nested more than"),
    "keys in keys": ("? " * 5000, "nested more than"),
    "brackets": ("[" * 39 + "]" * 39, "must be a list of 'key: value' lines"),
    "an int": ('a: 1\nb: !!int "x"', "line 2: 'x' is no int"),
    "a float": ('a: !!float "x"', "'x' is no float"),
    "a bool": ('a: !!bool "x"', "'x' is no bool"),
    "digits of none": ("a: 0x_", "no int"),
    "a timestamp": ('a: !!timestamp "x"', "tag !!timestamp"),
    "binary": ('a: !!binary "x"', "tag !!binary"),
    "a set": ("a: !!set {b, c}", "tag !!set"),
    "a tag of one's own": ("a: !mine x", "tag !mine"),
    "Python": ('a: !!python/object/apply:os.system ["touch RAN"]', "tag !!python"),
    "a list that is a word": ("a: !!seq x", "tag !!seq"),
    "digits": ("a: " + "9" * 5000, "too long for a number"),
    "sixties": ("a: " + "1:" * 5000 + "1", "too long for a number"),
    "beyond 64 bits": ("a: 9223372036854775808", "too large a number"),
    "beyond 64 bits, in hex": ("a: -0x" + "f" * 17, "too large a number"),
    "merge": ("<<: {a: 1}", "line 1: merge keys"),
    "a list as key": ("[a]: 1", "a key is a word"),
    "a mapping as key": ("{a: 1}: 1", "a key is a word"),
    "twice": ("a: {b: 1, b: 2}", r"a\.b is given twice"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: not valid YAML"),
    "tab": ("a: 1\n\tb: 2", "line 2: not valid YAML"),
    "zero byte": ("a: b\0", "not a text file"),
    "zero byte, written": ('a: "\\0"', "line 1: .* no text"),
    "half a character": ('a: "\\ud800"', "line 1: .* no text"),
    "no character": ('a: "\\UFFFFFFFF"', "not a text file"),
    "directive": ("%YAML " + "1" * 5000 + ".1\n---\na: 1", "not a text file"),
    "bytes": (bytes(range(256)), "not a text file"),
    "half of UTF-16": (b"\xff\xfe\x00", "not a text file"),
    "empty": ("", "the file is empty"),
    "a comment": ("# a\n---\n", "the file is empty"),
    "a word": ("word", "must be a list of 'key: value' lines, found 'word'"),
    "no end": ("a: 'b", "not valid YAML"),
    "too much": ("a: 1\n" * 100_000, "characters are no settings"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_rest_is_refused_at_once(tmp_path, kind):
    content, message = REFUSED[kind]
    begin = time.process_time()
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path, content)
    assert time.process_time() - begin < 3
    assert "\n" not in str(raised.value) and "a.yaml" in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_values_of_the_command_line():
    assert yaml_value("[1, 2.5, x]", "a.b") == [1, 2.5, "x"]
    for text in ("[" * 5000, "*a", "!!int x", "9" * 5000):
        with pytest.raises(InputError, match=r"^a\.b"):
            yaml_value(text, "a.b")
