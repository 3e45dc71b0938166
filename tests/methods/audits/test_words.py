"""The judgement of an audit and its words, and the common zero of energies."""

from __future__ import annotations

import math

import pytest
import torch

from orbitwise.audit import Audit, AuditBatch, AuditReport, Estimate
from orbitwise.audit.energy_zero import with_common_zero
from orbitwise.audit.subject import AuditSubject, evaluations, narrowed, nodes_named
from orbitwise.errors import InputError
from orbitwise.groups.permutation import Permutation
from orbitwise.groups.so3 import SO3
from orbitwise.methods.audits.config import AuditConfig
from orbitwise.methods.audits.words import Words, verdict


def row(
    percent=5.0, error=0.5, *, total=1.0, deviation=0.1, rounding=False, level=None, given=None
) -> Audit:
    equivariance = percent / 100 * total
    return Audit(
        output="forces",
        level=level,
        items=50,
        nodes=24,
        total=Estimate(total, 0.01 * total),
        twirled=Estimate(total - equivariance, 0.01),
        equivariance=Estimate(equivariance, 0.01),
        percent=Estimate(percent, error),
        as_given=Estimate(total if given is None else given, 0.01 * total),
        monte_carlo=0.0,
        relative_deviation=deviation,
        rounding=rounding,
    )


def subject(reference=True, levels="", batches=()) -> AuditSubject:
    return AuditSubject(
        title="a model",
        model=lambda *a: a[0],
        group=SO3(),
        batches=batches,
        outputs={"forces": "vector"},
        units={"forces": "eV/Å"},
        what="the error",
        reference=reference,
        levels=levels,
    )


def words(*rows: Audit, warnings=(), **options) -> Words:
    report = AuditReport(list(rows), list(warnings), 1000, 1.0)
    return Words(subject(**options), report)


@pytest.mark.parametrize(
    ("found", "word", "enough"),
    [
        (row(1e-7, 1e-8, rounding=True, deviation=1e-7), "rounding", True),
        (
            row(40.0, 1.0, rounding=True, deviation=1e-7),
            "rounding",
            True,
        ),  # all of the error is rounding
        (
            row(0.2, 0.01, rounding=True, deviation=6e-5),
            "symmetric enough",
            True,
        ),  # a denoiser near the data
        (
            row(1e-13, 1e-14, total=1e-24, deviation=0.9),
            "rounding",
            True,
        ),  # forces that vanish by symmetry
        (row(1.0, 0.1), "symmetric enough", True),
        (row(1.9, 0.5), "about 2 %", True),
        (row(5.0, 0.5), "not symmetric", False),
        (row(40.0, 2.0), "large", False),
        (row(math.nan, math.nan, total=0.0, deviation=0.0), "no loss", True),
    ],
)
def test_verdicts(found, word, enough):
    assert (verdict(found).word, verdict(found).enough) == (word, enough)


def test_calculators_end_at_convergence_and_single_precision():
    small = row(1e-9, 1e-10, deviation=5e-6)
    assert verdict(small).word == "symmetric enough"
    assert verdict(small, calculator=True).word == "to convergence"
    assert verdict(small, single_precision=True).word == "rounding"
    assert verdict(row(0.5, 0.1, deviation=0.01), True, True).word == "symmetric enough"


def test_the_finding_says_what_exact_symmetry_would_buy():
    text = " ".join(words(row(5.0, 0.5)).summary())
    assert "up to 5.00 ± 0.50 % of the loss (forces) is orientation noise" in text
    assert "0.975 eV/Å instead of 1 eV/Å (rms)" in text  # sqrt(0.95)
    text = " ".join(words(row(1.0, 0.1)).summary())
    assert text.startswith("Symmetric enough: at most 1.00 ± 0.10 %")
    text = " ".join(words(row(1e-7, rounding=True, deviation=1e-7)).summary())
    assert "to rounding" in text and "Nothing is to be gained" in text
    assert "instead of" not in text


def test_without_a_reference_the_share_is_of_the_prediction():
    text = " ".join(words(row(4.0, 0.5, deviation=0.2), reference=False).summary())
    assert "no reference values" in text and "scatter by 20 % of their own size" in text
    assert words(row(), reference=False).table()[0][2] == "rms size"


