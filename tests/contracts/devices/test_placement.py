"""Every part of the package on a device that refuses tensors of another: the cases of the other
contract tests, which find the parts by discovery, so that a new part is asked here too.

What is computed there has to be there, and to be what the CPU finds.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch

import orbitwise as ow
from contracts import (
    test_energies,
    test_groups,
    test_kernels,
    test_networks,
    test_objectives,
    test_processes,
    test_solvers,
)
from contracts.devices import simulated
from orbitwise.processes.sampling import sample

BY_NATURE = {  # computed by another program, on the CPU
    "ASEEnergy": "an ASE calculator",
    "RayEnergy": "workers of Ray",
    "OpenMMEnergy": "OpenMM has its own devices",
    "AIMNet2": "a weight file that is not always there",
}


simulated.register()  # when tests are collected: the first backward of a process counts devices


@pytest.fixture
def there():
    with simulated.device() as device:
        yield device


def tensors(item: Any) -> list[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        return [item]
    if isinstance(item, dict):
        return [t for part in item.values() for t in tensors(part)]
    if isinstance(item, tuple | list):
        return [t for part in item for t in tensors(part)]
    if is_dataclass(item):
        return [t for f in fields(item) for t in tensors(getattr(item, f.name, None))]
    return []


def are_there(item: Any) -> bool:
    found = tensors(item)
    return bool(found) and all(t.device.type == simulated.NAME for t in found)


def rng(device: Any = "cpu", seed: int = 0) -> Any:
    return torch.Generator(device).manual_seed(seed)


@pytest.mark.parametrize("name", sorted(set(test_energies.CASES) - set(BY_NATURE)))
def test_energies_are_where_their_points_are(name, there):
    energy, points = test_energies.CASES[name]()
    energy = energy.double()
    x = points(energy, (3,))
    value, grad = energy.value_and_grad(x)
    far = energy.to(there).value_and_grad(x.to(there))
    assert are_there(far)
    torch.testing.assert_close(far[0].cpu(), value)
    torch.testing.assert_close(far[1].cpu(), grad)
    if hasattr(energy, "sample"):
        assert are_there(energy.sample((5,), generator=rng(there)))


@pytest.mark.parametrize("name", test_networks.CASES)
def test_networks_and_their_gradients(name, there):
    case = test_networks.CASES[name]
    inputs = case.draw(test_networks.SIZES, 0)
    here, net = test_networks.network(case), test_networks.network(case).to(there)
    out = case.call(net, {k: v.to(there) for k, v in inputs.items()})
    assert are_there(out)
    test_networks.close({k: v.cpu() for k, v in out.items()}, case.call(here, inputs))
    sum(v.square().sum() for v in out.values()).backward()
    assert are_there([p.grad for p in net.parameters() if p.grad is not None])


@pytest.mark.parametrize(("cls", "make"), test_groups.CASES)
def test_groups_draw_and_act(cls, make, there):
    group = make()
    x = test_groups.points(group, 2)
    if cls in test_groups.NO_HAAR:
        g = torch.randn(3, 2, group.dim, dtype=torch.float64, device=there)
    else:
        for generator in (rng(there), rng()):
            g = group.sample((3, 2), generator=generator, device=there, dtype=torch.float64)
            assert are_there(g)
    moved = group.act(g, x.to(there))
    assert are_there(moved)
    here = group.act(test_groups.mapped(lambda part: part.cpu(), g), x)
    torch.testing.assert_close(moved.cpu(), here)


@pytest.mark.parametrize(("name", "method"), test_solvers.SOLVED)
def test_posteriors(name, method, there):
    case = test_solvers.CASES[name]
    given = [value.to(there) for value in test_solvers.question(name)]
    x1, xt, t, mask = given
    options = {"proposals": 200} if method in ("snis", "gibbs") else {}
    if options:
        options["generator"] = rng(there, 3)
    post = ow.orbit_posterior(case.group, case.process, x1, xt, t, mask, method, **options)
    here = test_solvers.answer(name, method)
    draws = post.sample(2, rng(there))
    assert are_there([post.mean, post.score, post.log_evidence]) and are_there(draws)
    if not options:
        torch.testing.assert_close(post.mean.cpu(), here.mean)
        torch.testing.assert_close(post.log_evidence.cpu(), here.log_evidence)


@pytest.mark.parametrize("name", sorted(test_kernels.CASES))
def test_kernels_step(name, there):
    case, energy = test_kernels.CASES[name](), test_kernels.gaussian().to(there)
    start = test_kernels.exact(name, 8, rng(seed=12)).to(there)
    for generator in (rng(there), rng()):
        state = case.kernel.init(start, energy)
        for _ in range(2):
            state, info = case.kernel.step(state, energy, generator)
        assert are_there(state) and are_there(info)


@pytest.mark.parametrize("cls", test_processes.ANY, ids=test_processes.name)
def test_processes_perturb_and_score(cls, there):
    process = cls()
    x1 = torch.rand(4, 5, 3, dtype=torch.float64, generator=rng()).to(there)
    t = torch.full((4,), 0.6, dtype=torch.float64, device=there)
    for generator in (rng(there), rng()):
        xt = process.perturb(x1, t, generator=generator)
        assert are_there([xt, process.score(xt, x1, t), process.log_density(xt, x1, t)])


@pytest.mark.parametrize("stepper", test_processes.STEPPERS, ids=test_processes.name)
@pytest.mark.parametrize("cls", test_processes.GAUSSIAN, ids=test_processes.name)
def test_samplers_go_through_every_process(cls, stepper, there):
    process = cls(zero_com=True)
    out = sample(
        lambda x, t: 0.5 * x,
        process,
        (2, 4, 3),
        grid=test_processes.snr_grid(process, 4),
        stepper=stepper(),
        generator=rng(there),
        device=there,
    )
    assert are_there(out.x)


@pytest.mark.parametrize("name", test_objectives.CASES)
def test_objectives_and_their_gradients(name, there):
    case = test_objectives.CASES[name]
    model, objective, batch = test_objectives.built(case.model), case.objective(), case.batch()
    for part in (objective, *vars(objective).values()):
        if isinstance(part, torch.nn.Module):
            part.to(there)
    batch = batch.to(there) if hasattr(batch, "to") else moved(batch, there)
    losses = objective(model.to(there), batch, rng(there, 3))
    assert are_there(losses)
    losses.mean().backward()
    assert are_there([p.grad for p in model.parameters() if p.grad is not None])


def moved(item: Any, there: torch.device) -> Any:
    """A dataclass with its tensors there."""
    if isinstance(item, torch.Tensor):
        return item.to(there)
    if isinstance(item, tuple):
        return tuple(moved(part, there) for part in item)
    if is_dataclass(item):
        return replace(item, **{f.name: moved(getattr(item, f.name), there) for f in fields(item)})
    return item


def test_the_device_refuses_to_mix(there):
    near, far = torch.ones(3), torch.ones(3, device=there)
    for mixed in (lambda: near + far, lambda: torch.cat([near, far]), lambda: near[far.long()]):
        with pytest.raises(simulated.MixedDevicesError):
            mixed()
    with pytest.raises(simulated.MixedDevicesError, match="generator"):
        torch.randn(3, device=there, generator=rng())
    assert (far + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]
    with simulated.watching() as seen:
        far.sum().item(), near.to(there), far.cpu()
    assert [wait.operation for wait in seen] == ["_local_scalar_dense", "copy_", "to_cpu"]
