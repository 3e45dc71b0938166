"""Protein backbones on a tiny set made here: train, resume, sample, evaluate, report; designability
by commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("biotite", reason="needs orbitwise[proteins]")

from orbitwise.errors import InputError
from orbitwise.methods.proteins import backbones as method
from orbitwise.proteins.chain import Chain
from orbitwise.proteins.designability import DesignabilityConfig, designability
from orbitwise.proteins.files import read_chains, write_pdb
from orbitwise.proteins.ideal_backbones import HELIX, STRAND, build_backbone
from orbitwise.proteins.judge import JudgeConfig, judge
from orbitwise.runs.config import load

SMALL = [
    "network.hidden=16",
    "network.layers=1",
    "network.heads=2",
    "train.batch_size=8",
    "train.warmup=5",
]
SMALL += [
    "train.ema_decay=0.9",
    "train.accelerator=cpu",
    "sampling.steps=6",
    "shortest=8",
    "judge.novelty=3",
    "judge.pairs=20",
]


def backbones(count: int, seed: int) -> list[Chain]:
    """Helices and strands of 8 to 14 residues with a little disorder in their torsions."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        residues = int(rng.integers(8, 15))
        torsions = torch.tensor(HELIX if k % 2 else STRAND)[:, None] + torch.from_numpy(
            rng.normal(0, 6, (2, residues))
        )
        found.append(Chain(build_backbone(*torsions).numpy(), "A" * residues, f"made_{k:02d}"))
    return found


