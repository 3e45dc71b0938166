"""How fast a network without built-in symmetry learns it (2512.02303): a training, audited on its
way.

The held-out loss is split at some steps into the twirled error and the equivariance error
(``audit.AuditEvery``). The tasks stand in files of their own (``dynamics_task.TASKS``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn

from orbitwise.audit import AuditEvery, read_audits
from orbitwise.audit.dynamics import on_device
from orbitwise.audit.subject import AuditRequest, AuditSubject
from orbitwise.data.folder import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.dynamics.figures import dynamics_figure
from orbitwise.methods.dynamics.summary import (
    THRESHOLD,
    Summary,
    curve_of,
    in_words,
    level_name,
    summary,
)
from orbitwise.methods.dynamics.task import DynamicsConfig, Task, build
from orbitwise.report.canvas import save
from orbitwise.runs.config import Plan, load_run
from orbitwise.runs.folder import training, works_in
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.own import check_parts
from orbitwise.runs.training import train_run
from orbitwise.training import load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME
from orbitwise.training.device import device_for

__all__ = [
    "DynamicsConfig",
    "Summary",
    "audit_subject",
    "curve_of",
    "evaluate",
    "plan",
    "report",
    "train",
    "trained",
]


def plan(config: DynamicsConfig) -> Plan:
    """No energy is called."""
    return Plan(sum(p.numel() for p in build(config).model.parameters()), 0)


@works_in("out", training)
def train(config: DynamicsConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out`` with audits in ``audit.jsonl``, or finish what was begun there,
    and ``evaluate``."""
    check_parts(config)
    task, out = build(config), writable_folder(out)
    audits = _audits(config, task, out)
    result = train_run(
        config,
        out,
        partial(fit, task.model, task.objective, task.data, config.train, on_step=audits),
        begun=(out / NAME).exists(),
        facts={"data": _digest(config.data)},
    )
    lines = [
        f"{out}: {result.steps} steps, {result.seconds:.0f} s of training",
        *evaluate(out).lines,
    ]
    return Outcome(out, result, [*lines, *task.notes])


@works_in("run")
def evaluate(run: str | Path, *, trust: bool = False) -> Outcome:
    """Say what the audits of a run come to: ``summary.json`` and ``dynamics.png``. ``InputError``
    without any."""
    config, run = load_run(run, trust=trust), writable_folder(run)
    audits = read_audits(run)
    if not audits:
        raise InputError(
            f"{run}: there are no audits yet; train it first: orbitwise train ... --out {run}"
        )
    found = summary(audits, plan(config).parameters)
    with replacing(run / "summary.json") as temporary:
        temporary.write_text(
            json.dumps({"config": config.resolved(), "summary": asdict(found)}, indent=1)
        )
    levels = [row.level for row in audits[-1].rows]
    title = (
        f"{config.task}: {config.network.name}, {found.parameters:,} parameters, {config.target}"
    )
    parts = (
        [curve_of(audits, level_name(level), level) for level in levels] if len(levels) > 1 else []
    )
    whole = curve_of(audits, "all")
    save(dynamics_figure(parts or [whole], whole, title, THRESHOLD), run / "dynamics.png")
    return Outcome(run, found, in_words(found, run))


report = evaluate  # the figure is made from the audits, which were measured in training


def audit_subject(run: str | Path, request: AuditRequest, *, trust: bool = False) -> AuditSubject:
    """The run's model and held-out batches, as `orbitwise audit` takes them; they have the levels
    of the run."""
    task, model = trained(run, trust=trust)
    device = torch.device(device_for())
    return AuditSubject(
        title=f"model of {Path(run).name}",
        model=task.audited(model).to(device).eval(),
        group=task.group,
        batches=[on_device(batch, device) for batch in task.batches],
        outputs=task.outputs,
        units={"prediction": task.units},
        what="the held-out error",
        parameters=sum(p.numel() for p in model.parameters()),
        levels=task.levels,
        notes=task.notes,
        chunk=1024,
    )


def trained(
    run: str | Path, averaged: bool = False, *, trust: bool = False
) -> tuple[Task, nn.Module]:
    """The task of a run and its model as it was left, with the last or the averaged weights."""
    task = build(load_run(run, trust=trust))
    load_weights(Path(run) / NAME, task.model, averaged)
    return task, task.model


def _audits(config: DynamicsConfig, task: Task, out: Path) -> AuditEvery:
    return AuditEvery(
        out,
        task.group,
        task.batches,
        steps=config.audit.steps(config.train.steps),
        outputs=task.outputs,
        nodes=task.nodes,
        gradients=config.audit.gradients,
        weights=config.audit.weights,
        same_elements=config.audit.same_elements,
        seed=config.train.seed,
        audited=task.audited,
        numbers=task.numbers,
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
