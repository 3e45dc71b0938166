"""Damaged files of every kind are read or refused in a clear line: no unexpected error, no endless
reading, no point that is none."""

import numpy as np
import pytest

from contracts.fuzzing.mutations import mutated
from contracts.fuzzing.outcome import HANG, NONSENSE, READ, REFUSED, TRACEBACK, nonsense, outcome
from contracts.fuzzing.readers import READERS
from orbitwise.errors import InputError

CASES = 25


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_damage_is_refused_or_harmless(reader, tmp_path):
    path = tmp_path / reader.name
    reader.sound(path)
    sound = path.read_bytes()
    assert outcome(reader.read, path) == (READ, "")
    refused = 0
    for case in range(CASES):
        damaged = mutated(sound, reader.suffix, np.random.default_rng([case, len(reader.name)]))
        path.write_bytes(damaged)
        kind, why = outcome(reader.read, path)
        assert kind in (READ, REFUSED), f"case {case}: {kind}: {why}"
        refused += kind == REFUSED
    path.write_bytes(b"\x00\x01 of no kind")
    assert outcome(reader.read, path)[0] != TRACEBACK


def test_what_is_a_fault(tmp_path):
    def fails(path):
        raise KeyError("x")

    def refuses(path):
        raise InputError("line 3: no number")

    def waits(path):
        while True:
            pass

    assert outcome(fails, tmp_path)[0] == TRACEBACK
    assert outcome(refuses, tmp_path) == (REFUSED, "line 3: no number")
    assert outcome(lambda path: {"x": [np.array([[0, 0, np.nan]])]}, tmp_path)[0] == NONSENSE
    assert outcome(lambda path: {"x": [np.zeros((2, 3))]}, tmp_path) == (READ, "")
    assert outcome(waits, tmp_path)[0] == HANG
    assert list(nonsense(np.full((1, 3), 1e7)))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".cif"])
def test_damage_damages_and_can_be_repeated(suffix, tmp_path):
    reader = next(r for r in READERS if r.suffix == suffix)
    path = tmp_path / reader.name
    reader.sound(path)
    sound = path.read_bytes()
    once, again = (
        [mutated(sound, suffix, np.random.default_rng(k)) for k in range(20)] for _ in range(2)
    )
    assert sum(a != sound for a in once) >= 18
    if suffix == ".cif":  # archives hold the time at which they were written
        assert once == again