@pytest.fixture(scope="module", autouse=True)
def few_bootstraps():
    """The standard errors, which nothing here looks at, from fewer draws than a real judgement
    takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orbitwise.proteins.judge._SPLITS", 3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("chains")
    for chain in backbones(40, 0):
        write_pdb(path / f"{chain.name}.pdb", chain)
    return path


def configured(folder: Path, *more: str, preset: str = "ca"):
    return load(f"protein_backbones/{preset}", [f"data={folder}", "train.steps=60", *SMALL, *more])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ca"
    outcome = method.train(configured(folder), out)
    assert outcome.result.steps == 60
    assert outcome.lines[1] == "chains: 36 to train on, 4 held out, 8 to 64 residues"
    method.sample(out, n=10, seed=1)
    return out


def test_training_learns(run):
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9


def test_repeating_the_command_changes_nothing(run, folder):
    before = (run / "checkpoint.safetensors").read_bytes()
    assert method.train(configured(folder, "sampling.steps=7"), run).result.resumed_at == 60
    assert (run / "checkpoint.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="target: 'exact' before, 'snis' now"):
        method.train(configured(folder, "target=snis"), run)
    method.train(configured(folder), run)


def test_samples_are_written_and_reproducible(run):
    first = {p.name: p.read_text() for p in (run / "samples").glob("*.pdb")}
    assert sorted(first)[0] == "sample_0001.pdb" and len(first) == 10
    with np.load(run / "samples.npz") as file:
        assert len(file["positions_angstrom"]) == file["lengths"].sum() and file["evaluations"] == 6
        lengths = file["lengths"].tolist()
    assert {8 <= n <= 14 for n in lengths} == {True}
    method.sample(run, n=10, seed=1)
    assert {p.name: p.read_text() for p in (run / "samples").glob("*.pdb")} == first


def test_evaluate_and_report(run):
    outcome = method.evaluate(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["verdict"]["samples"]["chains"] == 10 and summary["verdict"]["evaluations"] == 6
    assert [g["name"] for g in summary["verdict"]["geometry"]] == [
        "ca_ca",
        "ca_ca_ca",
        "ca_torsion",
    ]
    assert summary["provenance"]["versions"]["torch"]
    page = (run / "report.html").read_text()
    for text in ("Size against length", "Cα–Cα", "right-handed turns", "data:image/png;base64"):
        assert text in page
    (run / "report.html").unlink()
    assert method.report(run).lines == outcome.lines and (run / "report.html").is_file()
    method.sample(run, n=9, seed=2)
    with pytest.raises(InputError, match="samples changed after the evaluation"):
        method.report(run)
    assert len(list((run / "samples").glob("*.pdb"))) == 9
    method.sample(run, n=10, seed=1)


@pytest.mark.parametrize("target", ["augmentation", "aligned", "snis"])
def test_every_target_trains(folder, tmp_path, target):
    config = configured(folder, f"target={target}", "proposals=16", "train.steps=3")
    assert method.train(config, tmp_path / target).result.steps == 3


def test_backbone_mode_and_given_lengths(folder, tmp_path):
    config = configured(folder, "sampling.lengths=[9, 12]", "train.steps=4", preset="backbone")
    method.train(config, tmp_path / "run")
    drawn = method.sample(tmp_path / "run", n=4).result
    assert [c.xyz.shape for c in drawn.chains] == [(9, 3, 3), (12, 3, 3)] * 2
    assert len(method.evaluate(tmp_path / "run").result.verdict.geometry) == 12
    assert method.plan(config).energy_calls == 0


def test_bad_configurations(folder, tmp_path):
    with pytest.raises(InputError, match="shortest \\(8\\) is more than longest \\(6\\)"):
        configured(folder, "longest=6")
    with pytest.raises(InputError, match="less than or equal to 128"):
        configured(folder, "longest=400")
    with pytest.raises(InputError, match="0 of 40 chains have 50 to 64 residues"):
        method.train(configured(folder, "shortest=50"), tmp_path / "x")
    with pytest.raises(InputError, match="mode=backbone"):
        configured(
            folder,
            "designability.sequence_command=a {pdb} {fasta}",
            "designability.fold_command=b {fasta} {folder}",
        )
    method.train(configured(folder, "sampling.lengths=[2]", "train.steps=1"), tmp_path / "y")
    with pytest.raises(InputError, match=r"sampling.lengths: 2 residues"):
        method.sample(tmp_path / "y", n=1)
    with pytest.raises(InputError, match="no samples yet"):
        method.evaluate(tmp_path / "y")


def test_a_broken_chain_is_told_and_skipped_on_request(folder, tmp_path):
    path = tmp_path / "chains"
    path.mkdir()
    for file in folder.glob("*.pdb"):
        (path / file.name).write_text(file.read_text())
    lines = (path / "made_03.pdb").read_text().splitlines(True)
    (path / "made_03.pdb").write_text("".join(lines[:9] + lines[15:]))
    with pytest.raises(
        InputError, match=r"made_03.pdb, chain A, residue ALA 6: the chain is broken"
    ):
        method.train(configured(path, preset="backbone"), tmp_path / "run")
    outcome = method.train(
        configured(path, "skip_bad=true", "train.steps=2", preset="backbone"), tmp_path / "run"
    )
    assert any(
        "1 chains skipped, the first: " in line and "made_03.pdb" in line for line in outcome.lines
    )


# ---- the judge


def test_judge_sees_copies_mirror_images_and_noise():
    training, held_out = backbones(40, 1), backbones(30, 2)
    copies = judge(training[:12], held_out, training, JudgeConfig(pairs=40, novelty=4), 9)
    assert copies.novelty.value == pytest.approx(1, abs=1e-4) and copies.similar.value == 1
    assert copies.samples.right == 1.0 and copies.samples.clashes.value == 0
    assert copies.geometry[0].w1 < 0.02 and copies.novelty_held_out.value < 1
    mirrored = [Chain(-c.xyz, c.sequence, c.name) for c in training[:12]]
    assert (
        judge(mirrored, held_out, training, JudgeConfig(pairs=0, novelty=0), 9).samples.right == 0.0
    )
    rng = np.random.default_rng(3)
    noisy = [Chain(c.xyz + rng.normal(0, 0.5, c.xyz.shape), c.sequence) for c in training[:12]]
    found = judge(noisy, held_out, training, JudgeConfig(pairs=0, novelty=0), 9)
    assert found.geometry[0].w1 > 10 * found.geometry[0].w1_halves
    assert found.geometry[0].spread > 0.3 and found.diversity.count == 0


# ---- designability, with stand-ins for ProteinMPNN and ESMFold

SEQUENCES = """
import sys
pdb, fasta = sys.argv[1:3]
residues = sum(line[12:16].strip() == "CA" for line in open(pdb))
open(fasta, "w").write(f">one\\n{'A' * residues}\\n>two\\n{'G' * residues}\\n")
"""
FOLD = """
import pathlib, sys
fasta, folder, source, shift = sys.argv[1:5]
lines = open(source.replace("SAMPLE", pathlib.Path(fasta).parent.name)).read().splitlines(True)
records = open(fasta).read().split(">")[1:]
for k, record in enumerate(records):
    by = k + float(shift)
    moved = [l[:30] + f"{float(l[30:38]) + by * (int(l[22:26]) % 2):8.3f}" + l[38:]
             if l.startswith("ATOM") else l for l in lines]
    (pathlib.Path(folder) / f"{k}.pdb").write_text("".join(moved))
