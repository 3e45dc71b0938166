"""Autocast rounds nothing of the geometry; ``torch.compile`` goes around the posterior."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import orbitwise as ow
from orbitwise.groups.polyhedral import octahedral

GROUPS = [ow.SO3(), ow.O3(), octahedral(), ow.Translation(), ow.PeriodicTranslation()]
GROUPS += [ow.Permutation(5), ow.Product(ow.SO3(), ow.Permutation(5))]


def half(body):
    with torch.autocast("cpu", torch.bfloat16):
        return body()


def gen():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", ["point", "vector"])
@pytest.mark.parametrize(
    "group", [g for g in GROUPS if not isinstance(g, ow.Translation)], ids=repr
)
def test_act_and_compose(group, kind):
    x = torch.randn(4, 5, 3, generator=gen())
    g, h = (group.sample((4,), generator=gen()) for _ in range(2))

    def moved():
        return group.act(group.compose(g, group.inverse(h)), x, kind=kind)

    assert torch.equal(half(moved), moved())


def test_half_precision_points_are_turned_by_a_whole_rotation():
    x = torch.randn(400, 5, 3, generator=gen()).bfloat16()
    g = ow.SO3().sample((400,), generator=gen())
    turned = ow.SO3().act(g, x)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, ow.SO3().act(g, x.float()).bfloat16())


@pytest.mark.parametrize("make", [lambda f, g: ow.twirl(f, g), lambda f, g: ow.framed(f, ow.SO3())])
def test_averages_of_a_model(make):
    x = torch.randn(4, 5, 3, generator=gen())
    model = make(lambda y: y.sin().cumsum(-1), octahedral())
    assert torch.equal(half(lambda: model(x)), model(x))


def test_a_model_that_autocast_rounds_is_averaged_in_float32():
    layer = nn.Linear(3, 3)
    x = torch.randn(4, 5, 3, generator=gen())
    y = half(lambda: ow.twirl(layer, octahedral())(x))
    assert y.dtype == torch.float32
    exact = ow.twirl(lambda v: half(lambda: layer(v)).float(), octahedral())(x)
    torch.testing.assert_close(y, exact)


def test_posterior_and_correlated_noise():
    chain = torch.diag(torch.ones(4), 1) + torch.diag(torch.ones(4), -1)
    springs = ow.processes.Springs.of(chain.expand(4, 5, 5), torch.ones(4, 5, dtype=torch.bool))
    process, t = ow.HarmonicProcess(springs=springs), torch.full((4,), 0.5)
    x1 = torch.randn(4, 5, 3, generator=gen())

    def target():
        xt = process.perturb(x1, t, generator=gen())
        return ow.orbit_posterior(ow.SO3(), process, x1, xt, t).velocity

    assert torch.equal(half(target), target())


def test_every_group_says_what_it_is():
    for group in [*GROUPS, ow.VoxelRotations()]:
        assert "object at" not in repr(group)

    class Mine(ow.SO3):
        pass

    assert repr(Mine()) == "Mine()"


def test_advice_for_products():
    x = torch.rand(2, 30, 3)
    crystal = ow.Product(ow.PeriodicTranslation(), ow.Permutation(30))
    with pytest.raises(
        ow.errors.NoClosedFormError, match=r"use method='gibbs' \(chains\) or 'mode'"
    ):
        ow.orbit_posterior(crystal, ow.WrappedNormalProcess(), x, x, 0.5)
    cluster = ow.Product(ow.SO3(), ow.Permutation(30))
    with pytest.raises(ow.errors.NoClosedFormError, match="use method='snis', or a subgroup"):
        ow.orbit_posterior(cluster, ow.GaussianProcess.flow(), x, x, 0.5)


STEP = """
import sys
import torch
import orbitwise as ow

process, group = ow.GaussianProcess.flow(zero_com=True), ow.SO3()
x1, t = torch.randn(4, 5, 3), torch.rand(4)
ow.orbit_posterior(group, process, x1, process.perturb(x1, t), t)
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"

layer = torch.nn.Linear(3, 3)

def step(x1, t):
    xt = process.perturb(x1, t)
    target = ow.orbit_posterior(group, process, x1, xt, t).mean
    return (layer(xt) - target).square().mean()

import torch._dynamo
graphs = []
def backend(graph, inputs):
    graphs.append([str(n.target) for n in graph.graph.nodes if n.op != "placeholder"])
    return graph.forward
torch.manual_seed(0)
compiled = torch.compile(step, backend=backend)(x1, t)
compiled.backward()
torch.manual_seed(0)
torch.testing.assert_close(compiled, step(x1, t))
print(len(graphs))
for graph in graphs:
    print(graph)
assert not any("linalg" in name for graph in graphs for name in graph), "the solver was compiled"
assert len(graphs) == 2
"""


def test_a_compiled_training_step_breaks_at_the_posterior_alone():
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
