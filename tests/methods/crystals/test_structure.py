"""Crystal structure prediction from a file to its report, on a set that the test makes itself."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

pytest.importorskip("pymatgen")

from orbitwise.cli.app import main
from orbitwise.crystals.crystal import Crystal, crystal_batch
from orbitwise.crystals.domain import ratio_of
from orbitwise.crystals.files.read import write_cif
from orbitwise.crystals.matching.consensus import chosen, picked, representatives, signatures
from orbitwise.errors import InputError
from orbitwise.methods.crystals import structure
from orbitwise.methods.crystals.guesses import GuessedCrystals
from orbitwise.methods.crystals.model import load_model, package
from orbitwise.methods.crystals.parts import CrystalModelConfig
from orbitwise.runs.config import load

IDEAL = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskites(
    numbers=((38, 22), (56, 22), (20, 22), (38, 40), (56, 40), (20, 40)),
) -> list[Crystal]:
    return [
        Crystal(IDEAL, (3.6 + 0.004 * (a + b)) * np.eye(3), np.array([a, b, 8, 8, 8]), f"c{a}-{b}")
        for a, b in numbers
    ]


def settings(folder, **changes) -> list[str]:
    write_cif(folder / "cifs", perovskites())
    given = {
        "data": folder / "cifs",
        "test_data": folder / "cifs",
        "splits": "[]",
        "test_split": "null",
        "guesses": 2,
        "model.hidden": 32,
        "model.layers": 2,
        "train.steps": 60,
        "train.batch_size": 12,
        "train.warmup": 5,
        "train.ema_decay": 0.9,
        "sampling.steps": 8,
        "sampling.consensus": 1,
        "workers": 1,
    }
    return [f"{key}={value}" for key, value in (given | changes).items()]


def trained(tmp_path, **changes):
    """The folder of a run on the small set of this module, by the command."""
    run = tmp_path / "run"
    given = ["train", "crystal_structure/perov5", *settings(tmp_path, **changes), "--out", str(run)]
    assert main(given) == 0
    return run


def test_train_sample_evaluate_report(tmp_path, capsys):
    run = trained(tmp_path, **{"sampling.consensus": 2})
    assert main(["sample", str(run)]) == 0
    before = {f: f.stat().st_mtime_ns for f in (run / "guesses" / "stages").iterdir()}
    assert main(["sample", str(run)]) == 0  # kept, not drawn again
    assert before == {f: f.stat().st_mtime_ns for f in (run / "guesses" / "stages").iterdir()}
    assert main(["evaluate", str(run)]) == 0
    told = capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    figures = summary["figures"]
    assert figures["items"] == 6 and figures["guesses"] == 2 and figures["evaluations"] == 16
    assert 0 <= figures["match1"]["value"] <= figures["match_all"]["value"] <= 1
    assert summary["seeds"] == {"training": 0, "guesses": 0} and "torch" in summary["versions"]
    assert "the first for most of the draws: it knows all 32 network calls" in told
    assert "6 compositions" in told and "Crystal structures" in (run / "report.html").read_text()
    # the guesses are those of the model: same seed, same structures
    config = structure.load_run(run)
    data = structure.test_set(config)
    found = GuessedCrystals.load(run / "guesses", data.batch)
    assert found.guesses == 2 and not torch.equal(found.frac[0], found.frac[1])
    # the packaged model is the run's, in half precision
    model = load_model(run)
    file = package(
        model,
        CrystalModelConfig.model_validate(config.model.model_dump()),
        tmp_path / "small.safetensors",
    )
    small = load_model(file)
    for a, b in zip(model.denoiser.parameters(), small.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert small.domain == model.domain and small.domain.ratios == ((1, 1, 3),)
    assert len(small.draw_crystals(np.array([38, 22, 8, 8, 8]), 3)) == 3
    with pytest.raises(InputError, match="never seen"):
        small.draw_crystals(np.array([79, 22, 8, 8, 8]), 1)


def test_an_interrupted_sampling_goes_on(tmp_path):
    run = trained(tmp_path, **{"train.steps": 5})
    structure.sample(run, 3)
    rounds = sorted((run / "guesses" / "stages").glob("draw-*.safetensors"))
    whole = [r.read_bytes() for r in rounds]
    rounds[1].unlink()
    rounds[2].write_bytes(whole[2][:50])  # half written
    structure.sample(run, 3)
    again = GuessedCrystals.load(run / "guesses", structure.test_set(structure.load_run(run)).batch)
    assert again.guesses == 3
    assert (
        sorted((run / "guesses" / "stages").glob("draw-*.safetensors"))[0].read_bytes() == whole[0]
    )


def test_what_cannot_be_done_is_said(tmp_path, capsys):
    run = tmp_path / "run"
    given = settings(tmp_path, **{"train.steps": 2, "test_data": "null"})
    assert main(["train", "crystal_structure/perov5", *given, "--out", str(run)]) == 0
    assert main(["sample", str(run)]) != 0
    assert "nothing to guess" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) != 0
    assert (
        main(
            [
                "train",
                "crystal_structure/perov5",
                *settings(tmp_path, data=tmp_path / "none.npz"),
                "--out",
                str(run),
            ]
        )
        != 0
    )
    error = capsys.readouterr().err
    assert "none.npz" in error and "Traceback" not in error
    (tmp_path / "cifs" / "bad.cif").write_text("data_bad\n_cell_length_a nonsense\n")
    assert main(["train", "crystal_structure/perov5", *given, "--out", str(tmp_path / "b")]) != 0
    assert "bad.cif" in capsys.readouterr().err
    assert (
        main(
            [
                "train",
                "crystal_structure/perov5",
                *given,
                "skip_bad=true",
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 0
    )
    assert "1 records were left out" in capsys.readouterr().out


def test_a_dry_run_counts_network_calls(tmp_path):
    config = load("crystal_structure/perov5", settings(tmp_path, **{"sampling.consensus": 3}))
    plan = structure.plan(config)
    assert plan.energy_calls == 0 and plan.model_calls == 6 * 2 * 8 * 3 and plan.parameters > 5000


def moved(crystal: Crystal, shift: float) -> Crystal:
    """With its second atom displaced, in fractions of the cell."""
    return Crystal(
        crystal.frac + shift * np.array([[0], [1], [0], [0], [0]]), crystal.lattice, crystal.species
    )


def signature(*crystals: Crystal) -> np.ndarray:
    first = crystals[0]
    order = [np.argsort(c.species, kind="stable") for c in crystals]
    frac = np.stack([c.frac[i] for c, i in zip(crystals, order, strict=True)])
    return signatures(frac, np.stack([c.lattice for c in crystals]), np.sort(first.species))


def test_equal_crystals_have_equal_signatures():
    good = perovskites()[0]
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    same = [
        Crystal(good.frac + np.array([0.3, 0.1, 0.9]), good.lattice, good.species),
        Crystal(good.frac[[4, 3, 2, 1, 0]], good.lattice, good.species[[4, 3, 2, 1, 0]]),
        Crystal(-good.frac, good.lattice @ turned, good.species),
        Crystal(
            good.frac[:, [1, 2, 0]], 1.1 * good.lattice, good.species
        ),  # lengths are in units of the cell
    ]
    found = signature(good, *same)
    np.testing.assert_allclose(found[1:], found[[0] * 4], atol=1e-9)
    one, two = (
        np.abs(row - found[0]).max() for row in signature(moved(good, 0.01), moved(good, 0.02))
    )
    assert 1e-3 < one < two


def test_representatives_stand_for_all_draws():
    good = perovskites()[0]
    swapped = Crystal(good.frac, good.lattice, good.species[[1, 0, 2, 3, 4]])
    draws = signature(swapped, moved(good, 0.02), moved(good, 0.01), good)
    assert representatives(draws, 2) == [
        2,
        0,
    ]  # the middle of the common answer, then the other one
    assert sorted(representatives(draws, 4)) == [0, 1, 2, 3]
    # against all choices: greedy is at most a little worse than the best two
    crowd = np.random.default_rng(0).normal(size=(12, 3)) * 0.02

    def left(which) -> float:
        apart = np.sqrt(((crowd[:, None] - crowd[list(which)]) ** 2).mean(-1))
        return np.minimum(apart, 0.05).min(1).mean()

    assert left(representatives(crowd, 1)) == min(left([i]) for i in range(12))
    assert left(representatives(crowd, 3)) < 1.15 * min(
        map(left, itertools.combinations(range(12), 3))
    )


def test_the_consensus_leaves_out_what_is_no_structure():
    good = perovskites()[0]
    swapped = Crystal(good.frac, good.lattice, good.species[[1, 0, 2, 3, 4]])
    rounds = [crystal_batch([c]) for c in (good, swapped, moved(good, 0.01))]
    broken = rounds[0].with_structure(rounds[0].frac, torch.full((1, 3, 3), float("nan")))
    flat = rounds[0].with_structure(rounds[0].frac, torch.zeros(1, 3, 3))
    some = [broken, flat, rounds[0], rounds[2]]
    which = chosen(some, 2)
    assert which.shape == (2, 1) and int(which[0, 0]) in (2, 3)
    frac, lattice = picked(some, which)
    assert lattice[0].isfinite().all() and torch.equal(frac[0], some[int(which[0, 0])].frac)
    assert chosen([broken, flat, broken], 1).shape == (1, 1)
    assert chosen(rounds, 3)[:, 0].tolist() == [0, 1, 2]


def test_ratios_of_elements():
    assert ratio_of(np.array([38, 22, 8, 8, 8])) == (1, 1, 3)
    assert ratio_of(np.array([11, 11, 17, 17])) == (1, 1)
    assert ratio_of(np.array([6])) == (1,)