"""


@pytest.fixture
def commands(tmp_path) -> dict[str, str]:
    for name, text in (("sequences.py", SEQUENCES), ("fold.py", FOLD)):
        (tmp_path / name).write_text(text)
    python = sys.executable
    (tmp_path / "in").mkdir()
    return {
        "sequence_command": f"{python} {tmp_path / 'sequences.py'} {{pdb}} {{fasta}}",
        "fold_command": (
            f"{python} {tmp_path / 'fold.py'} {{fasta}} {{folder}}"
            f" {tmp_path / 'in' / 'SAMPLE.pdb'} 0"
        ),
    }


def test_designability_takes_the_best_sequence(tmp_path, commands):
    chains = backbones(2, 4)
    for chain in chains:
        write_pdb(tmp_path / "in" / f"{chain.name}.pdb", chain)
    found = designability(chains, DesignabilityConfig(**commands), tmp_path / "work")
    assert found.sequences == (2, 2) and max(found.sc_rmsd) < 2e-3 and found.share == 1.0
    # every second residue moved by 3 Å along x, so after superposition less than 3/2
    far = commands | {"fold_command": commands["fold_command"][:-1] + "3"}
    found = designability(chains, DesignabilityConfig(**far), tmp_path / "work")
    assert all(0.5 < v < 1.5 for v in found.sc_rmsd)


@pytest.mark.parametrize(
    ("which", "code", "told"),
    [
        (
            "sequence",
            "import sys; sys.exit('no weights here')",
            "failed with exit code 1; it said: no weights here",
        ),
        ("sequence", "pass", "sequence_command left no"),
        (
            "sequence",
            "import sys; open(sys.argv[2], 'w').write('>a\\nAAA\\n')",
            r"\d+ residues, it has \[3\]",
        ),
        ("fold", "pass", "left 0 PDB files for 2 sequences"),
        ("fold", "import time; time.sleep(60)", r"took more than 1 s \(designability.timeout\)"),
    ],
)
def test_a_command_that_fails_is_told(tmp_path, commands, which, code, told):
    chain = backbones(1, 5)[0]
    write_pdb(tmp_path / "in" / f"{chain.name}.pdb", chain)
    (tmp_path / "broken.py").write_text(code)
    places = {"sequence": "{pdb} {fasta}", "fold": "{fasta} {folder}"}[which]
    commands[f"{which}_command"] = f"{sys.executable} {tmp_path / 'broken.py'} {places}"
    slow = 1.0 if "sleep" in code else 60.0
    with pytest.raises(InputError, match=f"designability of made_00: .*{told}"):
        designability([chain], DesignabilityConfig(**commands, timeout=slow), tmp_path / "work")


def test_a_command_that_is_not_there_or_has_no_place_for_files(tmp_path, commands):
    commands["sequence_command"] = "no-such-program {pdb} {fasta}"
    with pytest.raises(InputError, match="'no-such-program' cannot be run"):
        designability(backbones(1, 6), DesignabilityConfig(**commands), tmp_path / "work")
    with pytest.raises(ValueError, match=r"has no place for \{folder\}"):
        DesignabilityConfig(sequence_command="a {pdb} {fasta}", fold_command="b {fasta}")


@pytest.mark.slow
def test_designability_is_part_of_evaluate(folder, tmp_path, commands):
    run = tmp_path / "run"
    quoted = [f"designability.{k}={v}" for k, v in commands.items()]
    method.train(
        configured(folder, "train.steps=2", "designability.samples=2", *quoted, preset="backbone"),
        run,
    )
    for chain in method.sample(run, n=3).result.chains:
        write_pdb(tmp_path / "in" / f"{chain.name}.pdb", chain)
    with pytest.raises(InputError, match=r"sequence_command.*config\.yaml, line \d+.*--trust"):
        method.evaluate(run)  # the folder may come from somebody else
    assert not (run / "designability").exists()
    outcome = method.evaluate(run, trust=True)
    assert "designable (scRMSD < 2 Å): 100% of 2 samples" in outcome.lines
    assert method.report(run).result.designability.share == 1.0
    assert (run / "designability" / "sample_0002" / "sequences.fasta").is_file()


def test_written_samples_can_be_read_as_data(run):
    files = sorted((run / "samples").glob("*.pdb"))
    with np.load(run / "samples.npz") as file:
        first = file["positions_angstrom"][: file["lengths"][0]]
    # an untrained model breaks chains: read without the geometry being judged
    lines = [line for line in files[0].read_text().splitlines() if line.startswith("ATOM")]
    assert np.allclose(
        [[float(line[k : k + 8]) for k in (30, 38, 46)] for line in lines], first[:, 0], atol=6e-4
    )
    with pytest.raises(InputError, match="the chain is broken"):
        read_chains(run / "samples")
