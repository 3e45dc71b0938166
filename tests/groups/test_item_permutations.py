"""One finite permutation group per item: against the groups of the items, one by one, and the
axioms."""

import itertools
import math

import pytest
import torch

import orbitwise as ow
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.automorphism import Automorphism
from orbitwise.groups.item_permutations import ItemPermutations
from orbitwise.groups.permutation import Permutation

LABELS = torch.tensor(
    [[22, 38, 8, 8, 8], [8, 38, 8, 22, 8], [1, 1, 2, 2, -1], [3, 3, 3, 3, -1], [1, 2, 3, 4, 5]]
)
ORDERS = [6, 6, 4, 24, 1]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(group, k):
    return {tuple(g) for g in group.tables[group.present[:, k], k].tolist()}


def star(arms, others=()):
    """A centre bonded to ``arms`` equal atoms and to ``others`` of different kinds."""
    labels = torch.tensor([6, *[1] * arms, *others])
    bonds = torch.zeros(len(labels), len(labels), dtype=torch.long)
    bonds[0, 1:] = bonds[1:, 0] = 1
    return Automorphism.from_graph(labels, bonds)


def test_within_against_itertools():
    group = ItemPermutations.within(LABELS)
    assert group.tables.shape == (24, 5, 5) and group.order.tolist() == ORDERS
    for k, labels in enumerate(LABELS.tolist()):
        by_hand = {
            p
            for p in itertools.permutations(range(5))
            if all(labels[i] == labels[j] and (labels[i] >= 0 or i == j) for i, j in enumerate(p))
        }
        assert rows(group, k) == by_hand
    tables, log_weights = group.enumerate(dtype=torch.float64)
    assert (log_weights.exp().sum(0) - 1).abs().max() < 1e-14
    assert (tables[~group.present] == torch.arange(5)).all() and (
        log_weights[~group.present] == -math.inf
    ).all()
    assert (Permutation(5, LABELS).log_order - group.log_order).abs().max() < 1e-12


def test_stack_of_molecules():
    molecules = [star(3), star(2, [8]), star(4, [8, 9]), star(1)]
    group = ItemPermutations.stack(molecules, n=9)
    assert group.n == 9 and group.order.tolist() == [6, 2, 24, 1]
    for k, molecule in enumerate(molecules):
        rest = tuple(range(molecule.n, 9))
        assert rows(group, k) == {(*g, *rest) for g in molecule.enumerate()[0].tolist()}
    assert ItemPermutations.stack(molecules).n == 7
    with pytest.raises(InputError, match="item 2"):
        ItemPermutations.stack(molecules, n=5)
    with pytest.raises(NoClosedFormError, match="item 1"):
        ItemPermutations.stack([molecules[0], Permutation(20)])


def test_axioms_item_by_item():
    group = ItemPermutations.within(LABELS)
    x = torch.rand(5, 6, 3, generator=rng(1))  # one more point than the group moves
    g, h = (group.sample((40, 5), generator=rng(s)) for s in (2, 3))
    assert torch.equal(group.act(group.compose(g, h), x), group.act(g, group.act(h, x)))
    assert torch.equal(group.act(group.compose(g, group.inverse(g)), x), x.expand(40, 5, 6, 3))
    product = group.compose(g, h)
    for k in range(5):
        assert {tuple(row) for row in product[:, k].tolist()} <= rows(group, k)
    with pytest.raises(InputError, match="items"):
        group.sample((5, 40))


def test_sampling_is_uniform_on_each_group():
    group = ItemPermutations.stack([star(3), star(2, [8]), star(4), star(1, [8, 9, 7])])
    draws = group.sample((12_000, 4), generator=rng(4))
    for k, order in enumerate([6, 2, 24, 1]):
        unique, count = draws[:, k].unique(dim=0, return_counts=True)
        assert {tuple(g) for g in unique.tolist()} == rows(group, k)
        expected = 12_000 / order
        assert ((count - expected) ** 2 / expected).sum() < order - 1 + 5 * math.sqrt(2 * order)