def test_levels_and_poses_of_the_data_are_mentioned():
    text = words(
        row(0.1, 0.01, level=0.2, total=1.0),
        row(7.0, 0.3, level=0.9, total=1e-3),
        levels="noise level t",
    ).summary()
    assert any("largest at 0.9 (7 %) and smallest at 0.2 (0.1 %)" in line for line in text)
    assert any("little else left" in line for line in text)
    (line,) = [line for line in words(row(30.0, given=0.5)).summary() if "pose of the file" in line]
    assert "learned the poses of its data" in line


def test_cautions_about_rounding_are_left_out():
    warnings = ["forces: errors rest on 4 items only", "3 batches were left out"]
    assert (
        words(row(1e-7, rounding=True, deviation=1e-7), warnings=warnings).cautions == warnings[1:]
    )
    assert words(row(), warnings=warnings).cautions == warnings
    many = [f"forces at {t}: errors rest on 4 items only" for t in (0.2, 0.9)]
    both = words(row(level=0.2), row(level=0.9), warnings=many, levels="t").cautions
    assert both == ["errors rest on 4 items only (2 rows)"]


def test_nodes_by_name():
    assert nodes_named("icosahedral", SO3()).size(SO3()) == 60
    assert nodes_named("octahedral:3", SO3()).blocks == 3
    assert nodes_named("17", SO3()).blocks == 17
    assert nodes_named("all", Permutation(3)).size(Permutation(3)) == 6
    for name, message in (
        ("cubic", "unknown nodes"),
        ("octahedral:x", "unknown"),
        ("1", "two independent"),
    ):
        with pytest.raises(InputError, match=message):
            nodes_named(name, SO3())
    x = torch.zeros(5, 2, 3)
    found = subject(batches=[AuditBatch(x, x), AuditBatch(x, x)])
    assert evaluations(found, nodes_named("tetrahedral:2", SO3())) == 10 * 25


def test_the_zero_of_energies_is_fitted_per_element():
    generator = torch.Generator().manual_seed(0)
    species = torch.tensor([[1, 1, 8], [1, 8, 8], [1, 1, 1], [8, 8, 8], [1, 1, 8]])
    mine = torch.randn(5, generator=generator, dtype=torch.float64)
    constants = torch.where(species == 8, 400.0, 13.0).double().mean(1)
    x = torch.zeros(5, 3, 3, dtype=torch.float64)
    batch = AuditBatch(x, {"energy": mine - constants}, args=(species,))
    found = AuditSubject(
        title="",
        model=lambda x, species: {"energy": mine[: len(x)]},
        group=SO3(),
        batches=[batch],
        outputs={"energy": "invariant"},
        units={},
        what="",
    )
    moved, calls = with_common_zero(found, 10.0)
    assert calls == 5 and "different zeros" in moved.notes[-1]
    torch.testing.assert_close(moved.batches[0].target["energy"], mine)
    few = AuditSubject(**{**vars(found), "batches": [batch[torch.arange(3)]]})
    kept, _ = with_common_zero(few, 10.0)
    assert "too few structures" in kept.notes[-1]
    torch.testing.assert_close(kept.batches[0].target["energy"], (mine - constants)[:3])


def test_a_run_is_narrowed_to_the_levels_and_items_asked_for():
    x = torch.zeros(4, 2, 3)
    found = subject(batches=[AuditBatch(x, x, (x,), level=t) for t in (0.5, 0.9, 0.5, 0.9)])
    few = narrowed(found, AuditConfig(items=6))
    assert [(b.level, len(b)) for b in few.batches] == [(0.5, 4), (0.9, 4), (0.5, 2), (0.9, 2)]
    one = narrowed(found, AuditConfig(items=3, levels=(0.9,)))
    assert [(b.level, len(b), len(b.args[0])) for b in one.batches] == [(0.9, 3, 3)]
    with pytest.raises(InputError, match=r"no level 0.7; its levels are 0.5, 0.9"):
        narrowed(found, AuditConfig(levels=(0.7,)))
    for group in ("o3", "permutation"):
        with pytest.raises(InputError, match=r"under SO3\(\) only"):
            narrowed(found, AuditConfig(group=group))
