"""One model over many molecules: train, sample, evaluate and report on a tiny set made here, and
bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from rdkit import Chem

from orbitwise.cli.app import main
from orbitwise.errors import InputError
from orbitwise.methods.molecules.many import conformers as binding
from orbitwise.methods.molecules.many.parts import build, data_scale
from orbitwise.methods.molecules.many.sampling import draw, handedness
from orbitwise.molecules.batch import ConformerData
from orbitwise.molecules.files.sets import read_conformer_set
from orbitwise.molecules.files.structures import write_sdf
from orbitwise.molecules.molecule import choose_isomer, embed, parse_smiles
from orbitwise.objectives.widths import OverParts
from orbitwise.runs.config import load

SMILES = [
    "CCO",
    "C[C@H](O)CC",
    "C/C=C/C",
    "CC(=O)NC",
    "OCCO",
    "CCC=O",
    "CCS",
    "C[C@@H](F)Cl",
    "CCCN",
    "CCOC",
]
TINY = [
    "network.hidden=16",
    "network.vectors=8",
    "network.layers=2",
    "max_group=8",
    "train.batch_size=8",
]
TINY += ["train.steps=6", "sampling.steps=4", "test_share=0.3", "train.checkpoint_every=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("molecules")
    for k, smiles in enumerate(SMILES):
        mol = choose_isomer(parse_smiles(smiles))
        write_sdf(path / f"{k}.sdf", mol, embed(mol, 3, k))
    return path


def written(run) -> list[Chem.Mol]:
    """The samples as another program reads them; an untrained network draws no molecules, so
    nothing is sanitised."""
    return list(Chem.SDMolSupplier(str(run / "samples.sdf"), removeHs=False, sanitize=False))


def config(folder, *more: str):
    return load("molecule_conformers/default", [f"data={folder}", *TINY, *more])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "r"
    binding.train(config(folder), out)
    return out


def test_every_action_from_the_command_line(folder, run, capsys):
    assert main(["train", "molecule_conformers/default", f"data={folder}", *TINY, "--dry-run"]) == 0
    assert "# parameters:" in capsys.readouterr().out
    assert (
        main(["train", "molecule_conformers/default", f"data={folder}", *TINY, "--out", str(run)])
        == 0
    )  # resumes
    assert "6 steps" in capsys.readouterr().out
    assert main(["sample", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr().out
    assert "recall AMR" in said and "ETKDGv3" in said and "7 network calls" in said
    held_out = config(folder).read("test").molecules
    assert len(written(run)) == sum(2 * len(m) for m in held_out)
    summary = json.loads((run / "summary.json").read_text())
    assert {"commit", "versions", "device", "seed"} <= set(summary)
    row = summary["molecules"][0]
    assert row["model"]["samples"] == row["ETKDGv3"]["samples"] == 2 * row["model"]["references"]
    assert "data:image/png" in (run / "report.html").read_text()
    assert main(["report", str(run)]) == 0


def test_samples_of_given_smiles_are_those_molecules(run, tmp_path):
    given = tmp_path / "given.smi"
    given.write_text("# two hands\nC[C@H](F)Cl one\nC[C@@H](F)Cl other\n\nCCCO\n")
    found = []
    for _ in range(2):
        binding.sample(run, 4, seed=3, molecules=given)
        found.append(written(run))
    names = ["C[C@H](F)Cl"] * 4 + ["C[C@@H](F)Cl"] * 4 + ["CCCO"] * 4
    assert [mol.GetProp("_Name") for mol in found[0]] == names
    x, again = ([mol.GetConformer().GetPositions() for mol in mols] for mols in found)
    assert all(np.array_equal(a, b) for a, b in zip(x, again, strict=True))
    assert np.abs(x[0] - x[1]).max() > 0.1
    with pytest.raises(InputError, match="of molecules without reference conformers"):
        binding.evaluate(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CCO\nC1CC\n", "given.smi, line 2: cannot read the SMILES 'C1CC'"),
        ("CCO.CC\n", "line 1: .*2 separate fragments"),
        ("[Na+]\n", "line 1: .*lone ion"),
        ("CXC\n", "line 1: cannot read"),
        ("\n# nothing\n", "there is no SMILES in it"),
    ],
)
def test_smiles_that_cannot_be_used_are_named(run, tmp_path, text, message):
    (tmp_path / "given.smi").write_text(text)
    with pytest.raises(InputError, match=message):
        binding.sample(run, 2, molecules=tmp_path / "given.smi")


def test_a_killed_training_goes_on_where_it_was(folder, run, tmp_path):
    short = config(folder)

    class Killed(Exception):
        pass

    found = short.read("train")
    data = ConformerData(found.molecules, max_group=8, buckets=short.buckets)

    def die(moment):
        if moment.step == 4:
            raise Killed

    made = build(short, data_scale(data, short.prior))
    key = short.model_dump(mode="json", exclude={"train", "sampling", "data"}) | {
        "data": binding._digest(data)
    }
    with pytest.raises(Killed):
        binding.fit(made.denoiser, made.objective, data, short.train, tmp_path, key, on_step=die)
    outcome = binding.train(short, tmp_path)
    assert outcome.result.resumed_at == 3
    whole = binding.load(run)[1].denoiser.state_dict()
    for name, value in binding.load(tmp_path)[1].denoiser.state_dict().items():
        torch.testing.assert_close(value, whole[name])


@pytest.mark.parametrize("prior", ["harmonic", "gaussian"])
def test_all_targets_agree_in_the_mean(folder, prior):
    """Augmentation, SNIS and the exact target have one expectation; alignment has another."""
    data = ConformerData(config(folder).read("train", "val", "test").molecules, max_group=8)
    batch = data.batch(torch.full((3000,), 3))  # one conformer, many times
    scale = data_scale(data, prior)
    found = {}
    for target in ("augmentation", "snis", "exact", "aligned"):
        made = build(config(folder, f"target={target}", f"prior={prior}", "proposals=20"), scale)
        objective = made.objective.objective.on(batch)
        t = torch.full((len(batch),), 0.45)
        xt, y = objective.pair(batch.x, t, batch.mask, torch.Generator().manual_seed(0))
        inner = (y * xt).sum((1, 2))  # a figure with a mean that is not 0
        found[target] = (inner.mean(), inner.std() / len(inner) ** 0.5)
    for target in ("snis", "exact"):
        apart = (found[target][0] - found["augmentation"][0]).abs()
        assert apart < 4 * (found[target][1] ** 2 + found["augmentation"][1] ** 2).sqrt()
    assert found["aligned"][0] - found["exact"][0] > 4 * found["aligned"][1]


def test_a_batch_in_parts_has_the_losses_of_its_parts(folder):
    data = ConformerData(config(folder).read("train").molecules, buckets=2)
    made = build(config(folder), data_scale(data, "harmonic"))
    batch = data[torch.arange(10)]
    gen = torch.Generator().manual_seed(0)
    losses = made.objective(made.denoiser, batch, gen)
    gen = torch.Generator().manual_seed(0)
    parts = [made.objective.objective(made.denoiser, part, gen) for part in batch.parts]
    assert isinstance(made.objective, OverParts) and losses.shape == (10,)
    torch.testing.assert_close(losses, torch.cat(parts))


def test_handedness_counts_mirror_images_and_swapped_hydrogens(folder):
    (m,) = [m for m in read_conformer_set(folder).molecules if m.smiles == "CC[C@H](C)O"]
    x = m.positions_angstrom.astype(float)
    assert handedness(m, x).isomer == handedness(m, x).labelled == 1
    mirrored = np.concatenate([x, -x])
    assert handedness(m, mirrored).isomer == handedness(m, mirrored).labelled == 0.5
    hydrogens = [
        a.GetIdx()
        for a in m.mol.GetAtoms()
        if a.GetAtomicNum() == 1 and a.GetNeighbors()[0].GetDegree() == 4
    ]
    ch2 = next(
        [h for h in hydrogens if m.mol.GetAtomWithIdx(h).GetNeighbors()[0].GetIdx() == c.GetIdx()]
        for c in m.mol.GetAtoms()
        if c.GetTotalNumHs(includeNeighbors=True) == 2
    )
    swapped = x.copy()
    swapped[:, ch2] = x[:, ch2[::-1]]
    assert handedness(m, swapped).isomer == 1 and handedness(m, swapped).labelled == 0


def test_draws_fit_their_molecules_and_ask_for_at_least_one(folder, run):
    own, made, step = binding.load(run)
    assert step == 6
    molecules = read_conformer_set(folder).molecules[:4]
    small = own.sampling.model_copy(update={"atoms_at_once": 30})
    drawn = draw(made.denoiser, molecules, [3, 1, 2, 4], small, seed=1)
    assert [x.shape for x in drawn.positions] == [
        (n, m.atoms, 3) for n, m in zip([3, 1, 2, 4], molecules, strict=True)
    ]
    assert all(np.isfinite(x).all() and np.abs(x.mean(1)).max() < 1e-4 for x in drawn.positions)
    with pytest.raises(InputError, match="at least one sample"):
        draw(made.denoiser, molecules, [1, 1, 0, 1], small)


def test_wrong_use_is_said_in_words(folder, run, tmp_path, capsys):
    assert main(["sample", str(run), "--n", "0"]) == 2
    assert "n must be at least 1" in capsys.readouterr().err
    assert (
        main(["train", "molecule_conformers/default", "data=nowhere.sdf", "--out", str(tmp_path)])
        == 2
    )
    assert "nowhere.sdf: no such file" in capsys.readouterr().err
    assert (
        main(
            [
                "train",
                "molecule_conformers/default",
                f"data={folder}",
                "max_atoms=4",
                "--out",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "no usable molecule" in capsys.readouterr().err
    with pytest.raises(InputError, match="there are no samples yet"):
        binding.train(config(folder, "train.steps=1"), tmp_path / "new")
        binding.evaluate(tmp_path / "new")
