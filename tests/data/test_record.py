"""A command replaces its own files, as it left them, and nobody else's."""

from __future__ import annotations

import json
import os

import pytest

from orbitwise.data.folder import replacing
from orbitwise.data.record import FILES, OWN, Record, grows, recorded


def write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != OWN)


def test_own_files_are_replaced_and_counted_as_own(tmp_path):
    for text in ("first", "second", "third"):
        with recorded(tmp_path) as record:
            write(tmp_path / "summary.json", text)
            write(tmp_path / "samples" / "one.pdb", text)
            assert record.owns(tmp_path / "summary.json")
    assert names(tmp_path) == ["samples", "summary.json"]
    assert (tmp_path / "samples" / "one.pdb").read_text() == "third"


@pytest.mark.parametrize("whose", ["another's", "changed since", "a link"])
def test_what_is_not_its_own_keeps_its_content(tmp_path, whose, capfd):
    path = tmp_path / "report.html"
    if whose == "changed since":
        with recorded(tmp_path):
            write(path, "ours")
    if whose == "a link":
        (tmp_path / "target").write_text("mine")
        path.symlink_to(tmp_path / "target")
    else:
        path.write_text("mine")
    with recorded(tmp_path):
        write(path, "new")
        write(path, "newer")
    assert path.read_text() == "newer" and not path.is_symlink()
    assert (tmp_path / "report.kept.html").read_text() == "mine"
    assert capfd.readouterr().err.count("report.kept.html") == 1

    path.write_text("mine again")
    with recorded(tmp_path):
        write(path, "newest")
    assert (tmp_path / "report.kept1.html").read_text() == "mine again"
    assert (tmp_path / "report.kept.html").read_text() == "mine"


def test_only_own_unchanged_files_are_dropped(tmp_path):
    with recorded(tmp_path):
        for k in range(4):
            write(tmp_path / f"0{k}_A.cif", str(k))
    (tmp_path / "01_A.cif").write_text("relaxed by hand")
    (tmp_path / "09_A.cif").write_text("mine")
    with recorded(tmp_path) as record:
        record.drop("*.cif", but=[tmp_path / "00_A.cif"])
    assert names(tmp_path) == ["00_A.cif", "01_A.cif", "09_A.cif"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_replacement_leaves_no_stranger(tmp_path, monkeypatch, when):
    """The record comes first, so that both contents are known whatever was reached."""
    path = tmp_path / "summary.json"
    with recorded(tmp_path):
        write(path, "old")
    real = os.replace

    def killed(*args):
        if when == "after":
            real(*args)
        raise SystemExit

    with monkeypatch.context() as patch, recorded(tmp_path), pytest.raises(SystemExit):
        patch.setattr(os, "replace", killed)
        write(path, "new")
    assert path.read_text() == {"before": "old", "after": "new"}[when]
    with recorded(tmp_path):
        write(path, "newest")
    assert names(tmp_path) == ["summary.json"] and path.read_text() == "newest"


@pytest.mark.parametrize("tail", ['{"name": "summ', "\x00\x00\x00", "[1]", '{"name": 3}', "{}"])
def test_a_record_with_a_damaged_line_keeps_the_others(tmp_path, tail):
    with recorded(tmp_path):
        write(tmp_path / "a", "1")
    with open(tmp_path / OWN / FILES, "a") as file:
        file.write("\n" + tail)
    with recorded(tmp_path):
        write(tmp_path / "b", "2")
    record = Record(tmp_path)
    assert record.owns(tmp_path / "a") and record.owns(tmp_path / "b")


def test_logs_stay_own_while_they_grow(tmp_path):
    log = tmp_path / "metrics.jsonl"
    with recorded(tmp_path):
        grows(log)
        log.write_text(json.dumps({"step": 1}))
    with recorded(tmp_path) as record:
        log.write_text("more")
        assert record.owns(log)
        grows(log)
    assert names(tmp_path) == ["metrics.jsonl"]


def test_nothing_is_noted_outside_of_commands(tmp_path):
    write(tmp_path / "a", "1")
    write(tmp_path / "a", "2")
    assert names(tmp_path) == ["a"] and not (tmp_path / OWN).exists()
    with recorded(tmp_path / "folder"):
        write(tmp_path / "a", "3")
    assert names(tmp_path) == ["a"]
