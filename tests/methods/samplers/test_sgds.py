"""Search-guided samplers from a configuration: small runs of every setting, their counts,
resumption, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from orbitwise.energies import GaussianMixture
from orbitwise.errors import InputError
from orbitwise.methods.samplers import evaluation, sgds
from orbitwise.methods.samplers.rounds import carry_over
from orbitwise.runs.config import load, presets, validate

SMALL = {
    "energy": {"name": "many_well", "dim": 4},
    "search": {
        "method": "anneal",
        "kernel": "hmc",
        "leapfrog_steps": 3,
        "chains": 800,
        "levels": 20,
    },
    "sampler": {
        "network": {"name": "elementwise", "hidden": 48, "layers": 2},
        "schedule": {"steps": 15, "first": 0.05, "last": 0.01},
    },
    "likelihood_steps": 250,
    "likelihood": {"batch_size": 256, "learning_rate": 1e-2},
    "balance_steps": 20,
    "balance": {"batch_size": 64, "learning_rate": 3e-4},
    "evaluation": {"paths": 1000, "reference": 1000},
}


def merged(base: dict, changes: dict) -> dict:
    """Another choice (by its name or method) replaces the former one with its keys."""
    out = dict(base)
    for key, value in changes.items():
        former = out.get(key)
        another = isinstance(value, dict) and any(
            tag in value and value[tag] != (former or {}).get(tag) for tag in ("name", "method")
        )
        inside = isinstance(value, dict) and isinstance(former, dict) and not another
        out[key] = merged(former, value) if inside else value
    return out


def config(**changes) -> sgds.SGDSConfig:
    return validate(sgds.SGDSConfig, merged(SMALL, changes))


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def no_page(monkeypatch):
    """The page has its own tests."""
    monkeypatch.setattr(evaluation, "write_report", lambda *_, **__: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, sgds.train(config(), folder), sgds.evaluate(folder)


def test_the_sampler_finds_the_wells_in_proportion_and_their_log_z(run):
    folder, _, outcome = run
    verdict = outcome.result
    exact = config().energy.build().energy.log_z
    assert verdict.evidence.log_z_true == pytest.approx(exact)
    assert (
        abs(verdict.evidence.log_z_bridge - exact) < 4 * verdict.evidence.log_z_bridge_error + 0.02
    )
    assert verdict.evidence.gap < 1.5  # in nats; after a few seconds of training
    assert verdict.modes.minor.tolist() == pytest.approx([0.1557] * 2, abs=0.05)
    for name in ("summary.json", "report.html", "samples.npz", "config.yaml"):
        assert (folder / name).is_file()
    with np.load(folder / "samples.npz") as file:
        assert file["x"].shape == (1000, 4) and np.isfinite(file["log_weight"]).all()


def test_every_evaluation_is_counted_by_stage(run):
    folder, trained, _ = run
    counts = summary(folder)["evaluations"]
    assert counts["search"] == list(trained.result["search"])
    assert counts["training"] == [
        20 * 32,
        0,
    ]  # half of every batch is on-policy; likelihood asks for none
    assert counts["evaluation"][0] == 2000  # paths, and the virial
    assert counts["search"][0] < 1.3 * config().search.calls
    again = sgds.train(config(), folder)
    assert again.result == trained.result


def test_a_finished_run_is_reused_and_a_changed_one_is_not(run, tmp_path):
    folder, _, _ = run
    stamp = (folder / "stages" / "likelihood1.safetensors").stat().st_mtime_ns
    sgds.train(config(), folder)
    assert (folder / "stages" / "likelihood1.safetensors").stat().st_mtime_ns == stamp
    short = config(likelihood_steps=20, balance_steps=2, search={"chains": 100, "levels": 8})
    for name in ("a", "b"):
        sgds.train(short, tmp_path / name)
    a, b = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)  # the seed decides


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "stages" / "balance1.safetensors")


def test_samples_are_drawn_with_their_weights(run):
    folder, _, _ = run
    a = sgds.sample(folder, 50, seed=3).result
    b = sgds.sample(folder, 50, seed=3).result
    assert torch.equal(a.x, b.x) and a.log_weight.shape == (50,)
    with pytest.raises(InputError, match="at least 1"):
        sgds.sample(folder, 0)


ALONE = {
    "search": {"method": "none"},
    "sampler": {"schedule": {"steps": 10}},
    "likelihood_steps": 0,
    "balance_steps": 6,
}
SETTINGS = {
    "trajectory_balance": {"objective": {"name": "trajectory_balance", "on_policy": 1.0}},
    "detailed_balance": {"objective": {"name": "detailed_balance", "partial_energy": True}},
    "subtrajectory_balance": {"objective": {"name": "subtrajectory_balance"}},
    "reverse_kl": {"objective": {"name": "reverse_kl"}},
    "augmented_flow": {"objective": {"name": "augmented_flow"}},
    "adjoint_matching": {"objective": {"name": "adjoint_matching", "endpoints": 32, "refresh": 3}},
    "langevin": {"sampler": {"langevin": True}, "objective": {"name": "vargrad"}},
    "learned_backward": {"sampler": {"learned_backward": True}},
    "gaussian start": {"sampler": {"schedule": {"start": 0.05}}},
    "random steps": {"sampler": {"schedule": {"name": "random"}, "variance": "reference"}},
}


USUAL = {"trajectory_balance", "detailed_balance", "adjoint_matching", "langevin"}


@pytest.mark.parametrize(
    "name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS]
)
def test_every_setting_trains_and_is_judged(tmp_path, no_page, name):
    made = config(
        **merged(merged(ALONE, SETTINGS[name]), {"evaluation": {"paths": 50, "reference": 50}})
    )
    calls = sgds.train(made, tmp_path).result
    steps, batch, inner = 6, 64, 10
    expected = {
        "detailed_balance": (steps * batch * (1 + inner + 1), 0),
        "reverse_kl": (steps * batch, steps * batch),
        "adjoint_matching": (2 * 32, 2 * 32),
        "langevin": (steps * batch * (inner + 1), steps * batch * inner),
    }.get(name, (steps * batch, 0))
    if name != "detailed_balance":
        assert calls["training"] == expected
    evidence = sgds.evaluate(tmp_path).result.evidence
    assert math.isfinite(evidence.elbo) and evidence.elbo < evidence.eubo


@pytest.mark.parametrize(
    "restart", ["full", *(pytest.param(r, marks=pytest.mark.slow) for r in ("partial", "none"))]
)
def test_rounds_keep_buffer_and_log_z_and_restart_the_learner(tmp_path, restart):
    made = config(
        rounds=2,
        restart=restart,
        search={"chains": 100, "levels": 8, "warmup": 40},
        sampler={"schedule": {"steps": 10}},
        likelihood_steps=20,
        balance_steps=2,
        novelty={"steps": 20, "points": 100},
    )
    sgds.train(made, tmp_path)
    stages = {p.stem for p in (tmp_path / "stages").glob("*.safetensors")}
    assert stages == {
        "search1",
        "likelihood1",
        "balance1",
        "novelty1",
        "search2",
        "likelihood2",
        "balance2",
    }
    from safetensors.torch import load_file

    second = load_file(tmp_path / "stages" / "search2.safetensors")
    energy = made.energy.build().energy
    torch.testing.assert_close(second["energy"], energy(second["x"]), atol=1e-3, rtol=1e-4)  # clean
    assert (second["log_weight"] <= 0).all() and second["log_weight"].std() > 0


def test_restarts_carry_over_what_they_say():
    target = config().energy.build()
    old, fresh = (config().sampler.build(target, 1.0, seed, flows=False) for seed in (1, 2))
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    carry_over("full", old, fresh)
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    carry_over("partial", old, fresh)
    same = [
        torch.equal(v, old.state_dict()[k])
        for k, v in fresh.state_dict().items()
        if k.startswith("network.read")
    ]
    assert all(same) and torch.equal(
        fresh.state_dict()["network.norm.weight"], before["network.norm.weight"]
    )
    carry_over("none", old, fresh)
    assert all(
        torch.equal(v, old.state_dict()[k])
        for k, v in fresh.state_dict().items()
        if "log_z" not in k
    )


def test_without_novelty_the_second_search_is_like_the_first(tmp_path):
    made = config(
        rounds=2,
        search={"chains": 100, "levels": 8},
        likelihood_steps=10,
        balance_steps=0,
        novelty={"weight": 0.0},
    )
    sgds.train(made, tmp_path)
    assert not (tmp_path / "stages" / "novelty1.safetensors").exists()


def test_particles_without_exact_samples_are_judged_against_chains(tmp_path):
    chains = {
        "method": "chains",
        "kernel": "hmc",
        "leapfrog_steps": 5,
        "chains": 8,
        "steps": 60,
        "warmup": 40,
    }
    made = config(
        energy={"name": "double_well"},
        search=chains | {"prior_scale": 2.0},
        sampler={"network": {"name": "mlp", "hidden": 32}},
        likelihood_steps=50,
        balance_steps=2,
        evaluation={"paths": 60, "reference": 60, "chains": chains | {"prior_scale": 2.0}},
    )
    sgds.train(made, tmp_path)
    verdict = sgds.evaluate(tmp_path).result
    assert verdict.symmetric_w2 is not None and verdict.energy_w2 is not None
    assert verdict.virial.exact == 6
    assert summary(tmp_path)["evaluations"]["reference"][0] > 0


def quartic(scale=1.0):
    """An energy of somebody's own."""
    return GaussianMixture(torch.zeros(1, 2), scale)


