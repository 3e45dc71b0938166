"""How fast a network without built-in symmetry learns it (2512.02303): a training, audited on its way.

The held-out loss is split at some steps into the twirled error and the equivariance error (``audit.AuditEvery``). The
tasks stand in files of their own (``dynamics_task.TASKS``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orbitwise.audit import AuditedStep, AuditEvery, read_audits
from orbitwise.audit.dynamics import course, on_device, percent_of
from orbitwise.data.files import replacing, writable_folder
from orbitwise.errors import InputError
from orbitwise.methods.audit_subject import AuditConfig, AuditSubject
from orbitwise.methods.config import Plan, load_run, save_run
from orbitwise.methods.dynamics_task import DynamicsConfig, Task, build
from orbitwise.methods.parts import Outcome
from orbitwise.report.canvas import save
from orbitwise.report.dynamics_figures import Curve, dynamics_figure
from orbitwise.training import load_weights
from orbitwise.training import train as fit
from orbitwise.training.checkpoint import NAME

MARKS = (1000, 10_000)  # steps whose percentage the summary names
THRESHOLD = 2.0  # percent

__all__ = ["DynamicsConfig", "Summary", "audit_subject", "evaluate", "plan", "report", "train", "trained"]


@dataclass(frozen=True)
class Summary:
    """``percent`` at steps 1,000 and 10,000 (None: not audited there) and the whole course, over all levels and of
    each; the terms of the loss and ``numbers`` at the end."""

    parameters: int
    steps: int
    seconds: float
    percent_at: dict[int, float | None]
    course: dict[str, Any]
    levels: dict[str, dict[str, Any]]
    total: float
    twirled: float
    equivariance: float
    numbers: dict[str, float]


def plan(config: DynamicsConfig) -> Plan:
    """No energy is called."""
    return Plan(sum(p.numel() for p in build(config).model.parameters()), 0)


def train(config: DynamicsConfig, out: str | Path) -> Outcome:
    """Train in the folder ``out`` with audits in ``audit.jsonl``, or finish what was begun there, and ``evaluate``."""
    task, out = build(config), writable_folder(out)
    config = config.model_copy(update={"data": config.data.resolve()})
    if not (out / NAME).exists():  # of another configuration it would be refused below, and the old file kept
        save_run(config, out)
    key = config.model_dump(mode="json", exclude={"train", "data"}) | {"data": _digest(config.data)}
    result = fit(
        task.model, task.objective, task.data, config.train, out, key, on_step=_audits(config, task, out)
    )
    save_run(config, out)
    lines = [f"{out}: {result.steps} steps, {result.seconds:.0f} s of training", *evaluate(out).lines]
    return Outcome(out, result, [*lines, *task.notes])


def evaluate(run: str | Path) -> Outcome:
    """Say what the audits of a run come to: ``summary.json`` and ``dynamics.png``. ``InputError`` without any."""
    config, run = load_run(run), writable_folder(run)
    audits = read_audits(run)
    if not audits:
        raise InputError(f"{run}: there are no audits yet; train it first: orbitwise train ... --out {run}")
    found = summary(audits, plan(config).parameters)
    with replacing(run / "summary.json") as temporary:
        temporary.write_text(json.dumps({"config": config.resolved(), "summary": asdict(found)}, indent=1))
    levels = [row.level for row in audits[-1].rows]
    title = f"{config.task}: {config.network.name}, {found.parameters:,} parameters, {config.target}"
    parts = [curve_of(audits, _name(level), level) for level in levels] if len(levels) > 1 else []
    whole = curve_of(audits, "all")
    save(dynamics_figure(parts or [whole], whole, title, THRESHOLD), run / "dynamics.png")
    return Outcome(run, found, _lines(found, run))


report = evaluate  # the figure is made from the audits, which were measured in training


def audit_subject(run: str | Path, config: AuditConfig) -> AuditSubject:
    """The run's model and held-out batches, as `orbitwise audit` takes them; they have the levels of the run."""
    task, model = trained(run)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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


def trained(run: str | Path, averaged: bool = False) -> tuple[Task, nn.Module]:
    """The task of a run and its model as it was left, with the last or the averaged weights."""
    task = build(load_run(run))
    load_weights(Path(run) / NAME, task.model, averaged)
    return task, task.model


def summary(audits: Sequence[AuditedStep], parameters: int) -> Summary:
    """Of the audits of one run."""
    last = audits[-1]
    at = {a.step: a for a in audits}
    levels = {}
    for row in last.rows if len(last.rows) > 1 else ():
        marks = {mark: percent_of(at[mark], row.level).value if mark in at else None for mark in MARKS}
        levels[_name(row.level)] = {
            "percent_at": marks,
            "course": asdict(course(audits, THRESHOLD, row.level)),
        }
    return Summary(
        parameters=parameters,
        steps=last.step,
        seconds=last.seconds,
        percent_at={mark: at[mark].percent.value if mark in at else None for mark in MARKS},
        course=asdict(course(audits, THRESHOLD)),
        levels=levels,
        total=last.total.value,
        twirled=last.twirled.value,
        equivariance=last.equivariance.value,
        numbers=dict(last.numbers),
    )


def curve_of(audits: Sequence[AuditedStep], name: str, level: Any = None) -> Curve:
    """For a figure: one level, or the mean over all."""
    rows = [a if level is None else next(r for r in a.rows if r.level == level) for a in audits]

    def column(term: str) -> np.ndarray:
        return np.array([getattr(row, term).value for row in rows])

    return Curve(
        name=name,
        steps=np.array([a.step for a in audits]),
        seconds=np.array([a.seconds for a in audits]),
        percent=column("percent"),
        percent_error=np.array([row.percent.error for row in rows]),
        total=column("total"),
        twirled=column("twirled"),
        equivariance=column("equivariance"),
    )


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


def _lines(found: Summary, run: Path) -> list[str]:
    c = found.course
    marks = [f"{v:.3g} % after {k:,} steps" for k, v in found.percent_at.items() if v is not None]
    end = f"{c['final']['value']:.3g} ± {c['final']['error']:.2g} % at the end ({found.steps:,} steps)"
    text = ["equivariance error in the held-out loss: " + ", ".join([*marks, end])]
    if c["first_below"] is None:
        text.append(f"never below {THRESHOLD:g} %; smallest {c['smallest']:.3g} %")
    else:
        text.append(
            f"first below {THRESHOLD:g} % at step {c['first_below']:,}, up to {c['largest_after']:.3g} % "
            f"after that, smallest {c['smallest']:.3g} %"
        )
    text.append(f"held-out loss {found.total:.4g} = twirled {found.twirled:.4g} + {found.equivariance:.4g}")
    text += [f"{name}: {value:.4g}" for name, value in found.numbers.items()]
    return [*text, f"figure: {run / 'dynamics.png'}"]


def _name(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