def test_parts_of_a_batch_and_order_of_the_entries():
    group = ItemPermutations.within(LABELS)
    part = group[torch.tensor([4, 0, 2])]
    assert part.order.tolist() == [1, 6, 4] and len(part.tables) == 6  # no more padding than needed
    assert [rows(part, k) for k in range(3)] == [rows(group, k) for k in (4, 0, 2)]
    one = group[3]
    assert one.tables.shape == (24, 5) and one.sample((2, 3), generator=rng()).shape == (2, 3, 5)
    mixed = torch.randperm(24, generator=rng(5))
    again = ItemPermutations(group.tables[mixed], group.present[mixed])
    assert [rows(again, k) for k in range(5)] == [rows(group, k) for k in range(5)]
    grid = ItemPermutations.within(LABELS[:4].reshape(2, 2, 5))
    assert grid.sample((7, 2, 2), generator=rng()).shape == (7, 2, 2, 5)
    assert grid.order.tolist() == [[6, 6], [4, 24]]


def test_refusals():
    labels = torch.zeros(3, 9, dtype=torch.long)
    labels[:2] = torch.arange(9)
    with pytest.raises(NoClosedFormError, match=r"item 2: 362880 .*max_order=5040"):
        ItemPermutations.within(labels)
    with pytest.raises(NoClosedFormError, match=r"item \(0, 2\)"):
        ItemPermutations.within(labels[None])
    with pytest.raises(NoClosedFormError, match="item 3: 24"):
        ItemPermutations.within(LABELS, max_order=6)
    ok = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="once"):
        ItemPermutations(torch.zeros(2, 3, 4, dtype=torch.long), ok)
    with pytest.raises(InputError, match="identity"):
        ItemPermutations(torch.tensor([1, 0]).expand(2, 3, 2), ok)
    with pytest.raises(InputError, match="no labels"):
        ItemPermutations.within(torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(NoClosedFormError, match="give K"):
        ow.twirl(lambda x: x, ItemPermutations.within(LABELS))(torch.rand(5, 5, 3))


# ---- posteriors: the batch against its items, each with a group of its own

FLOW, TORUS = ow.GaussianProcess.flow(), ow.WrappedNormalProcess(0.02, 0.5)
SPACES = {
    "alone, gaussian": (FLOW, None),
    "SO3": (FLOW, ow.SO3()),
    "O3, centred": (ow.GaussianProcess.flow(zero_com=True), ow.O3()),
    "translation": (FLOW, ow.Translation()),
    "finite": (FLOW, ow.Finite(torch.stack([torch.eye(3), -torch.eye(3)]))),
    "alone, wrapped": (TORUS, None),
    "torus": (TORUS, ow.PeriodicTranslation()),
}
spaces = pytest.mark.parametrize(("process", "space"), SPACES.values(), ids=SPACES)


def made(process, batch, n, *lead, mask=None):
    gen = rng(6)
    x1 = torch.rand(*lead, batch, n, 3, generator=gen, dtype=torch.float64)
    t = torch.linspace(0.2, 0.8, batch, dtype=torch.float64)
    xt = process.perturb(x1.reshape(-1, batch, n, 3)[0], t, generator=gen, mask=mask)
    return x1, xt, t


def joint(space, permutations, swapped=False):
    if space is None:
        return permutations
    return ow.Product(permutations, space) if swapped else ow.Product(space, permutations)


@spaces
@pytest.mark.parametrize("method", ["exact", "mode"])
@pytest.mark.parametrize("conformers", [False, True])
def test_posterior_is_that_of_every_item_alone(process, space, method, conformers):
    mask = LABELS >= 0
    x1, xt, t = made(process, 5, 5, *([3] if conformers else []), mask=mask)
    group = joint(space, ItemPermutations.within(LABELS), swapped=conformers)
    post = ow.orbit_posterior(group, process, x1, xt, t, mask, method)
    assert post.method == method and post.exact == (method == "exact")
    for k in range(5):
        one = ow.orbit_posterior(
            joint(space, Permutation(5, LABELS[k])),
            process,
            x1[..., k, :, :],
            xt[k],
            t[k],
            mask[k],
            method,
        )
        assert abs(post.log_evidence[k] - one.log_evidence) < 1e-10 * max(1, abs(one.log_evidence))
        assert (post.mean[k] - one.mean).abs().max() < 1e-10
        assert (post.score[k] - one.score).abs().max() < 1e-10 * max(1, one.score.abs().max())
    g = post.sample(30, generator=rng(7))
    g = g[1] if conformers else g
    table = g if space is None else g[0] if conformers else g[1]
    for k in range(5):
        assert (
            torch.where(mask[k], LABELS[k], -1)[table[:, k]] == torch.where(mask[k], LABELS[k], -1)
        ).all()


@pytest.mark.parametrize(
    ("process", "space"), [case for name, case in SPACES.items() if name != "translation"]
)  # (the score of a translation in R³ belongs to the centred points)
def test_draws_have_the_mean_of_the_posterior(process, space):
    """E over draws of the score given the element is ``.score``, item by item."""
    x1, xt, t = made(process, 5, 5)
    group = joint(space, ItemPermutations.within(LABELS))
    post = ow.orbit_posterior(group, process, x1, xt, t)
    images = group.act(post.sample(8000, generator=rng(8)), x1)
    scores = process.score(xt, images, t)
    error = scores.std(0) / 8000**0.5
    rare = 1e-3 * post.score.abs().max()  # elements too improbable to be drawn
    assert ((scores.mean(0) - post.score).abs() <= 5 * error + rare).all()


@pytest.mark.parametrize("space", [ow.SO3(), ow.PeriodicTranslation()], ids=["SO3", "torus"])
def test_importance_sampling_tends_to_the_exact_posterior(space):
    process = TORUS if isinstance(space, ow.PeriodicTranslation) else FLOW
    group = ow.Product(space, ItemPermutations.within(LABELS))
    x1, xt, _ = made(process, 5, 5)
    t = torch.full((5,), 0.1, dtype=torch.float64)
    exact = ow.orbit_posterior(group, process, x1, xt, t)
    post = ow.orbit_posterior(
        group, process, x1, xt, t, method="snis", proposals=20_000, generator=rng(9)
    )
    scale = exact.score.abs().max()
    assert (post.score - exact.score).abs().max() < 0.1 * scale
    assert (post.log_evidence - exact.log_evidence).abs().max() < 0.1


def test_chunks_and_padding_do_not_change_the_result(monkeypatch):
    group = ow.Product(ow.SO3(), ItemPermutations.within(LABELS))
    x1, xt, t = made(FLOW, 5, 5)
    whole = ow.orbit_posterior(group, FLOW, x1, xt, t)
    monkeypatch.setattr("orbitwise.orbits.posterior.sums.MEMORY", 1)
    pieces = ow.orbit_posterior(group, FLOW, x1, xt, t)
    assert (whole.mean - pieces.mean).abs().max() < 1e-12
    assert (whole.log_evidence - pieces.log_evidence).abs().max() < 1e-12
    assert (whole.ess <= torch.tensor(ORDERS) + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_molecules_of_different_kinds_train_in_one_batch(dtype):
    """A padded batch of three molecules, twice, gives what each gives alone with its
    automorphisms."""
    molecules = [star(3), star(4, [8]), star(2, [8])]
    index = torch.tensor([2, 0, 1, 1])
    group = ItemPermutations.stack(molecules)[index]
    sizes = torch.tensor([molecules[i].n for i in index.tolist()])
    mask = torch.arange(group.n) < sizes[:, None]
    x1, xt, t = (v.to(dtype) for v in made(FLOW, 4, group.n, mask=mask))
    post = ow.orbit_posterior(ow.Product(ow.SO3(), group), FLOW, x1, xt, t, mask)
    for k, i in enumerate(index.tolist()):
        n = molecules[i].n
        one = ow.orbit_posterior(
            ow.Product(ow.SO3(), molecules[i]), FLOW, x1[k, :n], xt[k, :n], t[k]
        )
        assert (post.mean[k, :n] - one.mean).abs().max() < (
            1e-10 if dtype == torch.float64 else 1e-5
        )
        assert (post.mean[k, n:] == 0).all()


def test_split_sets_apart_what_cannot_be_enumerated():
    labels = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 2, 2, 3], [1, 2, 3, 4, 5], [6, 6, 6, 6, 7]])
    (few, own), (many, whole) = ItemPermutations.split(labels, max_order=4)
    assert few.tolist() == [1, 2] and own.order.tolist() == [4, 1] and own.finite
    assert many.tolist() == [0, 3] and not whole.finite
    assert torch.equal(whole.labels, labels[many])
    assert [items.tolist() for items, _ in ItemPermutations.split(labels)] == [[0, 1, 2, 3]]
    assert [items.tolist() for items, _ in ItemPermutations.split(labels[:1], 4)] == [[0]]
    with pytest.raises(InputError, match="one row per item"):
        ItemPermutations.split(labels[0])
