"""Every solver of the orbit posterior, found in the registries of ``orbits.posterior.dispatch``.

Each is asked through ``ow.orbit_posterior`` and compared with plain importance sampling from the
Haar measure, written out here, within its error. A new registration gives a line in ``CASES``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

import orbitwise as ow
from orbitwise import orbit_posterior  # loads every solver, which registers it
from orbitwise.errors import InputError, NoClosedFormError
from orbitwise.groups.base import Group
from orbitwise.orbits.posterior import dispatch
from orbitwise.orbits.posterior.result import OrbitPosterior
from orbitwise.processes.base import Process

METHODS = ("exact", "mode", "snis", "gibbs")
ITEMS, POINTS, DRAWS = 3, 5, 40_000


@dataclass(frozen=True)
class Case:
    group: Group
    process: Process
    time: float
    methods: tuple[str, ...]


def half_turns() -> ow.Finite:
    signs = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    return ow.Finite(torch.stack([torch.diag(torch.tensor(s, dtype=torch.float64)) for s in signs]))


FLOW = ow.GaussianProcess.flow()
CENTRED = ow.GaussianProcess.flow(zero_com=True)
WRAPPED = ow.WrappedNormalProcess(sigma_min=0.05, sigma_max=0.5)
PAIR = ow.Permutation(POINTS, [0, 0, 1, 2, 3])  # the last point is padding where a mask is used
THREE = ow.Permutation(POINTS, [0, 0, 0, 1, 2])

CASES = {
    "SO3": Case(ow.SO3(), CENTRED, 0.4, ("exact", "mode", "snis")),
    "O3": Case(ow.O3(), FLOW, 0.4, ("exact", "mode", "snis")),
    "Translation": Case(ow.Translation(), FLOW, 0.6, ("exact", "mode")),
    "PeriodicTranslation": Case(ow.PeriodicTranslation(), WRAPPED, 0.2, ("exact", "mode", "snis")),
    "Permutation": Case(THREE, FLOW, 0.4, METHODS),
    "Finite": Case(half_turns(), CENTRED, 0.4, ("exact", "mode", "snis")),
    "SO3 x Permutation": Case(ow.Product(ow.SO3(), PAIR), CENTRED, 0.4, ("exact", "mode", "snis")),
    "PeriodicTranslation x Permutation": Case(
        ow.Product(ow.PeriodicTranslation(), PAIR), WRAPPED, 0.2, ("exact", "gibbs")
    ),
}
SOLVED = [(name, method) for name, case in CASES.items() for method in case.methods]
EVERY = pytest.mark.parametrize(("name", "method"), SOLVED)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_solver_has_a_case():
    for method in METHODS:
        generic = getattr(dispatch, method)
        solvers = set(generic.registry.values()) - {generic.registry[object]}
        asked = {generic.dispatch(type(CASES[n].group)) for n, m in SOLVED if m == method}
        assert asked == solvers, (method, asked ^ solvers)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_solved_says_what_to_use(method):
    for name, case in CASES.items():
        generic = getattr(dispatch, method)
        if generic.dispatch(type(case.group)) is generic.registry[object]:
            with pytest.raises(NoClosedFormError, match="method"):
                answer(name, method)


@cache
def question(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x1, xt, t, mask``: noised points of a random orbit, the last one padding."""
    case = CASES[name]
    x1 = torch.rand(ITEMS, POINTS, 3, generator=generator(1), dtype=torch.float64)
    mask = (torch.arange(POINTS) < POINTS - 1).expand(ITEMS, POINTS)
    if case.process is not WRAPPED:
        x1 = 2 * x1 - 1
    if case.process is CENTRED:
        x1 = case.process.project(x1, mask)
    x1 = x1 * mask[..., None]
    t = torch.full((ITEMS,), case.time, dtype=torch.float64)
    return x1, case.process.perturb(x1, t, generator=generator(2), mask=mask), t, mask


def answer(name: str, method: str, dtype: torch.dtype = torch.float64, **changes) -> OrbitPosterior:
    x1, xt, t, mask = question(name)
    given = {"x1": x1, "xt": xt, "t": t, "mask": mask} | changes
    given |= {k: given[k].to(dtype) for k in ("x1", "xt", "t")}
    options = {}
    if method in ("snis", "gibbs"):
        options = {"proposals": 200, "generator": generator(3)}
    case = CASES[name]
    return orbit_posterior(case.group, case.process, **given, method=method, **options)