def not_an_energy():
    return 3


def test_an_energy_of_ones_own_is_named_by_its_function(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "somebody", _module())
    own = config(
        energy={"name": "function", "function": "somebody:quartic", "arguments": {"scale": 0.5}}
    )
    assert own.energy.build().energy.event_shape == (2,)
    for name, message in (
        ("somebody:missing", "missing"),
        ("nowhere:f", "nowhere"),
        ("quartic", "package.module:name"),
        ("somebody:not_an_energy", "not an orbitwise Energy"),
    ):
        with pytest.raises(InputError, match=message):
            config(energy={"name": "function", "function": name}).energy.build()


def _module():
    import types

    module = types.ModuleType("somebody")
    module.quartic, module.not_an_energy = quartic, not_an_energy
    return module


def test_bad_settings_are_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="nothing to train"):
        sgds.train(config(search={"method": "none"}, balance_steps=0), tmp_path)
    with pytest.raises(InputError, match="for points of 2 or 3 dimensions"):
        sgds.plan(config(sampler={"network": {"name": "egnn"}}))
    with pytest.raises(InputError, match="must divide"):
        sgds.plan(config(sampler={"network": {"width": 3}}))
    with pytest.raises(InputError, match="did you mean"):
        config(likelyhood_steps=3)
    with pytest.raises(InputError, match=r"not finished|no config"):
        sgds.sample(tmp_path)
    made = config(
        likelihood_steps=5, balance_steps=0, evaluation={"file": str(tmp_path / "missing.npz")}
    )
    sgds.train(made, tmp_path)
    with pytest.raises(InputError, match="no such file"):
        sgds.evaluate(tmp_path)
    np.savez(tmp_path / "wrong.npz", x=np.zeros((5, 3)))
    changed = made.model_copy(
        update={"evaluation": made.evaluation.model_copy(update={"file": tmp_path / "wrong.npz"})}
    )
    from orbitwise.runs.config import save_run

    save_run(changed, tmp_path)
    with pytest.raises(InputError, match="finite samples"):
        sgds.evaluate(tmp_path)


@pytest.mark.parametrize("name", [p for p in presets() if p.startswith("sgds/")])
def test_presets_are_whole(name):
    made = load(name)
    if made.energy.name.startswith("alanine"):
        pytest.importorskip("openmm")
    plan = sgds.plan(made)
    assert plan.parameters > 1000 and plan.energy_calls > 0
