"""`orbitwise audit`: which share of a model's loss is imperfect symmetry, for our runs and for
anyone's models."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from orbitwise.audit import AuditBatch, Enumerate, Haar, audit_equivariance
from orbitwise.audit.energy_zero import with_common_zero
from orbitwise.audit.nodes import Nodes
from orbitwise.audit.structures import calculator_subject, chosen, force_field_subject
from orbitwise.audit.subject import AuditSubject, evaluations, narrowed, nodes_named
from orbitwise.errors import InputError
from orbitwise.groups.base import Group
from orbitwise.methods.audits.config import AuditConfig
from orbitwise.methods.audits.named import force_field, named_calculator
from orbitwise.methods.audits.page import Cost, write_audit
from orbitwise.methods.audits.words import Words
from orbitwise.runs.config import Plan, method_of_run
from orbitwise.runs.folder import working
from orbitwise.runs.job import Job
from orbitwise.runs.outcome import Outcome
from orbitwise.runs.registry import binding, cards
from orbitwise.training.progress import Progress, ProgressBar

# what a method's binding calls the function that prepares its runs for an audit
VERB = "audit_subject"


def subject_keys(
    what: str | None, ase: str | None, data: Path | None
) -> dict[str, str | Path | None]:
    """The keys of ``AuditConfig`` that say what is audited, from how the command is called: RUN,
    package.module:name, or --ase and a file."""
    if ase is not None:
        if what is not None and data is not None:
            raise InputError(f"two files of structures are given: {what} and --data {data}")
        return {"ase": ase, "data": data or what}
    if what is None:
        raise InputError(
            "say what to audit: RUN, package.module:function --data FILE, or --ase CALCULATOR FILE"
        )
    if ":" in what and not Path(what).exists():
        return {"model": what, "data": data}
    if data is not None:
        raise InputError(
            f"--data goes with package.module:function; the run {what} has held-out data of its own"
        )
    return {"run": what}


def subject(config: AuditConfig) -> AuditSubject:
    """What ``config`` asks to audit; raises ``InputError`` where it does not exist or cannot be
    audited."""
    if config.ase is None and config.model is None:
        return _subject_of_run(config)
    if config.data is None:
        raise InputError("say on which structures: --data FILE.extxyz")
    data = chosen(config.data, config.items, config.seed)

    if config.ase is not None:
        calculator = named_calculator(config.ase)
        return calculator_subject(calculator, config.ase, data, config.group)
    model = force_field(config.model)
    return force_field_subject(model, config.model, data, config.group)


def _subject_of_run(config: AuditConfig) -> AuditSubject:
    """The held-out data of a trained run, as its method prepares them."""
    name = method_of_run(config.run)
    prepare = getattr(binding(name), VERB, None)
    if prepare is None:
        able = ", ".join(c for c in cards() if hasattr(binding(c), VERB))
        raise InputError(
            f"{config.run}: runs of {name} cannot be audited, they have no held-out data to be"
            f" judged on; runs of these methods can: {able}"
        )
    return narrowed(prepare(config.run, config, trust=config.trust), config)


def plan(config: AuditConfig) -> Plan:
    """``energy_calls``: single points of a calculator; ``model_calls``: answers of a network."""
    found = subject(config)
    calls = evaluations(found, nodes_named(config.nodes, found.group))
    ours = config.ase is None
    return Plan(found.parameters, 0 if ours else calls, calls if ours else None)


def run(config: AuditConfig) -> Outcome:
    """Audit, and write ``audit.json``, ``audit.png`` and ``report.html`` into ``config.out``."""
    found = subject(config)
    for note in found.notes:  # before anything takes long
        print(f"note: {note}", file=sys.stderr, flush=True)
    with working(config.out or default_folder(config), _job(config)) as folder:
        return _audited(config, found, folder)


def _job(config: AuditConfig) -> Job:
    """What a folder is for: one subject, audited in whatever way."""
    names = {"run", "model", "ase", "data"}
    return Job("audit", config.model_dump(mode="json", include=names))


def _audited(config: AuditConfig, found: AuditSubject, folder: Path) -> Outcome:
    nodes = nodes_named(config.nodes, found.group)
    losses = found.loss(config.loss)
    where = found.batches[0].x.device

    clock, processor, spent = time.monotonic(), time.process_time(), 0
    if config.ase is not None:
        found, spent = with_common_zero(found, 0.1 * config.budget)
    report = audit_equivariance(
        found.model,
        found.group,
        _shown(found.batches),
        losses,
        outputs=found.outputs,
        nodes=nodes,
        gradients=config.gradients,
        generator=torch.Generator(where).manual_seed(config.seed),
        chunk=found.chunk,
        budget_seconds=config.budget,
    )
    report = replace(report, evaluations=report.evaluations + spent)
    cost = Cost(
        seconds=time.monotonic() - clock,
        cpu_seconds=time.process_time() - processor,
        nodes=_nodes_in_words(nodes, found.group),
        device=where,
    )

    words = Words(
        found,
        report,
        group=config.group,
        loss=config.loss,
        calculator=config.ase is not None,
        single_precision=getattr(found.model, "single_precision", False),
    )
    page = write_audit(folder, words, cost, config.resolved())
    price = f"{report.evaluations:,} answers of the model, {cost.cpu_seconds:.1f} s of CPU time"
    return Outcome(folder, report, [found.title, *words.lines(), price, f"report: {page}"])


def default_folder(config: AuditConfig) -> Path:
    """``RUN/audit``, or ``audit-NAME`` here."""
    if config.run is not None:
        return config.run / "audit"
    return Path("audit-" + re.sub(r"[^\w.-]+", "-", config.ase or config.model))


def _shown(batches: Sequence[AuditBatch]) -> Iterator[AuditBatch]:
    """The batches, with a bar on a terminal."""
    if not Console(stderr=True).is_terminal:
        yield from batches
        return
    with ProgressBar("audit") as bar:
        for k, batch in enumerate(batches):
            bar(Progress(k, len(batches)))
            yield batch


def _nodes_in_words(nodes: Nodes, group: Group) -> str:
    size = nodes.size(group)
    if isinstance(nodes, Enumerate):
        return f"all {size} elements of the group"
    if isinstance(nodes, Haar):
        return f"{nodes.blocks} random elements of the group"
    return (
        f"{nodes.blocks} random turns of the {nodes.polyhedron} rotation group,"
        f" {nodes.blocks * size} poses in all"
    )