@dataclass(frozen=True)
class Reference:
    """Of independent elements: ``log_density (K, B)``, the image of each, and its weight in a mean
    over the Haar measure."""

    log_density: Tensor
    images: Tensor
    scores: Tensor
    log_weight: Tensor

    @property
    def evidence(self) -> tuple[Tensor, Tensor]:
        """Its logarithm and the error of that, ``(B,)`` each."""
        largest = self.log_weight.max(0).values
        weight = (self.log_weight - largest).exp()
        mean = weight.mean(0)
        return largest + mean.log(), weight.std(0) / mean / math.sqrt(len(weight))

    def mean(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``value (K, B, N, D)`` under the posterior, with its error."""
        share = self.log_weight.softmax(0)[..., None, None]
        mean = (share * value).sum(0)
        return mean, (share.square() * (value - mean).square()).sum(0).sqrt()


@cache
def reference(name: str) -> Reference:
    case, (x1, xt, t, mask) = CASES[name], question(name)
    log_proposal = torch.zeros(DRAWS, ITEMS, dtype=torch.float64)
    if isinstance(case.group, ow.Translation):  # not compact: shifts from a wide normal law
        a, s = case.process.alpha(t), case.process.sigma(t)
        centre = (xt - a[:, None, None] * x1).sum(1) / (4 * a[:, None])
        width = (1.5 * s / (2 * a))[:, None]
        noise = torch.randn(DRAWS, ITEMS, 3, generator=generator(4), dtype=torch.float64)
        g = centre + width * noise
        law = torch.distributions.Normal(centre, width.expand_as(centre))
        # the flat measure is that of √N α v, by which the evidence is a density of what is centred
        log_proposal = law.log_prob(g).sum(-1) - 3 * (2 * a).log()
    else:
        g = case.group.sample((DRAWS, ITEMS), generator=generator(4), dtype=torch.float64)
    images = case.group.act(g, x1, mask=mask)
    given = (xt.expand_as(images), images, t.expand(DRAWS, ITEMS), mask.expand(DRAWS, *mask.shape))
    log_density = case.process.log_density(*given)
    scores = case.process.score(*given)
    return Reference(log_density, images, scores, log_density - log_proposal)


def within(found: Tensor, mean: Tensor, error: Tensor, errors: float = 5.0) -> None:
    assert ((found - mean).abs() <= errors * error + 1e-9).all(), (found - mean).abs().max()


@EVERY
def test_shapes_and_dtypes(name, method):
    x1, xt, _, mask = question(name)
    for dtype in (torch.float32, torch.float64):
        post = answer(name, method, dtype)
        assert post.mean.shape == post.score.shape == xt.shape
        assert post.log_evidence.shape == (ITEMS,) and post.method == method
        assert post.exact == (method == "exact")
        for value in (post.mean, post.score, post.log_evidence):
            assert value.dtype == dtype and value.isfinite().all()
        assert post.mean[~mask].abs().max() == post.score[~mask].abs().max() == 0
        images = CASES[name].group.act(post.sample(7, generator(5)), x1.to(dtype), mask=mask)
        assert images.shape == (7, *x1.shape) and images.dtype == dtype


@EVERY
def test_float32_follows_float64(name, method):
    single, double = answer(name, method, torch.float32), answer(name, method)
    for value, exact in (
        (single.score, double.score),
        (single.log_evidence, double.log_evidence),
    ):
        assert (value - exact).abs().max() < 1e-4 * (1 + exact.abs().max())


@EVERY
def test_what_stands_in_padding_does_not_matter(name, method):
    x1, xt, _, mask = question(name)
    real = mask[..., None]
    dirty = {"x1": torch.where(real, x1, 7.0), "xt": torch.where(real, xt, torch.nan)}
    clean, other = answer(name, method), answer(name, method, **dirty)
    for key in ("mean", "score", "log_evidence"):
        torch.testing.assert_close(getattr(other, key), getattr(clean, key), rtol=1e-9, atol=1e-9)


@EVERY
def test_no_points_and_wrong_shapes_are_refused(name, method):
    x1, _, _, mask = question(name)
    with pytest.raises(InputError, match="real point"):
        answer(name, method, mask=torch.zeros_like(mask))
    with pytest.raises(InputError, match="shape"):
        answer(name, method, x1=x1[:, :-1])
    with pytest.raises(InputError, match="finite"):
        answer(name, method, x1=torch.full_like(x1, torch.nan))


@pytest.mark.parametrize("name", CASES)
def test_exact_against_plain_sampling(name):
    post, found = answer(name, "exact"), reference(name)
    within(post.log_evidence, *found.evidence)
    within(post.score, *found.mean(found.scores))
    if CASES[name].process is not WRAPPED:  # there the mean is that of the lifted points
        within(post.mean, *found.mean(found.images))


@pytest.mark.parametrize("name", CASES)
def test_exact_draws_have_the_exact_score_in_the_mean(name):
    """Fisher's identity: the score of the evidence is the mean score over the posterior."""
    case, (x1, xt, t, mask) = CASES[name], question(name)
    post, count = answer(name, "exact"), 4000
    images = case.group.act(post.sample(count, generator(6)), x1, mask=mask)
    scores = case.process.score(
        xt.expand_as(images), images, t.expand(count, ITEMS), mask.expand(count, *mask.shape)
    )
    within(scores.mean(0), post.score, scores.std(0) / math.sqrt(count))


@pytest.mark.parametrize("name", [n for n, m in SOLVED if m == "mode"])
def test_no_element_is_more_probable_than_the_mode(name):
    case, (x1, xt, t, mask) = CASES[name], question(name)
    post = answer(name, "mode")
    g = post.sample(2, generator(7))
    images = case.group.act(g, x1, mask=mask)
    assert torch.equal(images[0], images[1])
    best = case.process.log_density(xt, images[0], t, mask)
    if name != "Translation":  # it keeps the evidence, which has a closed form as well
        torch.testing.assert_close(post.log_evidence, best, rtol=1e-8, atol=1e-8)
    assert (reference(name).log_density <= best + 1e-9).all()
    near = reference(name).log_density.max(0).values
    assert (best - near < 1.0).all()  # and the best of many comes near to it


@pytest.mark.parametrize(("name", "method"), [s for s in SOLVED if s[1] in ("snis", "gibbs")])
def test_sampling_approaches_the_exact_answer(name, method):
    """From several seeds: the scatter says how far one answer may be away."""
    case, exact = CASES[name], answer(name, "exact")
    x1, xt, t, mask = question(name)
    seeds = range(12)
    posts = [
        orbit_posterior(
            case.group,
            case.process,
            x1,
            xt,
            t,
            mask,
            method,
            proposals=400,
            generator=generator(s),
        )
        for s in seeds
    ]
    for key in ("score", "log_evidence"):
        values = torch.stack([getattr(p, key) for p in posts])
        truth = getattr(exact, key)
        off = values.mean(0) - truth
        if method == "gibbs" and key == "log_evidence":
            assert (off < 1e-6).all() and (off > -2.0).all()  # a lower bound
        else:  # the bias of order 1/proposals beside the scatter
            allowed = 5 * values.std(0) / math.sqrt(len(posts)) + 5e-3 * truth.abs().max()
            assert (off.abs() <= allowed).all(), (key, off.abs().max())
    if method == "snis":
        assert not torch.equal(posts[0].score, posts[1].score)


@pytest.mark.parametrize("name", CASES)
def test_items_do_not_mix(name):
    x1, xt, t, mask = question(name)
    case, whole = CASES[name], answer(name, "exact")
    part = [v[1:2] for v in (x1, xt, t, mask)]
    alone = orbit_posterior(case.group, case.process, *part)
    torch.testing.assert_close(alone.score, whole.score[1:2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alone.log_evidence, whole.log_evidence[1:2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_another_point_of_the_orbit_asks_the_same_question(name):
    x1, _, _, mask = question(name)
    case, post = CASES[name], answer(name, "exact")
    if isinstance(case.group, ow.Translation):
        g = torch.randn(ITEMS, 3, generator=generator(9), dtype=torch.float64)
    else:
        g = case.group.sample((ITEMS,), generator=generator(9), dtype=torch.float64)
    moved = answer(name, "exact", x1=case.group.act(g, x1, mask=mask))
    torch.testing.assert_close(moved.score, post.score, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(moved.log_evidence, post.log_evidence, rtol=1e-8, atol=1e-8)
